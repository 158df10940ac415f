"""The pipeline as TFX sees it. Knows no orchestrator: the runner files beside it do."""

import os
from collections.abc import Mapping

import tensorflow_data_validation as tfdv
from ml_metadata.proto import metadata_store_pb2
from tfx.components.schema_gen.component import SchemaGen
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.trainer.component import Trainer
from tfx.dsl.components.base.base_node import BaseNode
from tfx.orchestration.pipeline import Pipeline
from tfx.types import BaseChannel

from model import training
from pipeline import trainer as trainers
from pipeline.components import baseline as baselines
from pipeline.components import data_gates, documents
from pipeline.components import evaluator as evaluators
from pipeline.components import examples as masked_examples
from pipeline.components import vocabulary as vocabularies
from pipeline.components.baseline import Baseline
from pipeline.components.data_gates import CorpusGate, ExampleGate
from pipeline.components.documents import CorpusGen
from pipeline.components.evaluator import Evaluator
from pipeline.components.examples import MaskedExamplesGen
from pipeline.components.vocabulary import VocabularyGen
from pipeline.evaluation import pretraining as evaluation
from pipeline.graphs import continuing, fingerprint, parts
from pipeline.settings import PipelineSettings
from preprocessing import vocab_file
from preprocessing.corpus import spans
from preprocessing.examples import phrases


def create_pipeline(
    settings: PipelineSettings,
    *,
    root: str,
    metadata: metadata_store_pb2.ConnectionConfig | None,
    serving: str,
    work: str,
    input_fingerprint: str | None = None,
) -> Pipeline:
    """Text in, pushed model out.

    Args:
      settings: what to do.
      root: folder of the artifacts.
      metadata: the store that knows them; None: the orchestrator has its own.
      serving: folder of pushed models, `<serving>/<version>/`.
      work: folder on a filesystem with locks: checkpoints of a training that has not ended.
      input_fingerprint: what the corpus is known by; None: by its files as they are now; "": found out in the run.
    """
    if input_fingerprint is None:
        settings = continuing.with_parent(settings, serving)
        files = tuple(pattern for _, part in spans.narrowed(settings.corpus) for pattern in part.input)
        input_fingerprint = fingerprint.of_input(documents.__name__, files)
    settings.check()
    data_nodes, examples = data_steps(settings, input_fingerprint)
    nodes = [*data_nodes, *model_steps(settings, serving, work, examples.outputs, data_nodes[-1])]
    parts.add_beam_args(nodes, settings.step_beam_args)
    return Pipeline(
        pipeline_name=settings.name,
        pipeline_root=root,
        components=nodes,
        enable_cache=True,
        metadata_connection_config=metadata,
        beam_pipeline_args=list(settings.beam_args),
    )


def data_steps(settings: PipelineSettings, input_fingerprint: str) -> tuple[list[BaseNode], BaseNode]:
    """Corpus to validated examples: the nodes, the gate last, and the one that makes the examples."""
    corpus = CorpusGen(
        settings=parts.part(settings, "corpus", "embedded_bytes", "eval_share"), input_fingerprint=input_fingerprint
    )
    # The text itself is left out of the statistics: counting the distinct values of it would be a copy of the corpus.
    sizes = tfdv.StatsOptions(feature_allowlist=["num_sentences", "num_bytes", "num_words"])
    corpus_statistics = StatisticsGen(examples=corpus.outputs["documents"], stats_options=sizes).with_id(
        "CorpusStatistics"
    )
    corpus_schema = SchemaGen(statistics=corpus_statistics.outputs["statistics"]).with_id("CorpusSchema")
    corpus_validator = parts.validator("Corpus", corpus_statistics, corpus_schema.outputs["schema"])
    corpus_gate = CorpusGate(
        anomalies=corpus_validator.outputs["anomalies"],
        documents=corpus.outputs["documents"],
        settings=parts.part(settings, "bounds"),
        code=parts.code_of(data_gates),
    )

    pinned = ""
    if settings.vocabulary.file:
        tokens = vocab_file.load(settings.vocabulary.file)
        pinned = fingerprint.of_text(*tokens)
        if settings.init:
            training.check_words(settings.init, tokens)
    vocabulary = VocabularyGen(
        documents=corpus.outputs["documents"],
        settings=parts.part(settings, "vocabulary"),
        code=parts.code_of(vocabularies) + pinned,
    )
    vocabulary.add_upstream_node(corpus_gate)
    listed = ""
    if settings.examples.phrases:
        listed = fingerprint.of_text(phrases.read(settings.examples.phrases).decode("utf-8", "backslashreplace"))
    examples = MaskedExamplesGen(
        documents=corpus.outputs["documents"],
        vocabulary_artifact=vocabulary.outputs["vocabulary_artifact"],
        settings=parts.part(settings, "examples"),
        code=parts.code_of(masked_examples) + listed,
    )
    statistics = StatisticsGen(examples=examples.outputs["examples"]).with_id("ExampleStatistics")
    validator = parts.validator("Example", statistics, examples.outputs["example_schema"])
    gate = ExampleGate(
        anomalies=validator.outputs["anomalies"],
        examples=examples.outputs["examples"],
        vocabulary_artifact=vocabulary.outputs["vocabulary_artifact"],
        settings=parts.part(settings, "bounds", "examples"),
        code=parts.code_of(data_gates),
    )
    nodes = [corpus, corpus_statistics, corpus_schema, corpus_validator, corpus_gate, vocabulary, examples, statistics]
    return [*nodes, validator, gate], examples


def model_steps(
    settings: PipelineSettings,
    serving: str,
    work: str,
    data: Mapping[str, BaseChannel],
    data_gate: BaseNode,
) -> list[BaseNode]:
    """Examples and their schema to the pushed model."""
    training = parts.part(settings, "encoder", "training", "vocabulary", "export", "init")
    begin = ""
    if settings.init:
        files = settings.init if os.path.exists(settings.init) else f"{settings.init}*"
        begin = fingerprint.of_files((files,))
    trainer = Trainer(
        run_fn=f"{trainers.__name__}.run_fn",
        examples=data["examples"],
        custom_config={
            "settings": training,
            "fingerprint": fingerprint.of_text(training, parts.code_of(trainers), begin),
            "work_folder": work,
        },
    )
    trainer.add_upstream_node(data_gate)
    baseline = Baseline(candidate=trainer.outputs["model"], serving=serving, code=parts.code_of(baselines))
    evaluator = Evaluator(
        examples=data["examples"],
        schema=data["example_schema"],
        model=trainer.outputs["model"],
        baseline_model=baseline.outputs["baseline"],
        example_splits=["eval"],
        eval_config=evaluation.eval_config(settings.gate, parts.code_of(evaluation, evaluators)),
    )
    return [trainer, baseline, evaluator, *parts.pushing(trainer, evaluator, serving)]
