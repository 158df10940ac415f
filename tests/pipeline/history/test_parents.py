"""What a run over spans goes on from: the model pushed last of earlier spans."""

import dataclasses
import pathlib

import pytest

from pipeline import settings
from pipeline.components.pushed import push
from pipeline.graphs import continuing
from pipeline.history import labels, parents
from preprocessing.errors import InputError


@pytest.fixture
def pushed_model(tmp_path):
    """Pushes a model that was trained on spans; gives its version."""

    def make(*spans, name="model", card=True):
        folder = tmp_path / "made" / f"{name}-{spans}"
        (folder / "assets.extra").mkdir(parents=True)
        (folder / "checkpoint").mkdir()
        for file in ("saved_model.pb", "fingerprint.pb"):
            (folder / file).write_text(f"{name} {spans}")
        if card:
            parents.write(str(folder), spans=list(spans), checkpoint=str(folder / "checkpoint"), init=None)
        return int(pathlib.Path(push(str(folder), str(tmp_path / "serving" / "bert"))).name)

    return make


@pytest.fixture
def run(tmp_path):
    (tmp_path / "data").mkdir()
    for span in (1, 2, 3):
        (tmp_path / "data" / f"{span}.txt").write_text("x")
    smoke = settings.smoke()
    corpus = dataclasses.replace(smoke.corpus, input=(f"{tmp_path}/data/{{SPAN}}.txt",), window=2)
    return smoke.replace(corpus=corpus, spans=settings.SpanSettings(warm_start=True))


def test_the_model_of_the_newest_earlier_span_is_the_parent(tmp_path, pushed_model):
    serving = str(tmp_path / "serving" / "bert")
    assert parents.find(serving, 3) is None
    pushed_model(card=False, name="without")
    pushed_model(name="no spans")
    one, two, three = pushed_model(1), pushed_model(1, 2), pushed_model(2, 3)
    found = [parents.find(serving, span) for span in (1, 2, 3, 4)]
    assert found[0] is None
    assert [parent.version for parent in found[1:]] == [one, two, three]
    file = labels.file_of(serving)
    for version in (one, two):
        labels.promote(file, serving, str(version), "stable")
        labels.promote(file, serving, str(version), "stable")
    labels.roll_back(file, serving, "stable")
    assert parents.find(serving, 3).version == one


def test_a_pushed_model_stands_for_the_checkpoint_that_it_was_made_with(tmp_path, pushed_model):
    serving = tmp_path / "serving" / "bert"
    assert parents.checkpoint_of(str(tmp_path)) == str(tmp_path)
    one, two = pushed_model(1), pushed_model(2)
    first, second = (str(tmp_path / "made" / f"model-({span},)" / "checkpoint") for span in (1, 2))
    assert parents.checkpoint_of(str(serving)) == parents.checkpoint_of(str(serving / str(two))) == second
    assert parents.checkpoint_of(str(serving / str(one))) == first
    pathlib.Path(second).rmdir()
    for gone in (serving, serving / str(two)):
        with pytest.raises(InputError, match=r"the checkpoint that this was made with must be there\. Received: none"):
            parents.checkpoint_of(str(gone))


def test_a_run_takes_over_vocabulary_and_weights_and_does_so_again_when_it_is_repeated(tmp_path, pushed_model, run):
    serving = str(tmp_path / "serving" / "bert")
    named = dataclasses.replace(run.corpus, newest_span=3)
    assert continuing.with_parent(run, serving) == run.replace(corpus=named)
    run = run.replace(corpus=named)
    two = pushed_model(1, 2)
    taken = continuing.with_parent(run, serving)
    assert taken.vocabulary.file == f"{serving}/{two}/assets/vocab.txt"
    assert pathlib.Path(taken.init).name == "checkpoint"
    pushed_model(2, 3)  # what the run itself pushes
    assert continuing.with_parent(run, serving) == taken
    own = run.replace(init="mine", vocabulary=dataclasses.replace(run.vocabulary, file="mine.txt"))
    assert continuing.with_parent(own, serving) == own
    cold = run.replace(spans=settings.SpanSettings(keep_vocabulary=False))
    assert continuing.with_parent(cold, serving) == cold
    plain = run.replace(corpus=dataclasses.replace(run.corpus, input=(f"{tmp_path}/data",)))
    assert continuing.with_parent(plain, serving) == plain
    pathlib.Path(taken.init).rmdir()
    with pytest.raises(InputError, match=rf"the checkpoint of version {two} must be there, or set it to false"):
        continuing.with_parent(run, serving)


def test_a_warm_start_is_of_spans():
    with pytest.raises(InputError, match=r"spans\.warm_start needs \{SPAN\} in the corpus"):
        settings.smoke().replace(spans=settings.SpanSettings(warm_start=True)).check()
