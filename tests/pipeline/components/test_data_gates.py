"""Planted faults stop a run before it trains, each with what moved and by how much."""

import json
import pathlib
import re

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from tfx.types import artifact_utils, standard_artifacts

from pipeline.components import data_gates, documents, span_statistics, vocabulary
from pipeline.drift import statistics
from pipeline.settings import PipelineSettings
from preprocessing import features
from preprocessing.corpus.documents import Document, digest
from preprocessing.errors import InputError

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
ENGLISH = "It is said that the time of the {} was not as good as that of {} for all of us in this town."
GERMAN = "Man sagt, dass die Zeit von {} nicht so gut war wie die von {} für uns alle in dieser Stadt."
NAMES = ("Anna", "Bertha", "Carl", "Dora", "Emil", "Fritz", "Gustav", "Hans")
WORDS = ("the", "a", "man", "went", "to", "store", "and", "bought", "some", "milk")
TOKENS = (*features.SPECIAL_TOKENS, *WORDS)


class Gates:
    """Data of spans as the steps before leave it, and the gates, each with its output beside its earlier ones."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.settings = PipelineSettings().to_json()
        self.anomalies = self._artifact(standard_artifacts.ExampleAnomalies, "anomalies")
        self.anomalies.split_names = artifact_utils.encode_split_names([])

    def _artifact(self, kind, step):
        self.count += 1
        made = kind()
        made.uri = str(self.folder / step / str(self.count))
        pathlib.Path(made.uri).mkdir(parents=True)
        return made

    def data(self, records, reports):
        """An artifact of examples: `records` and `reports` by span (None: without spans)."""
        made = self._artifact(standard_artifacts.Examples, "data")
        for span, found in records.items():
            for name, part in (("train", found[1:]), ("eval", found[:1])):
                file = "records.gz" if span is None else f"span-{span}-records.gz"
                path = pathlib.Path(made.uri, f"Split-{name}", file)
                path.parent.mkdir(exist_ok=True)
                with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
                    for record in part:
                        writer.write(record)
        entries = {span: {"key": repr(found), "files": [], "report": reports[span]} for span, found in records.items()}
        if None not in entries:
            pathlib.Path(made.uri, "spans.json").write_text(json.dumps(entries))
        pathlib.Path(made.uri, "report.json").write_text(json.dumps(next(iter(reports.values()))))
        return made

    def corpus(self, texts, duplicates=0):
        """Passes documents, by span, through their gate."""
        counts = {span: {"documents_train": len(found) - 1, "documents_eval": 1} for span, found in texts.items()}
        reports = {span: count | {"duplicates": duplicates} for span, count in counts.items()}
        records = {
            span: [documents.encode(Document(digest(text), tuple(text.split("\n"))), "train") for text in found]
            for span, found in texts.items()
        }
        return self._pass(data_gates.CorpusGate, documents=self.data(records, reports))

    def examples(self, records, **changes):
        """The same of masked pairs; `changes`: other inputs."""
        reports = {span: {"examples": len(found)} for span, found in records.items()}
        given = self.data(records, reports)
        learned = self._artifact(vocabulary.Vocabulary, "vocabulary")
        for uri in (given.uri, learned.uri):
            pathlib.Path(uri, "vocab.txt").write_text("\n".join(TOKENS) + "\n")
        pathlib.Path(given.uri, "vocab.txt").write_text("\n".join(changes.get("vocab", TOKENS)) + "\n")
        return self._pass(data_gates.ExampleGate, examples=given, vocabulary_artifact=learned)

    def _pass(self, gate, **given):
        made = self._artifact(standard_artifacts.ExampleStatistics, gate.__name__)
        gate.test_call(
            anomalies=self.anomalies,
            statistics_artifact=made,
            settings=self.settings,
            code="",
            beam_pipeline=beam.Pipeline(runner=RUNNER),
            **given,
        )
        table = json.loads(pathlib.Path(made.uri, span_statistics.TABLE).read_text())
        return made, {line["feature"]: line for line in table}


@pytest.fixture
def gates(tmp_path):
    return Gates(tmp_path)


def texts(sentence=ENGLISH, count=60, seed=1, sentences=3):
    chosen = np.random.default_rng(seed).choice(NAMES, (count, sentences, 2))
    return ["\n".join(sentence.format(*pair) for pair in pairs) for pairs in chosen]


def example(generator, shift=0, label=None, words=WORDS):
    """A masked pair of 14 tokens, two of them predicted."""
    first, second = (generator.choice(len(words), 5) + len(features.SPECIAL_TOKENS) for _ in range(2))
    ids = np.concatenate([[2], first, [3], second, [3], [0]])
    positions = np.sort(generator.choice([1, 2, 3, 4, 5, 7, 8, 9, 10, 11], 2, replace=False))
    originals = ids[positions]
    ids[positions] = np.where(generator.random(2) < 0.8, 4, originals)
    label = int(generator.integers(2)) if label is None else label
    whole = {
        features.INPUT_IDS: ids,
        features.INPUT_MASK: [1] * 13 + [0],
        features.SEGMENT_IDS: [0] * 7 + [1] * 6 + [0],
        features.MASKED_LM_POSITIONS: [*(positions + shift), 0],
        features.MASKED_LM_IDS: [*originals, 0],
        features.NEXT_SENTENCE_LABELS: [label],
    }
    found = tf.train.Example()
    for name, values in whole.items():
        found.features.feature[name].int64_list.value.extend(map(int, values))
    found.features.feature[features.MASKED_LM_WEIGHTS].float_list.value.extend([1.0, 1.0, 0.0])
    return found.SerializeToString()


def examples(seed=1, count=200, **faults):
    generator = np.random.default_rng(seed)
    return [example(generator, **faults) for _ in range(count)]


def test_spans_of_the_same_kind_pass_and_are_kept(gates):
    made, table = gates.corpus({1: texts()})
    assert table == {}  # there is none before
    made, table = gates.corpus({2: texts(seed=2)})
    assert set(table) == {"language", "characters", "words", "duplicates", "shrinkage"}
    assert all(line["passes"] and line["against"] == "span 1" and line["of"] == "span 2" for line in table.values())
    names = artifact_utils.decode_split_names(made.split_names)
    assert names == ["span-1", "span-2"]
    found = statistics.read(statistics.place(made.uri, "span-2"))
    assert statistics.shares(found["language"]) == {"en": 1.0}
    # What was measured stays, and is not compared again.
    made, table = gates.corpus({1: texts(), 2: texts(seed=2)})
    assert table == {}


def test_another_language_stops_the_run(gates):
    gates.corpus({1: texts()})
    said = r"language: share of '(en|de)' [01] in span 1, [01] in span 2; distance 1, at most 0\.2"
    with pytest.raises(InputError, match=said):
        gates.corpus({2: texts(GERMAN)})


@pytest.mark.long
def test_what_did_not_pass_is_nobodys_measure(gates):
    gates.corpus({1: texts()})
    with pytest.raises(InputError, match=r"language: .* in span 1"):
        gates.corpus({2: texts(GERMAN)})
    with pytest.raises(InputError, match=r"language: .* [01] in span 1, [01] in span 3;"):
        gates.corpus({3: texts(GERMAN)})
    with pytest.raises(InputError, match="in span 2; distance 1"):
        gates.corpus({2: texts(GERMAN), 3: texts(GERMAN, seed=3)})  # nor does it pass in a wider window
    assert gates.corpus({4: texts(seed=4)})[1]["language"]["against"] == "span 1"


def test_another_script_longer_documents_and_duplicates_are_told_together(gates):
    gates.corpus({1: texts()})
    with pytest.raises(InputError) as refused:
        gates.corpus({2: [text + " λόγος" * 200 for text in texts(sentences=30)]}, duplicates=60)
    for said in (
        r"characters: share of 'greek' 0 in span 1, 0\.\d+ in span 2; distance 0\.",
        r"words: median 72 in span 1, 920 in span 2; distance 1, at most 0\.3",
        r"duplicates: share of documents 0 in span 1, 0\.5 in span 2; distance 0\.5, at most 0\.2",
    ):
        assert re.search(said, str(refused.value)), str(refused.value)
    assert "shrinkage" not in str(refused.value)


def test_a_file_that_was_cut_off_stops_the_run(gates):
    gates.corpus({1: texts(count=120)})
    with pytest.raises(
        InputError, match=r"shrinkage: words 8640 in span 1, 1080 in span 2; distance 0\.875, at most 0\.8"
    ):
        gates.corpus({2: texts(seed=2, count=15)})


def test_examples_as_they_are_made_pass(gates):
    _, table = gates.examples({None: examples()})
    assert set(table) == {"masked", "unknown", "labels"}
    _, table = gates.examples({1: examples()})
    assert "tokens" not in table
    _, table = gates.examples({2: examples(seed=2)})
    assert table["tokens"]["distance"] < 0.05
    assert all(line["passes"] for line in table.values())
    gates.examples({None: examples(count=5, label=1)})  # of so few, one label says nothing


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"shift": 1}, r"masked: share of \[MASK\] at predictions 0\.8 in the rule, 0\.\d+ in the data; distance 0\."),
        ({"label": 1}, r"labels: share of label 1 0\.5 in the rule, 1 in the data; distance 1, at most 0\.95"),
        ({"label": 0}, r"labels: share of label 1 0\.5 in the rule, 0 in the data; distance 1"),
    ],
)  # fmt: skip
def test_broken_examples_stop_a_run_without_spans(gates, faults, message):
    with pytest.raises(InputError, match=message):
        gates.examples({None: examples(**faults)})


def test_a_wrong_vocabulary_stops_the_run(gates):
    with pytest.raises(InputError, match=r"vocab\.txt: the examples must be of the run's vocabulary, .* another"):
        gates.examples({None: examples()}, vocab=(*TOKENS[:-1], "beer"))
    gates.examples({1: examples()})
    swapped = [  # ids of another vocabulary, of which nothing is said
        tf.train.Example.FromString(record) for record in examples(seed=2, words=WORDS[:3])
    ]
    with pytest.raises(InputError, match=r"tokens: share of '\w+' 0\.\d+ in span 1, 0\.\d+ in span 2; distance 0\.\d"):
        gates.examples({2: [found.SerializeToString() for found in swapped]})


def test_words_that_the_vocabulary_does_not_have_stop_the_run(gates):
    records = []
    for record in examples():
        found = tf.train.Example.FromString(record)
        ids = found.features.feature[features.INPUT_IDS].int64_list.value
        ids[:] = [1 if number in (5, 6, 7) else number for number in ids]
        records.append(found.SerializeToString())
    with pytest.raises(InputError, match=r"unknown: share of \[UNK\] 0 in the rule, 0\.2\d* in the data"):
        gates.examples({None: records})
