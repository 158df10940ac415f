"""Data in spans through the steps: a new span is all that is computed, and the vocabulary is held to it."""

import json
import pathlib

import apache_beam as beam
import pytest
from tfx.types import standard_artifacts

from pipeline.components import documents, examples, kept, vocabulary
from pipeline.settings import PipelineSettings
from preprocessing import vocab_file
from preprocessing.errors import InputError
from preprocessing.features import SPECIAL_TOKENS
from preprocessing.settings import CorpusSettings, ExampleSettings, VocabularySettings

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


class Steps:
    """The data steps, each with output folders beside its earlier ones, as TFX gives them."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.settings = PipelineSettings(
            corpus=CorpusSettings(input=(f"{folder}/day-{{SPAN}}.txt",), window=3),
            vocabulary=VocabularySettings(size=60),
            examples=ExampleSettings(max_seq_length=16, max_predictions=2, dupe_factor=1),
            eval_share=0.4,
        )

    def write(self, day, words="one two three four five", documents=12):
        texts = [f"{words}{' one' * (20 * day + number)}. {words} two.\n" for number in range(documents)]
        (self.folder / f"day-{day}.txt").write_text("\n".join(texts))

    def _artifact(self, kind, step):
        made = kind()
        made.uri = str(self.folder / "artifacts" / step / str(self.count))
        pathlib.Path(made.uri).mkdir(parents=True)
        return made

    def read(self, **settings):
        self.count += 1
        made = self._artifact(standard_artifacts.Examples, "documents")
        corpus = documents.dataclasses.replace(self.settings.corpus, **settings)
        documents.CorpusGen.test_call(
            documents=made,
            settings=self.settings.replace(corpus=corpus).to_json(),
            input_fingerprint="code-files",
            beam_pipeline=beam.Pipeline(runner=RUNNER),
        )
        return made

    def learn(self, given, **settings):
        made = self._artifact(vocabulary.Vocabulary, "vocabulary")
        changed = documents.dataclasses.replace(self.settings.vocabulary, **settings)
        vocabulary.VocabularyGen.test_call(
            documents=given,
            vocabulary_artifact=made,
            settings=self.settings.replace(vocabulary=changed).to_json(),
            code="",
            beam_pipeline=beam.Pipeline(runner=RUNNER),
        )
        return made

    def vocabulary(self, *more):
        """One that nobody had to learn."""
        made = self._artifact(vocabulary.Vocabulary, f"given{len(more)}")
        vocab_file.save([*SPECIAL_TOKENS, "one", "two", "three", "four", "five", ".", *more], f"{made.uri}/vocab.txt")
        return made

    def make(self, given, vocab):
        made = self._artifact(standard_artifacts.Examples, "examples")
        examples.MaskedExamplesGen.test_call(
            documents=given,
            vocabulary_artifact=vocab,
            examples=made,
            example_schema=self._artifact(standard_artifacts.Schema, "schema"),
            settings=self.settings.to_json(),
            code="",
            beam_pipeline=beam.Pipeline(runner=RUNNER),
        )
        return made


@pytest.fixture
def steps(tmp_path):
    return Steps(tmp_path)


def report(artifact):
    return json.loads(pathlib.Path(artifact.uri, "report.json").read_text())


def taken_over(artifact):
    return {int(span): counts["taken_over"] for span, counts in report(artifact)["spans"].items()}


def contents(artifact, span):
    found = pathlib.Path(artifact.uri).glob(f"Split-*/span-{span}-*")
    return {str(path.relative_to(artifact.uri)): path.read_bytes() for path in found}


def test_a_new_span_is_all_that_is_computed(steps):
    for day in (1, 2):
        steps.write(day)
    first = steps.read()
    vocab = steps.vocabulary()
    made = steps.make(first, vocab)
    assert taken_over(first) == taken_over(made) == {1: False, 2: False}

    steps.write(3)
    steps.write(2, documents=13)  # it came late
    second = steps.read()
    again = steps.make(second, vocab)
    assert taken_over(second) == taken_over(again) == {1: True, 2: False, 3: False}
    for before, after in ((first, second), (made, again)):
        assert contents(before, 1) == contents(after, 1) != {}
        assert contents(before, 2).keys() <= contents(after, 2).keys()
        assert contents(before, 2) != contents(after, 2)
    total = report(second)
    assert total["documents_train"] + total["documents_eval"] == 12 + 13 + 12
    assert isinstance(total["documents_train"], int)
    files = [json.loads(line)["file"] for line in pathlib.Path(second.uri, "inputs.jsonl").read_text().splitlines()]
    assert files == [f"{steps.folder}/day-{day}.txt" for day in (1, 2, 3)]
    assert report(again)["examples"] == sum(counts["examples"] for counts in report(again)["spans"].values())

    # The window moves on; what is taken over is what would have been made.
    alone = steps.read(window=2)
    assert taken_over(alone) == {2: True, 3: True}
    assert not contents(alone, 1)
    other = Steps(steps.folder / "other")
    other.settings, fresh = steps.settings, pathlib.Path(steps.folder, "other")
    fresh.mkdir()
    anew = other.read(window=1)
    assert taken_over(anew) == {3: False}
    assert {name: len(data) for name, data in contents(anew, 3).items()}.keys() == contents(alone, 3).keys()
    assert contents(other.make(anew, vocab), 3) == contents(steps.make(alone, vocab), 3) == contents(again, 3)


def test_another_vocabulary_or_other_settings_make_all_anew(steps):
    steps.write(1)
    given = steps.read()
    steps.make(given, steps.vocabulary())
    assert taken_over(steps.read(language="de")) == {1: False}
    assert taken_over(steps.make(given, steps.vocabulary("six"))) == {1: False}


def test_a_try_that_was_killed_does_no_harm(steps):
    steps.write(1)
    first = steps.read()
    before = contents(first, 1)
    entry = kept.read(first.uri)[1]
    target = steps.folder / "artifacts" / "documents" / "9"
    for _ in range(2):  # the second finds links of the first
        assert kept.take_over(str(target), 1, entry["key"])["taken_over"]
    assert contents(first, 1) == before
    next(pathlib.Path(first.uri).glob("Split-train/*")).unlink()
    assert kept.take_over(str(target.with_name("10")), 1, entry["key"]) is None  # its files are gone


def test_a_span_with_too_few_documents_is_named(steps):
    steps.write(1, documents=1)
    with pytest.raises(InputError, match="span 1: a random next sentence comes from another document"):
        steps.read()


def test_the_share_of_unknown_words_is_said_by_span_and_bounded(steps):
    steps.write(1)
    vocab = steps.learn(steps.read())
    assert report(vocab)["unknown_share_by_span"] == {"1": report(vocab)["train_unknown_share"]}
    steps.write(2, words="один два три")
    given = steps.read()
    taken = steps.learn(given, file=f"{vocab.uri}/vocab.txt", max_unknown_increase=1.0)
    shares = report(taken)["unknown_share_by_span"]
    assert list(shares) == ["1", "2"]
    assert shares["2"] > 0.05  # of the newest span alone
    steps.count += 1
    with pytest.raises(
        InputError, match=r"span 2: the share of \[UNK\] may grow by .*\(1\.00%\) since span 1\. Received: 0"
    ):
        steps.learn(given, file=f"{vocab.uri}/vocab.txt")
