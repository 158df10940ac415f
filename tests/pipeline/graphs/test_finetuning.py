import dataclasses
import json

import pytest
from tfx.orchestration.pipeline import Pipeline

from model import checkpoints
from model.encoder import BertEncoder
from model.settings import EncoderSettings
from pipeline import settings
from pipeline.components import pushed
from pipeline.finetuning.settings import TuningGate
from pipeline.graphs import finetuning
from pipeline.history import parents
from pipeline.runs import steps
from preprocessing.errors import InputError
from tests.pipeline.graphs import test_pretraining
from tests.serving import small_model

RUN = settings.load("classification-smoke")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    encoder = BertEncoder(EncoderSettings(len(small_model.VOCAB), 16, 1, 2, 32, max_positions=48), ())
    checkpoints.save(encoder, folder / "checkpoint", small_model.write_vocab(folder), True)
    return str(folder / "checkpoint")


def create(run, serving="/serving/packages"):
    return finetuning.create_pipeline(run, root="/artifacts", metadata=None, serving=serving, work="/work")


def node(pipeline, name):
    (found,) = (node for node in pipeline.components if node.id == name)
    return found


def test_every_step_has_a_title_and_the_graph_knows_no_orchestrator(checkpoint):
    pipeline = create(RUN.replace(init=checkpoint))
    assert isinstance(pipeline, Pipeline)
    names = {node.id for node in pipeline.components}
    pretraining = {node.id for node in test_pretraining.create(settings.smoke()).components}
    assert names | pretraining == set(steps.TITLES)
    assert pipeline.metadata_connection_config is None


def test_without_a_pretrained_model_it_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"serving/bert: no pretrained model was pushed there, .*`make run` first"):
        create(RUN, str(tmp_path / "serving" / "packages"))


def push(folder, checkpoint, serving):
    """A version without a graph, made in a folder, that was made with a checkpoint."""
    exported = folder / "Format-Serving"
    (exported / "assets.extra").mkdir(parents=True)
    for file in ("saved_model.pb", "fingerprint.pb"):
        (exported / file).write_text(str(checkpoint))
    parents.write(str(exported), spans=[], checkpoint=str(checkpoint), init=None)
    pushed.push(str(exported), str(serving))


def test_it_begins_with_what_was_pushed_last(tmp_path):
    serving = tmp_path / "serving" / "bert"
    for name in ("old", "new"):
        weights = tmp_path / name / "weights"
        weights.mkdir(parents=True)
        push(tmp_path / name, weights, serving)
    assert finetuning.checkpoint(RUN, str(serving)) == str(weights)
    weights.rmdir()
    with pytest.raises(InputError, match="or its checkpoint is gone"):
        finetuning.checkpoint(RUN, str(serving))
    assert finetuning.checkpoint(RUN.replace(init="/other"), str(serving)) == "/other"


def test_what_is_found_out_in_the_run_is_not_looked_at_before():
    run = RUN.replace(train="/nowhere/train.tsv", eval="/nowhere/eval.tsv", init="/nowhere/checkpoint")
    pipeline = finetuning.create_pipeline(
        run, root="", metadata=None, serving="/serving/packages", work="/work", input_fingerprint="later"
    )
    assert node(pipeline, "TaskExamplesGen").exec_properties["input_fingerprint"] == "later"
    config = json.loads(node(pipeline, "Trainer").exec_properties["custom_config"])
    assert json.loads(config["settings"])["init"] is None
    with pytest.raises(InputError, match="options has no setting 'epoch'"):
        finetuning.create_pipeline(
            run.replace(options={"epoch": 1}), root="", metadata=None, serving="/s/a", work="/w", input_fingerprint=""
        )


def test_a_setting_runs_again_only_what_depends_on_it(checkpoint):
    run = RUN.replace(init=checkpoint)

    def given(run):
        return {node.id: str(node.exec_properties) for node in create(run).components}

    def changed(**changes):
        before, after = given(run), given(run.replace(**changes))
        return {name for name in before if before[name] != after[name]}

    assert changed() == set()
    assert changed(embedded_rows=50) == {"TaskExamplesGen"}
    assert changed(options={"max_seq_length": 16}) == {"Trainer"}
    assert changed(gate=TuningGate(RUN.gate.min_gain, 0.5, RUN.gate.max_drift)) == {"Evaluator"}
    assert changed(gate=TuningGate(RUN.gate.min_gain, RUN.gate.max_decrease, 0.5)) == {"DriftGate"}


@pytest.mark.parametrize("option", ["labels", "class_weights", "teacher", "tokens_of"])
def test_another_content_of_a_file_that_an_option_names_trains_again(checkpoint, tmp_path, option):
    file = tmp_path / "file.tsv"
    named = tmp_path if option == "teacher" else file
    run, found = RUN.replace(init=checkpoint, options={option: str(named)}), []
    if option == "tokens_of":
        export = dataclasses.replace(RUN.export, tokens_of=(str(file),))
        run = RUN.replace(init=checkpoint, export=export)
    for content in ("a\t1\n", "a\t1\nb\t1\n"):
        file.write_text(content)
        found.append(node(create(run), "Trainer").exec_properties["custom_config"])
    assert found[0] != found[1]
