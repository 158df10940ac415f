"""What is pushed, what is not again, and what a candidate is compared with."""

import dataclasses
import json
import pathlib
import shutil
import time
import types

import pytest
from tfx.proto import pusher_pb2
from tfx.types import standard_artifacts
from tfx.utils import proto_utils

from pipeline.components import baseline, evaluator, pusher
from pipeline.components import pushed as pushing
from pipeline.finetuning.description import Description
from pipeline.history import parents, pushed
from preprocessing.errors import InputError


@pytest.fixture
def serving(tmp_path):
    return str(tmp_path / "serving")


@pytest.fixture
def model(tmp_path):
    def make(name, vocabulary="a\nb\n", length=64):
        folder = tmp_path / "models" / name / "Format-Serving"
        (folder / "assets").mkdir(parents=True)
        (folder / "assets.extra").mkdir()
        (folder / "saved_model.pb").write_text(name)
        (folder / "fingerprint.pb").write_text(name)
        (folder / "assets" / "vocab.txt").write_text(vocabulary)
        (folder / "assets.extra" / "export.json").write_text(json.dumps({"settings": {"max_seq_length": length}}))
        return str(folder)

    return make


def number(folder):
    return int(folder.rpartition("/")[2])


def test_a_model_is_pushed_once_and_again_when_another_is_newer_or_all_is_lost(serving, model):
    a, b = model("a"), model("b")
    first = pushing.push(a, serving)
    assert pushing.push(a, serving) == first
    assert number(first) == pytest.approx(time.time(), abs=60)
    second = pushing.push(b, serving)
    assert number(second) > number(first)
    third = pushing.push(a, serving)
    assert number(third) > number(second)
    assert pushed.identity(third) == pushed.identity(a)
    shutil.rmtree(serving)
    again = pushing.push(a, serving)
    assert again
    assert list(pushed.versions(serving).values()) == [again]


def test_what_was_rolled_back_is_not_pushed_again(serving, model):
    old, bad, new = model("old"), model("bad"), model("new")
    pushing.push(old, serving)
    removed = pushing.push(bad, serving)
    shutil.move(removed, f"{serving}/../aside")
    assert pushing.push(bad, serving) is None
    assert pushing.push(old, serving)  # it is the newest, and stays
    assert pushing.push(new, serving)
    assert pushing.push(bad, serving) is None  # remembered beyond newer ones
    shutil.move(f"{serving}/../aside", removed)
    assert pushing.push(bad, serving)  # put back: no longer


def test_what_was_tidied_away_after_it_was_replaced_may_come_again(serving, model):
    old, new = model("old"), model("new")
    removed = pushing.push(old, serving)
    pushing.push(new, serving)
    shutil.rmtree(removed)
    assert number(pushing.push(old, serving)) > number(removed)


def test_a_day_that_is_made_late_does_not_take_the_place_of_a_later_one(serving, model):
    days = {day: model(f"day {day}") for day in (1, 2, 3)}
    for day, folder in days.items():
        parents.write(folder, spans=[day - 1, day])
    assert pushing.push(days[2], serving)
    assert pushing.push(days[1], serving) is None
    assert not pushing.is_rolled_back(days[1], serving)
    newest = pushing.push(days[3], serving)
    assert pushing.push(days[2], serving) is None  # though it was served once
    assert pushing.find(days[2], serving) == min(pushed.versions(serving).items())[1]
    assert pushing.find(days[1], serving) is None
    plain = model("without spans")
    assert pushing.push(plain, serving)
    assert pushing.push(days[1], serving)  # of which nothing is known to be later
    for folder in (pushing.find(days[1], serving), pushing.find(plain, serving), newest):
        shutil.rmtree(folder)
    with pushed.changing(serving) as record:  # these are rolled back: what is served is of day 2
        assert pushed.rolled_back(record) >= {pushed.identity(days[3])}
    assert pushing.is_rolled_back(days[3], serving)
    assert pushing.find(days[3], serving) is None
    assert pushing.push(days[1], serving) is None


def test_a_version_number_is_never_given_twice_nor_below_another(serving, model, monkeypatch):
    first = pushing.push(model("a"), serving)
    second = pushing.push(model("b"), serving)
    shutil.rmtree(second)
    monkeypatch.setattr(time, "time", lambda: 1000.0)  # the clock was set back
    assert number(pushing.push(model("c"), serving)) > number(second) > number(first)


def test_a_torn_copy_is_no_version_and_is_written_over(serving, model, monkeypatch):
    def torn(source, destination):
        shutil.copytree(source, destination, ignore=shutil.ignore_patterns("saved_model.pb"))
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(pushing.io_utils, "copy_dir", torn)
        with pytest.raises(OSError, match="killed"):
            pushing.push(model("a"), serving)
    assert pushed.versions(serving) == {}
    assert pushing.push(model("b"), serving)


def test_a_model_without_its_fingerprint_is_one_line(serving, model, tmp_path):
    folder = model("a")
    (tmp_path / "models/a/Format-Serving/fingerprint.pb").unlink()
    with pytest.raises(
        InputError, match=r"fingerprint\.pb: a model exported here has a fingerprint\. Received: no file"
    ):
        pushing.push(folder, serving)
    with pytest.raises(InputError, match=r"fingerprint\.pb"):
        baseline.find(serving, folder)


