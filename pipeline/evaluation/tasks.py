"""A fine-tuned model judged in TensorFlow Model Analysis: the served signature is asked about raw rows, and its answers
go to the judge of the kind.

A prediction is a pickled pair of a row and its answer: it lives as long as the Beam pipeline does.
"""

import contextlib
import json
import math
import pickle
from typing import TYPE_CHECKING

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from pipeline.finetuning import asking, description, kinds, rows
from pipeline.finetuning.kinds.kind import Kind, first_figure

if TYPE_CHECKING:
    from pipeline.finetuning.settings import TuningGate  # its values are part of what is evaluated

# The first figure that there is, and its gain over the floor, what is to be had without a pretrained model.
FIRST, GAIN = "first_figure", "gain"
ANSWERED, FLOOR = "answered", "floor"


def custom_extractors(eval_shared_model, eval_config, tensor_adapter_config):
    """What TFX's Evaluator looks for in this module."""
    models = eval_shared_model if isinstance(eval_shared_model, list) else [eval_shared_model]
    ask = beam.ParDo(_Ask({model.model_name: model.model_path for model in models}))
    return tfma.default_extractors(
        eval_shared_model=eval_shared_model,
        eval_config=eval_config,
        tensor_adapter_config=tensor_adapter_config,
        custom_predict_extractor=tfma.extractors.Extractor("AskServedSignature", ask),
    )


class _Ask(beam.DoFn):
    """Adds predictions to batches of extracts, by the model's name where there are several. `models`: folders."""

    def __init__(self, models: dict[str, str]):
        self._models = models

    def setup(self):
        self._open = contextlib.ExitStack()
        self._served = {name: self._open.enter_context(asking.opened(path)) for name, path in self._models.items()}
        self._descriptions = {name: description.read(path) for name, path in self._models.items()}

    def teardown(self):
        self._open.close()

    def process(self, extracts):
        found = {}
        for name, served in self._served.items():
            what = self._descriptions[name]
            wanted = [rows.decode(what.kind, record) for record in extracts[tfma.INPUT_KEY]]
            pairs = [pickle.dumps(pair) for pair in asking.asked(what.kind, what.signature, wanted, served)]
            found[name] = {ANSWERED: np.array(pairs, object), FLOOR: np.full(len(pairs), what.floor)}
        yield {**extracts, tfma.PREDICTIONS_KEY: found if len(found) > 1 else next(iter(found.values()))}


class TaskMetrics(metric_types.Metric):
    """The figures of a kind's judge, and GAIN. `code`: see `pipeline.evaluation.pretraining.PretrainingMetrics`."""

    def __init__(self, task: str, name: str = "task", code: str = "", **kwargs):
        super().__init__(_computations, name=name, task=task, code=code, **kwargs)


def _computations(
    task: str, name: str | None = None, model_names: list[str] | None = None, **_
) -> metric_types.MetricComputations:
    kind = kinds.named(task)
    return [
        metric_types.MetricComputation(
            keys=[_key(figure, model) for figure in (*kind.figures, FIRST, GAIN)],
            preprocessors=None,
            combiner=TaskCombiner(kind, model),
        )
        for model in model_names or [""]
    ]


def _key(metric: str, model_name: str) -> metric_types.MetricKey:
    # example_weighted None, and not its default False: so the keys of the thresholds are made.
    return metric_types.MetricKey(name=metric, model_name=model_name, example_weighted=None)


metric_types.register_metric(TaskMetrics)


class TaskCombiner(beam.CombineFn):
    """Adds up judges: memory grows with the rows by two numbers each where ranks are judged, else not at all."""

    def __init__(self, kind: Kind, model_name: str):
        self.kind, self.model_name = kind, model_name

    def create_accumulator(self):
        return self.kind.judge(), math.nan  # the floor

    def add_input(self, accumulator, element):
        judge, _ = accumulator
        predictions = element.get_predictions(model_name=self.model_name) or {}
        judge.add(*pickle.loads(predictions[ANSWERED].item()))
        return judge, float(predictions[FLOOR].item())

    def merge_accumulators(self, accumulators):
        total, floor = self.create_accumulator()
        for judge, own in accumulators:
            total.merge(judge)
            floor = floor if math.isnan(own) else own
        return total, floor

    def extract_output(self, accumulator):
        judge, floor = accumulator
        found = {name: value for name, value in judge.figures().items() if name in self.kind.figures}
        first = found[first_figure(self.kind, found)]
        values = {**found, FIRST: first, GAIN: first - floor}
        return {_key(name, self.model_name): value for name, value in values.items()}


def eval_config(kind: Kind, gate: "TuningGate", code: str = "") -> config_pb2.EvalConfig:
    """The gate is over all eval rows. `code`: see TaskMetrics."""
    bounds = {
        GAIN: config_pb2.MetricThreshold(
            value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": gate.min_gain})
        ),
        FIRST: config_pb2.MetricThreshold(
            change_threshold=config_pb2.GenericChangeThreshold(
                absolute={"value": -gate.max_decrease}, direction=config_pb2.MetricDirection.HIGHER_IS_BETTER
            )
        ),
    }
    thresholds = {
        name: config_pb2.PerSliceMetricThresholds(
            thresholds=[config_pb2.PerSliceMetricThreshold(slicing_specs=[config_pb2.SlicingSpec()], threshold=bound)]
        )
        for name, bound in bounds.items()
    }
    config = json.dumps({"task": kind.name, "code": code})
    metric = config_pb2.MetricConfig(class_name=TaskMetrics.__name__, module=__name__, config=config)
    return config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(model_type=tfma.TF_GENERIC)],
        slicing_specs=[config_pb2.SlicingSpec()],
        metrics_specs=[config_pb2.MetricsSpec(metrics=[metric], per_slice_thresholds=thresholds)],
    )
