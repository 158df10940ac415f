import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions, StandardOptions
from tfx.dsl.components.base import base_beam_executor
from tfx.orchestration.pipeline import Pipeline

from model import checkpoints
from model.encoder import BertEncoder
from pipeline import settings
from pipeline.graphs import parts, pretraining
from pipeline.runs import steps
from preprocessing import features
from preprocessing.errors import InputError


def create(run, **places):
    given = {"root": "gs://bucket/artifacts", "metadata": None, "serving": "/serving", "work": "/work"} | places
    return pretraining.create_pipeline(run, **given)


def test_every_step_has_a_title_and_the_graph_knows_no_orchestrator():
    pipeline = create(settings.smoke())
    assert isinstance(pipeline, Pipeline)
    assert {node.id for node in pipeline.components} <= set(steps.TITLES)
    assert pipeline.metadata_connection_config is None


def test_settings_that_contradict_each_other_are_refused_before_anything_runs():
    run = settings.smoke()
    run = run.replace(vocabulary=settings.dataclasses.replace(run.vocabulary, lower_case=False))
    with pytest.raises(InputError, match=r"lower_case must be the vocabulary's \(False\). Received: True"):
        create(run)


def node(pipeline, name):
    (found,) = (node for node in pipeline.components if node.id == name)
    return found


@pytest.mark.parametrize("name", ["CorpusGen", "VocabularyGen", "ExampleStatistics", "Evaluator"])
def test_beam_options_of_a_step_count_before_the_pipelines(name):
    """Asked as Beam reads them, of the object that the step's work is built on."""
    own = ("--runner=FlinkRunner", "--flink_master=host:8081", "--parallelism=7")
    pipeline = create(settings.smoke().replace(step_beam_args={name: own}))
    for step in ("CorpusGen", "VocabularyGen", "ExampleStatistics", "Evaluator"):
        given = node(pipeline, step).executor_spec
        executor = given.executor_class(
            base_beam_executor.BaseBeamExecutor.Context(beam_pipeline_args=list(given.beam_pipeline_args))
        )
        options = executor._make_beam_pipeline().options
        runner = options.view_as(StandardOptions).runner
        assert runner == (
            "FlinkRunner" if step == name else settings.PipelineSettings().beam_args[0][len("--runner=") :]
        )
        assert options.view_as(FlinkRunnerOptions).flink_master == ("host:8081" if step == name else "[auto]")


def test_the_gate_and_the_code_of_the_metrics_are_known_to_the_evaluator(monkeypatch):
    def config(run):
        return node(create(run), "Evaluator").exec_properties["eval_config"]

    run = settings.smoke()
    before = config(run)
    assert config(run) == before
    assert config(run.replace(gate=settings.GateSettings())) != before
    monkeypatch.setattr(parts, "code_of", lambda *modules: f"edited {modules}")
    assert config(run) != before


def test_a_vocabulary_is_known_by_its_content(tmp_path):
    def code():
        return node(create(run), "VocabularyGen").exec_properties["code"]

    path = tmp_path / "vocab.txt"
    run = settings.smoke().replace(vocabulary=settings.VocabularySettings(file=str(path)))
    path.write_text("\n".join(features.SPECIAL_TOKENS))
    before = code()
    assert code() == before
    path.write_text("\n".join((*features.SPECIAL_TOKENS, "a")))
    assert code() != before


def test_a_checkpoint_of_another_vocabulary_is_refused_before_the_first_step(tmp_path):
    init = tmp_path / "init"
    encoder = BertEncoder(settings.encoders.tiny(vocab_size=6))
    checkpoints.save(encoder, init, vocab=[*features.SPECIAL_TOKENS, "a"])
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join((*features.SPECIAL_TOKENS, "b")))
    run = settings.smoke().replace(init=str(init), vocabulary=settings.VocabularySettings(file=str(path)))
    with pytest.raises(InputError, match=r"must have the run's vocabulary, .* line 6 is 'a' there, 'b' here"):
        create(run)
    create(run.replace(vocabulary=settings.VocabularySettings(file=str(init / "vocab.txt"))))


def test_another_list_of_phrases_makes_the_examples_anew(tmp_path):
    path = tmp_path / "phrases.txt"
    made = settings.dataclasses.replace(settings.smoke().examples, masking="phrases", phrases=str(path))
    with pytest.raises(InputError, match=r"phrases\.txt: the list of phrases cannot be read"):
        create(settings.smoke().replace(examples=made))
    known = []
    for text in ("new york", "old york", "new york"):
        path.write_text(text)
        known.append(node(create(settings.smoke().replace(examples=made)), "MaskedExamplesGen").exec_properties["code"])
    assert known[0] == known[2] != known[1]


def test_spans_are_chosen_where_the_files_are(tmp_path):
    (tmp_path / "day-7.txt").write_text("text")
    run = settings.smoke()
    run = run.replace(corpus=settings.dataclasses.replace(run.corpus, input=(f"{tmp_path}/day-{{SPAN}}.txt",)))
    before = node(create(run), "CorpusGen").exec_properties["input_fingerprint"]
    (tmp_path / "day-8.txt").write_text("text")
    assert node(create(run), "CorpusGen").exec_properties["input_fingerprint"] != before
    back = run.replace(corpus=settings.dataclasses.replace(run.corpus, newest_span=7))
    assert node(create(back), "CorpusGen").exec_properties["input_fingerprint"] == before
    later = node(create(run, input_fingerprint=""), "CorpusGen").exec_properties["settings"]
    assert '"newest_span": null' in later  # it is found out in the run
