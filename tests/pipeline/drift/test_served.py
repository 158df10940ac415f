"""`bert skew`: a log of requests beside the statistics of what a version was trained on."""

import json
import pathlib

import numpy as np
import pytest
from click.testing import CliRunner
from tensorflow_serving.apis import prediction_log_pb2

from pipeline.commands import skew
from pipeline.drift import comparing, measures, served, statistics
from pipeline.history import lineage
from preprocessing import character_kinds, tfrecord
from preprocessing.errors import InputError
from preprocessing.features import SPECIAL_TOKENS
from tests.pipeline.history import small_home

TEXT = "The man went to the store and bought some milk for the cat"
VOCABULARY = (*SPECIAL_TOKENS, *dict.fromkeys(TEXT.lower().split()))


def write_log(path, texts):
    records = []
    for text in texts:
        message = prediction_log_pb2.PredictionLog()
        served.tensors.to_proto(np.array([text.encode()], object), message.predict_log.request.inputs["text"])
        records.append(message.SerializeToString())
    path.write_bytes(tfrecord.frame(records))
    return str(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Of which only the statistics and the vocabulary are there."""
    folder = tmp_path_factory.mktemp("home")
    words = TEXT.lower().split()
    measured = [measures.of_text(TEXT) | {measures.TOKENS: words} for _ in range(50)]
    path = pathlib.Path(statistics.place(str(folder / "statistics"), "span-2"))
    path.parent.mkdir(parents=True)
    path.write_bytes(statistics.of(measured).SerializeToString())
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    return folder


@pytest.fixture
def compare(home, monkeypatch):
    class Store:
        def __init__(self, home):
            pass

        def artifact(self, uri):
            return uri

        def users(self, artifact, node):
            return [type("Execution", (), {"state": "ran"})]

        def outputs(self, execution):
            return {"statistics_artifact": [type("Artifact", (), {"uri": str(home / "statistics")})]}

    monkeypatch.setattr(served, "Store", Store)
    part = {"artifact": str(home)}
    monkeypatch.setattr(lineage, "trace", lambda *given: {"data": part, "examples": part, "settings": {"examples": {}}})

    def run(*files, bounds=served.BOUNDS):
        found = served.compare(None, "", "7", files, bounds)
        return found, {line.feature: line for line in found.moved}

    return run


def test_the_same_text_is_no_skew(compare, tmp_path):
    found, lines = compare(write_log(tmp_path / "log", [TEXT] * 30))
    assert (found.texts, found.repeated, found.only_outlines) == (30, 29, False)
    assert set(lines) == {"language", "characters", "words", "tokens"}
    assert all(line.passes and line.distance == pytest.approx(0, abs=1e-6) for line in lines.values())


def test_another_language_is_told_by_language_and_tokens(compare, tmp_path):
    german = "Der Mann ging zu dem Laden und kaufte etwas Milch für die Katze"
    found, lines = compare(write_log(tmp_path / "a", [german] * 20), write_log(tmp_path / "b", [TEXT] * 20))
    assert found.texts == 40
    assert lines["language"].distance == pytest.approx(0.5)
    assert not lines["language"].passes
    assert not lines["tokens"].passes
    assert (lines["tokens"].against, lines["tokens"].of) == ("training", "the log")


def test_a_log_of_outlines_says_what_it_can(compare, tmp_path):
    found, lines = compare(write_log(tmp_path / "log", [character_kinds.outline(TEXT)] * 30))
    assert found.only_outlines
    assert set(lines) == {"characters", "words"}
    assert all(line.passes for line in lines.values())
    _, lines = compare(write_log(tmp_path / "log", [character_kinds.outline("12 34 56")] * 30))
    assert not lines["characters"].passes


def test_what_is_no_log_is_named(compare, tmp_path):
    whole = write_log(tmp_path / "log", [TEXT] * 30)
    cut = tmp_path / "cut"
    cut.write_bytes(pathlib.Path(whole).read_bytes()[:-5])
    with pytest.raises(InputError, match=r"cut: must be a TFRecord of PredictionLog messages \(a truncated"):
        compare(str(cut))
    with pytest.raises(InputError, match="skew is told of 20 texts and more"):
        compare(write_log(tmp_path / "few", [TEXT] * 3))


def test_bounds():
    assert served.bounds_of(["words=0.5"]).words == 0.5
    assert served.bounds_of([]) == served.BOUNDS
    with pytest.raises(InputError, match="name=number"):
        served.bounds_of(["words"])
    with pytest.raises(InputError, match="bounds has no setting 'word'"):
        served.bounds_of(["word=1"])


def test_the_command_tells_what_moved_and_ends_with_an_error(monkeypatch, tmp_path):
    small = small_home.SmallHome(tmp_path / "home")
    version = small.run()
    (tmp_path / "log-1").touch()
    passes = comparing.Moved("words", "median", 12, 3, 0.25, 1.0, "training", "the log")
    moved = comparing.Moved("language", "share of 'de'", 0, 1, 1.0, 0.2, "training", "the log")
    asked = []
    monkeypatch.setattr(
        served, "compare", lambda *given: asked.append(given) or served.Skew([passes, moved], 30, 4, True)
    )
    flags = ["--home", str(small.folder), "--log", f"{tmp_path}/log-*", "--bound", "words=0.9"]
    told = CliRunner().invoke(skew.command, flags)
    assert asked[0][2:] == (version, [f"{tmp_path}/log-1"], served.bounds_of(["words=0.9"]))
    for said in (
        f"30 texts asked of version {version}, 4 of them repeated",
        "The log has outlines instead of texts",
        "words: median 12 in training, 3 in the log; distance 0.25, at most 1",
        "! language: share of 'de' 0 in training, 1 in the log",
    ):
        assert said in told.output
    assert isinstance(told.exception, InputError)
    assert "words" not in str(told.exception)
    listed = json.loads(CliRunner().invoke(skew.command, [*flags, "--json"]).stdout)
    assert [line["passes"] for line in listed["moved"]] == [True, False]
    with pytest.raises(InputError, match="--log must name files of a request log"):
        CliRunner().invoke(skew.command, [*flags[:2], "--log", "none-*"], catch_exceptions=False)
