"""The pipeline as TFX sees it. Knows no orchestrator: the runner files beside it do."""

import dataclasses
import json
import os
from collections.abc import Mapping

import tensorflow as tf
import tensorflow_data_validation as tfdv
from tfx.components.evaluator.component import Evaluator
from tfx.components.example_validator.component import ExampleValidator
from tfx.components.pusher.component import Pusher
from tfx.components.schema_gen.component import SchemaGen
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.trainer.component import Trainer
from tfx.components.util import model_utils
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.dsl.io import fileio
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2
from tfx.types import BaseChannel, Channel
from tfx.types.standard_artifacts import Model, ModelBlessing
from tfx.utils import path_utils

from pipeline import evaluation, fingerprint
from pipeline.components.documents import CorpusGen
from pipeline.components.examples import MaskedExamplesGen
from pipeline.components.gates import AnomalyGate, ServingCheck
from pipeline.components.vocabulary import FILE, VocabularyGen
from pipeline.settings import PipelineSettings


class LatestOtherBlessedModel(ResolverStrategy):
    """The model blessed last that the candidate can be compared with: another one (so that a run that repeats another
    finds the same baseline and its cached result), of the same vocabulary (losses a token say nothing across
    vocabularies), and for texts no shorter."""

    def resolve_artifacts(self, store, input_dict):
        (candidate,) = input_dict["candidate"]
        others = {model.id: model for model in input_dict["model"] if model.id != candidate.id}
        for blessing in sorted(input_dict["model_blessing"], key=lambda blessing: blessing.id, reverse=True):
            model = others.get(blessing.get_int_custom_property("current_model_id"))
            if model and model_utils.is_model_blessed(blessing) and _is_comparable(model.uri, candidate.uri):
                return {**input_dict, "model": [model], "model_blessing": [blessing]}
        return {**input_dict, "model": [], "model_blessing": []}


def _is_comparable(baseline: str, candidate: str) -> bool:
    def read(uri: str, *path: str) -> str:
        with fileio.open(os.path.join(path_utils.serving_model_path(uri), *path)) as file:
            return file.read()

    def length(uri: str) -> int:
        return json.loads(read(uri, "assets.extra", "export.json"))["settings"]["max_seq_length"]

    try:
        same = read(baseline, "assets", FILE) == read(candidate, "assets", FILE)
        return same and length(baseline) >= length(candidate)
    except (OSError, tf.errors.OpError):  # removed since
        return False


def create_pipeline(settings: PipelineSettings, home: str) -> Pipeline:
    """Text in, pushed model out.

    Args:
      settings: what to do.
      home: folder of all that the pipeline keeps: `artifacts/`, `metadata.sqlite`, `training/`
        (checkpoints of a run that has not finished) and `serving/<name>/<version>/`.
    """
    settings.check()
    data_nodes, examples = data_steps(settings)
    return Pipeline(
        pipeline_name=settings.name,
        pipeline_root=os.path.join(home, "artifacts"),
        components=[*data_nodes, *model_steps(settings, home, examples.outputs, data_nodes[-1])],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(os.path.join(home, "metadata.sqlite")),
        beam_pipeline_args=list(settings.beam_args),
    )


def data_steps(settings: PipelineSettings) -> tuple[list[BaseNode], BaseNode]:
    """Corpus to validated examples: the nodes, the gate last, and the one that makes the examples."""
    code = fingerprint.of_code("preprocessing", "pipeline.components", "pipeline.split")
    text = fingerprint.of_files(settings.corpus.input) if settings.corpus.input else fingerprint.of_packages()
    corpus = CorpusGen(
        settings=_part(settings, "corpus", "embedded_bytes", "eval_share"), input_fingerprint=f"{code}-{text}"
    )
    # The text itself is left out of the statistics: counting the distinct values of it would be a copy of the corpus.
    sizes = tfdv.StatsOptions(feature_allowlist=["num_sentences", "num_bytes", "num_words"])
    corpus_statistics = StatisticsGen(examples=corpus.outputs["documents"], stats_options=sizes).with_id(
        "CorpusStatistics"
    )
    corpus_schema = SchemaGen(statistics=corpus_statistics.outputs["statistics"]).with_id("CorpusSchema")
    corpus_validation = _validation("Corpus", corpus_statistics, corpus_schema.outputs["schema"])

    vocabulary = VocabularyGen(documents=corpus.outputs["documents"], settings=_part(settings, "vocabulary"), code=code)
    vocabulary.add_upstream_node(corpus_validation[-1])
    examples = MaskedExamplesGen(
        documents=corpus.outputs["documents"],
        vocabulary_artifact=vocabulary.outputs["vocabulary_artifact"],
        settings=_part(settings, "examples"),
        code=code,
    )
    statistics = StatisticsGen(examples=examples.outputs["examples"]).with_id("ExampleStatistics")
    validation = _validation("Example", statistics, examples.outputs["example_schema"])
    nodes = [corpus, corpus_statistics, corpus_schema, *corpus_validation, vocabulary, examples, statistics]
    return [*nodes, *validation], examples


def model_steps(
    settings: PipelineSettings,
    home: str,
    data: Mapping[str, BaseChannel],
    data_gate: BaseNode,
) -> list[BaseNode]:
    """Examples and their schema to the pushed model."""
    training = _part(settings, "encoder", "training", "vocabulary", "export", "init")
    code = fingerprint.of_code("model", "serving", "preprocessing", "pipeline.trainer")
    begin = ""
    if settings.init:
        files = settings.init if os.path.exists(settings.init) else f"{settings.init}*"
        begin = fingerprint.of_files((files,))
    trainer = Trainer(
        run_fn="pipeline.trainer.run_fn",
        examples=data["examples"],
        custom_config={
            "settings": training,
            "fingerprint": fingerprint.of_text(training, code, begin),
            "work_folder": os.path.join(home, "training"),
        },
    )
    trainer.add_upstream_node(data_gate)
    baseline = Resolver(
        strategy_class=LatestOtherBlessedModel,
        model=Channel(type=Model),
        model_blessing=Channel(type=ModelBlessing),
        candidate=trainer.outputs["model"],
    ).with_id("Baseline")
    evaluator = Evaluator(
        examples=data["examples"],
        schema=data["example_schema"],
        model=trainer.outputs["model"],
        baseline_model=baseline.outputs["model"],
        example_splits=["eval"],
        eval_config=evaluation.eval_config(settings.gate),
    )
    serving_check = ServingCheck(model=trainer.outputs["model"])
    folder = pusher_pb2.PushDestination.Filesystem(base_directory=os.path.join(home, "serving", settings.name))
    pusher = Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=serving_check.outputs["blessing"],
        push_destination=pusher_pb2.PushDestination(filesystem=folder),
    )
    return [trainer, baseline, evaluator, serving_check, pusher]


def _part(settings: PipelineSettings, *names: str) -> str:
    """The settings that one step depends on, so that a change re-runs no other."""
    values = dataclasses.asdict(settings)
    return json.dumps({name: values[name] for name in names}, sort_keys=True)


def _validation(prefix: str, statistics: BaseNode, schema: BaseChannel) -> tuple[BaseNode, BaseNode]:
    """ExampleValidator, which writes anomalies down, and the gate that stops at them."""
    validator = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema).with_id(
        f"{prefix}Validator"
    )
    return validator, AnomalyGate(anomalies=validator.outputs["anomalies"]).with_id(f"{prefix}Gate")
