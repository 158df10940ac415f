"""The pipeline that fine-tunes, for any kind of task. Knows no orchestrator: the runner files beside it do."""

import os

import tensorflow_data_validation as tfdv
from ml_metadata.proto import metadata_store_pb2
from tfx.components.schema_gen.component import SchemaGen
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.trainer.component import Trainer
from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration.pipeline import Pipeline

from pipeline import task_trainer
from pipeline.components import baseline as baselines
from pipeline.components import drift, gates, task_examples
from pipeline.components import evaluator as evaluators
from pipeline.components.baseline import Baseline
from pipeline.components.drift import DriftGate
from pipeline.components.evaluator import Evaluator
from pipeline.components.gates import AnomalyGate
from pipeline.components.task_examples import TaskExamplesGen
from pipeline.evaluation import tasks as evaluation
from pipeline.finetuning.rows import LABELS, SIZE
from pipeline.finetuning.settings import FinetuningSettings
from pipeline.graphs import fingerprint, parts
from pipeline.history import parents
from preprocessing.errors import InputError


def create_pipeline(
    settings: FinetuningSettings,
    *,
    root: str,
    metadata: metadata_store_pb2.ConnectionConfig | None,
    serving: str,
    work: str,
    input_fingerprint: str | None = None,
) -> Pipeline:
    """Rows in, pushed model out; see `pipeline.graphs.pretraining.create_pipeline`. With an `input_fingerprint` no file
    is looked at, and the Trainer's `custom_config` names no checkpoint: both are for whoever finds them out in the run.
    Raises InputError where there is nothing to begin with."""
    settings.check(files=input_fingerprint is None)
    begin = None
    if input_fingerprint is None:
        begin = checkpoint(settings, os.path.join(os.path.dirname(serving), settings.pretrained))
        files = tuple(path for path in (settings.train, settings.eval) if path)
        input_fingerprint = fingerprint.of_input(task_examples.__name__, files)
    data_nodes, examples = data_steps(settings, input_fingerprint)
    return Pipeline(
        pipeline_name=settings.name,
        pipeline_root=root,
        components=[*data_nodes, *model_steps(settings, serving, work, begin, examples, data_nodes[-1])],
        enable_cache=True,
        metadata_connection_config=metadata,
        beam_pipeline_args=list(settings.beam_args),
    )


def checkpoint(settings: FinetuningSettings, serving: str) -> str:
    """What is fine-tuned: what is named, else what the pretraining pipeline pushed last, whose folder `serving` is."""
    found = settings.init or parents.newest_checkpoint(serving)
    if found is None:
        raise InputError(
            f"{serving}: no pretrained model was pushed there, or its checkpoint is gone: `make run` first, or name a "
            'checkpoint, {"init": "FOLDER", ...}'
        )
    return found


def data_steps(settings: FinetuningSettings, input_fingerprint: str) -> tuple[list[BaseNode], BaseNode]:
    """Files to validated rows: the nodes, the gates last, and the one that makes the examples."""
    examples = TaskExamplesGen(
        settings=parts.part(settings, "task", "train", "eval", "columns", "embedded_rows"),
        input_fingerprint=input_fingerprint,
    )
    # The rows themselves are left out of the statistics: counting their values would be a copy of the data.
    told = tfdv.StatsOptions(feature_allowlist=[LABELS, SIZE])
    statistics = StatisticsGen(examples=examples.outputs["examples"], stats_options=told).with_id("TaskStatistics")
    # What train has is what eval may have.
    schema = SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=False, exclude_splits=["eval"])
    schema = schema.with_id("TaskSchema")
    validator = parts.validator("Task", statistics, schema.outputs["schema"])
    gate = AnomalyGate(anomalies=validator.outputs["anomalies"], code=parts.code_of(gates)).with_id("TaskGate")
    drift_gate = DriftGate(
        statistics=statistics.outputs["statistics"],
        schema=schema.outputs["schema"],
        most=settings.gate.max_drift,
        code=parts.code_of(drift),
    )
    drift_gate.add_upstream_node(gate)
    return [examples, statistics, schema, validator, gate, drift_gate], examples


def model_steps(
    settings: FinetuningSettings, serving: str, work: str, begin: str | None, examples: BaseNode, data_gate: BaseNode
) -> list[BaseNode]:
    """Rows to the pushed model. `begin`: checkpoint; None: not looked for yet."""
    training = parts.part(settings.replace(init=begin), "task", "columns", "options", "export", "untrained", "init")
    code = parts.code_of(task_trainer)
    named = [settings.options.get(name) for name in ("teacher", "labels", "class_weights")]
    there = (path for path in named if path and os.path.exists(path))
    files = (begin, *there, *settings.export.tokens_of) if begin else ()
    trainer = Trainer(
        run_fn=f"{task_trainer.__name__}.run_fn",
        examples=examples.outputs["examples"],
        custom_config={
            "settings": training,
            "fingerprint": fingerprint.of_text(training, code, fingerprint.of_files(files)),
            "work_folder": work,
        },
    )
    trainer.add_upstream_node(data_gate)
    baseline = Baseline(candidate=trainer.outputs["model"], serving=serving, code=parts.code_of(baselines))
    evaluator = Evaluator(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        baseline_model=baseline.outputs["baseline"],
        example_splits=["eval"],
        eval_config=evaluation.eval_config(settings.kind, settings.gate, parts.code_of(evaluation, evaluators)),
        module_path=evaluation.__name__,
    )
    return [trainer, baseline, evaluator, *parts.pushing(trainer, evaluator, serving)]