def test_fine_tuned_models_are_compared_where_labels_and_eval_rows_are_the_same(serving, model):
    same = Description("classification", "classify", ["dry", "wet"], "rows", 0.5)
    for name in ("pretrained", "labels", "rows", "floor"):
        model(name, "a\n" if name == "floor" else "a\nb\n")
    described = {
        "labels": dataclasses.replace(same, labels=["dry", "odd"]),
        "rows": dataclasses.replace(same, eval_rows="others"),
        "floor": dataclasses.replace(same, floor=0.7),
    }
    candidate = model("candidate")
    same.write(candidate)
    found = {}
    for name in ("floor", "pretrained", "labels", "rows"):
        folder = str(pathlib.Path(candidate).parents[1] / name / "Format-Serving")
        if name in described:
            described[name].write(folder)
        found[name] = pushing.push(folder, serving)
    assert baseline.find(serving, candidate) == found["floor"]
    shutil.rmtree(found["floor"])
    assert baseline.find(serving, candidate) is None


def test_a_served_folder_of_another_program_is_left_alone(serving, model, tmp_path):
    foreign = tmp_path / "serving" / "7"
    foreign.mkdir(parents=True)
    (foreign / "saved_model.pb").write_text("other")
    assert number(pushing.push(model("a"), serving)) > 7
    assert baseline.find(serving, model("b")) == pushed.versions(serving)[max(pushed.versions(serving))]
    assert foreign.exists()


def test_a_record_that_cannot_be_read(serving, model, tmp_path):
    pushing.push(model("a"), serving)
    (tmp_path / "serving" / pushed.RECORD).write_text("{")
    with pytest.raises(InputError, match=r"\.pushed\.json: not JSON"):
        pushing.push(model("b"), serving)


def test_the_baseline_is_the_model_pushed_last_that_can_be_compared(serving, model):
    old, other_words, shorter, newest = (
        model("old"),
        model("other", vocabulary="a\nc\n"),
        model("shorter", length=32),
        model("newest"),
    )
    assert baseline.find(serving, newest) is None
    places = [pushing.push(folder, serving) for folder in (old, other_words, shorter)]
    assert baseline.find(serving, newest) == places[0]
    last = pushing.push(newest, serving)
    assert baseline.find(serving, newest) == places[0]  # never itself
    # Settings that are taken back: the candidate comes from the cache and is older than what it is compared with.
    assert baseline.find(serving, old) == last
    taken_back = pushing.push(old, serving)
    assert baseline.find(serving, newest) == taken_back


def artifact(folder):
    result = standard_artifacts.Model()
    result.uri = folder.removesuffix("/Format-Serving")
    return result


def test_which_model_is_the_baseline_is_part_of_the_cache_key(serving, model):
    def found(candidate):
        info = types.SimpleNamespace(
            input_dict={"candidate": [artifact(candidate)]}, exec_properties={"serving": serving}
        )
        return baseline.Driver(None).run(info).exec_properties["found"].string_value

    a, b = model("a"), model("b")
    assert found(a) == "none"
    pushing.push(a, serving)
    assert found(a) == "none"  # as before: the run that repeats another is answered from the cache
    assert found(b) == pushed.identity(a)
    pushing.push(b, serving)
    assert found(a) == pushed.identity(b)


def test_it_always_gives_a_model_which_is_a_copy_or_none(serving, model, tmp_path, monkeypatch):
    given = {}

    def do(self, inputs, outputs, properties):
        given.update(inputs)

    monkeypatch.setattr(evaluator.evaluator_executor.Executor, "Do", do)
    a, b = model("a"), model("b")
    for number_, expected in enumerate(("none", "a")):
        out = standard_artifacts.Model()
        out.uri = str(tmp_path / f"out{number_}")
        baseline.Baseline.test_call(candidate=artifact(b), baseline=out, serving=serving, code="")
        evaluator.Executor().Do({"baseline_model": [out], "model": [artifact(b)]}, {}, {})
        if expected == "none":
            assert given["baseline_model"] == []
            assert out.get_string_custom_property("baseline") == "none"
            place = pushing.push(a, serving)
        else:
            assert given["baseline_model"] == [out]
            assert out.get_string_custom_property("baseline") == place
            shutil.rmtree(place)  # it stays when the pushed one goes
            assert pushed.identity(f"{out.uri}/Format-Serving") == pushed.identity(a)


def test_the_pusher_pushes_what_is_blessed_and_was_not_rolled_back(serving, model, tmp_path):
    def push(folder, blessed=1):
        blessing, result = standard_artifacts.ModelBlessing(), standard_artifacts.PushedModel()
        blessing.set_int_custom_property("blessed", blessed)
        result.uri = str(tmp_path / "result" / str(time.monotonic_ns()))
        destination = pusher_pb2.PushDestination.Filesystem(base_directory=serving)
        properties = {"push_destination": proto_utils.proto_to_json(pusher_pb2.PushDestination(filesystem=destination))}
        inputs = {"model": [artifact(folder)], "model_blessing": [blessing]}
        pusher.Executor().Do(inputs, {"pushed_model": [result]}, properties)
        return result.get_string_custom_property("pushed_destination")

    old, bad = model("old"), model("bad")
    assert push(old, blessed=0) == ""
    assert not pushed.versions(serving)
    assert push(old) == pushed.versions(serving)[max(pushed.versions(serving))]
    shutil.rmtree(push(bad))
    assert push(bad) == ""
    assert len(pushed.versions(serving)) == 1
