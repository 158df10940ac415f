"""Held-out metrics in TensorFlow Model Analysis, beside baselines that need no model, and the gate."""

import collections
import json
import math
from typing import TYPE_CHECKING

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
import tensorflow_text  # noqa: F401  registers the ops of the SavedModel that is evaluated
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from preprocessing import features

if TYPE_CHECKING:
    from pipeline.settings import GateSettings  # its values are part of what is evaluated; how they are read is not

SIGNATURE = "evaluate"
METRICS = (
    "masked_lm_loss",  # nats a masked token
    "masked_lm_perplexity",
    "masked_lm_accuracy",
    "next_sentence_accuracy",
    "unigram_loss",  # entropy of the held-out masked tokens: the best that a model without context could do
    "commonest_token_accuracy",  # of always saying the commonest of them
    "masked_lm_loss_gain",  # unigram_loss - masked_lm_loss
    "masked_lm_accuracy_gain",  # masked_lm_accuracy - commonest_token_accuracy
    "next_sentence_baseline",  # accuracy of always saying the commoner label
)


class PretrainingMetrics(metric_types.Metric):
    """All of METRICS in one pass over the per-example sums of the `evaluate` signature.

    `code` is a fingerprint of what computes them: the metrics' arguments are part of what a cached evaluation is known
    by, so that other code evaluates anew.
    """

    def __init__(self, name: str = "pretraining", code: str = "", **kwargs):
        super().__init__(_computations, name=name, code=code, **kwargs)


def _computations(
    name: str | None = None, model_names: list[str] | None = None, **_
) -> metric_types.MetricComputations:
    wanted = metric_types.FeaturePreprocessor(
        feature_keys=[features.MASKED_LM_IDS, features.MASKED_LM_WEIGHTS, features.NEXT_SENTENCE_LABELS]
    )
    return [
        metric_types.MetricComputation(
            keys=[_key(metric, model) for metric in METRICS],
            preprocessors=[wanted],
            combiner=PretrainingCombiner(model),
        )
        for model in model_names or [""]
    ]


def _key(metric: str, model_name: str) -> metric_types.MetricKey:
    # example_weighted None, and not its default False: so the keys of the thresholds are made.
    return metric_types.MetricKey(name=metric, model_name=model_name, example_weighted=None)


metric_types.register_metric(PretrainingMetrics)


class PretrainingCombiner(beam.CombineFn):
    """Sums over examples of what the model says, and counts of what stands there."""

    SUMS = ("mlm_loss", "mlm_correct", "mlm_weight", "nsp_correct")

    def __init__(self, model_name: str):
        self.model_name = model_name

    def create_accumulator(self):
        return collections.Counter(), np.zeros(len(self.SUMS) + 2)  # counts of tokens; SUMS, examples, random nexts

    def add_input(self, accumulator, element):
        counts, sums = accumulator
        predictions = element.get_predictions(model_name=self.model_name) or {}
        ids = np.asarray(element.features[features.MASKED_LM_IDS]).ravel()
        weights = np.asarray(element.features[features.MASKED_LM_WEIGHTS]).ravel()
        counts.update(ids[weights > 0].tolist())
        sums[: len(self.SUMS)] += [float(np.sum(predictions[key])) for key in self.SUMS]
        sums[-2:] += 1.0, float(np.sum(element.features[features.NEXT_SENTENCE_LABELS]))
        return counts, sums

    def merge_accumulators(self, accumulators):
        total_counts, total_sums = self.create_accumulator()
        for counts, sums in accumulators:
            total_counts.update(counts)
            total_sums += sums
        return total_counts, total_sums

    def extract_output(self, accumulator):
        values = figures(*accumulator)
        return {_key(name, self.model_name): values[name] for name in METRICS}


def figures(counts: collections.Counter, sums: np.ndarray) -> dict[str, float]:
    """METRICS by name; NaN, which no threshold passes, where there is nothing to divide by."""
    loss, correct, weight, next_correct, examples, random_next = sums
    total = sum(counts.values())
    nan = math.nan
    values = {
        "masked_lm_loss": loss / weight if weight else nan,
        "masked_lm_accuracy": correct / weight if weight else nan,
        "next_sentence_accuracy": next_correct / examples if examples else nan,
        "next_sentence_baseline": max(random_next, examples - random_next) / examples if examples else nan,
        "unigram_loss": -sum(n / total * math.log(n / total) for n in counts.values()) if total else nan,
        "commonest_token_accuracy": max(counts.values()) / total if total else nan,
    }
    values["masked_lm_perplexity"] = float(np.exp(values["masked_lm_loss"]))
    values["masked_lm_loss_gain"] = values["unigram_loss"] - values["masked_lm_loss"]
    values["masked_lm_accuracy_gain"] = values["masked_lm_accuracy"] - values["commonest_token_accuracy"]
    return values


def eval_config(gate: "GateSettings", code: str = "") -> config_pb2.EvalConfig:
    """The overall slice must pass: a plain threshold would ask it of every slice. `code`: see PretrainingMetrics."""
    bounds = {
        "masked_lm_loss_gain": config_pb2.MetricThreshold(
            value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": gate.min_loss_gain})
        ),
        "masked_lm_accuracy_gain": config_pb2.MetricThreshold(
            value_threshold=config_pb2.GenericValueThreshold(lower_bound={"value": gate.min_accuracy_gain})
        ),
        "masked_lm_loss": config_pb2.MetricThreshold(
            change_threshold=config_pb2.GenericChangeThreshold(
                absolute={"value": gate.max_loss_increase}, direction=config_pb2.MetricDirection.LOWER_IS_BETTER
            )
        ),
    }
    thresholds = {
        name: config_pb2.PerSliceMetricThresholds(
            thresholds=[config_pb2.PerSliceMetricThreshold(slicing_specs=[config_pb2.SlicingSpec()], threshold=bound)]
        )
        for name, bound in bounds.items()
    }
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(
                signature_name=SIGNATURE, model_type=tfma.TF_GENERIC, label_key=features.NEXT_SENTENCE_LABELS
            )
        ],
        slicing_specs=[
            config_pb2.SlicingSpec(),
            config_pb2.SlicingSpec(feature_keys=[features.NEXT_SENTENCE_LABELS]),
        ],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    config_pb2.MetricConfig(
                        class_name=PretrainingMetrics.__name__, module=__name__, config=json.dumps({"code": code})
                    )
                ],
                per_slice_thresholds=thresholds,
            )
        ],
    )
