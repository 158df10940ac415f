"""Near-duplicate documents: how alike two are, who meets whom, who stays; and how many of them are found."""

import json
import random

import apache_beam as beam
import numpy as np
import pytest

from preprocessing.beam import runner
from preprocessing.corpus import near_duplicates, reading
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings
from tests import data

COLLECTED = []


def collect(document):
    COLLECTED.append(document)


def read(paths, folder=None, options=(), **settings):
    """(texts that are left, counters, what is told of those left out)"""
    COLLECTED.clear()
    listed = folder and str(folder / "near.jsonl")
    pipeline = beam.Pipeline(options=runner.make_options(options))
    corpus = CorpusSettings(tuple(map(str, paths)), **({"format": "paragraphs", "near_duplicates": 0.8} | settings))
    _ = pipeline | reading.ReadDocuments(corpus, listed=listed) | beam.Map(collect)
    counters = runner.counters(runner.run(pipeline))
    told = []
    if folder and (folder / "near.jsonl").exists():
        told = [json.loads(line) for line in (folder / "near.jsonl").read_text().splitlines()]
    return sorted(" ".join(document.sentences) for document in COLLECTED), counters, told


def prose(seed, words=200):
    chance = random.Random(seed)
    return [f"w{chance.randrange(5000)}" for _ in range(words)]


def changed(words, share, seed):
    """The text with a share of its words replaced."""
    chance, found = random.Random(seed), list(words)
    for at in chance.sample(range(len(found)), round(share * len(found))):
        found[at] = f"x{chance.randrange(10**6)}"
    return found


def jaccard(one, other):
    one, other = (
        {tuple(found[at : at + 5]) for at in range(max(1, len(found) - 4))}
        for found in map(near_duplicates.words, (one, other))
    )
    return len(one & other) / len(one | other)


def test_how_alike_is_the_jaccard_index():
    sketch, errors = near_duplicates.Sketcher(), []
    for seed in range(60):
        base = prose(seed, random.Random(seed).randint(5, 6000))  # more runs than are hashed at once
        one, other = " ".join(base), " ".join(changed(base, seed / 600, seed))
        minima = np.array([sketch(one), sketch(other)]).astype(np.uint8)
        errors.append(near_duplicates.alike(minima[:1], minima[1:])[0] - jaccard(one, other))
    assert np.abs(errors).max() < 0.15  # three and a half standard deviations at one half
    assert abs(np.mean(errors)) < 0.015
    assert sketch("... !") is None


def test_words():
    assert near_duplicates.words("It's THE end\u2014of “Ümläute”, été!") == [
        "it", "s", "the", "end", "of", "Ümläute", "été",
    ]  # fmt: skip
    assert near_duplicates.words("漢字 ab漢") == ["漢", "字", "ab", "漢"]


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.8, 0.9, 0.95, 1.0])
def test_the_bands_let_those_that_are_alike_enough_meet(threshold):
    size = near_duplicates.rows(threshold)
    assert (1 - threshold**size) ** (128 // size) < 0.01 or size == 1


@pytest.fixture
def corpus(tmp_path):
    """Twenty texts in two files, and copies: of text 3 nearly and word for word, of text 15 nearly, of the near copy of
    that once more; and one that is half text 5."""
    texts = [prose(seed) for seed in range(20)]
    near = changed(texts[3], 0.01, 1)
    later = changed(texts[15], 0.01, 2)
    again = changed(later, 0.005, 3)
    half = texts[5][:100] + prose(99, 100)
    files = [[*texts[:10], near], [*texts[10:], later, texts[3], again, half, near]]
    for name, found in zip("ab", files, strict=True):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(" ".join(text) for text in found) + "\n")
    kept = sorted(" ".join(text) for text in (*texts, half))
    return [tmp_path / "a.txt", tmp_path / "b.txt"], kept


def test_the_first_of_those_that_are_nearly_the_same_stays_and_the_others_are_told(corpus, tmp_path):
    paths, kept = corpus
    texts, counters, told = read(paths, tmp_path)
    assert texts == kept
    assert (counters["near_duplicates"], counters["duplicates"]) == (3, 2)
    assert [(row["file"][-5:], row["document"], row["like_file"][-5:], row["like_document"]) for row in told] == [
        ("a.txt", 11, "a.txt", 4),
        ("b.txt", 11, "b.txt", 6),
        ("b.txt", 13, "b.txt", 6),
    ]
    assert all(0.8 < row["alike"] < 1 for row in told)
    assert read(paths, near_duplicates=None)[1].get("near_duplicates") is None
    assert read(paths, near_duplicates=0.25)[1]["near_duplicates"] == 4  # the half, too


def test_the_same_for_any_workers_and_however_files_are_cut(corpus, tmp_path, monkeypatch):
    paths, _ = corpus
    wanted = read(paths, tmp_path)
    options = ["--direct_running_mode=multi_threading", "--direct_num_workers=3", f"--runner={runner.LOCAL_RUNNER}"]
    assert read(paths, tmp_path, options) == wanted
    monkeypatch.setattr("preprocessing.corpus.inputs._MIN_CHUNK", 2000)
    assert read(paths, tmp_path) == wanted


def test_none_and_too_little(tmp_path):
    (tmp_path / "a.txt").write_text("One short text.\n\n...\n\n!!!\n\none, short TEXT\n\nAnother.\n")
    texts, counters, _ = read([tmp_path / "a.txt"])
    assert counters["near_duplicates"] == 1
    assert "one, short TEXT" not in texts
    assert len(texts) == 4
    (tmp_path / "b.txt").write_text("One text.\n\nAnother.\n")
    assert read([tmp_path / "b.txt"])[1]["near_duplicates"] == 0
    with pytest.raises(InputError, match="near_duplicates must be above 0 and at most 1"):
        CorpusSettings(near_duplicates=0)


def test_planted_copies_in_real_text_are_found(tmp_path):
    """Paragraphs of Wikipedia, each beside a copy with some words changed: of those that the exact index calls alike,
    nearly all are found; of those that it does not, hardly any but at the border."""
    path = data.require("corpus_en/wikipedia_490_articles.txt")
    paragraphs = [line for line in path.read_text().splitlines() if len(line.split()) > 80][:1500]
    chance, pairs = random.Random(1), []
    for paragraph in paragraphs:
        pairs.append(
            (paragraph, " ".join(changed(paragraph.split(), chance.choice((0.01, 0.02, 0.03, 0.05)), chance.random())))
        )
    (tmp_path / "a.txt").write_text("\n\n".join(text for pair in pairs for text in pair))
    _, counters, told = read([tmp_path / "a.txt"], tmp_path)
    found = {row["document"] // 2 for row in told if row["like_document"] == row["document"] - 1}
    exact = np.array([jaccard(*pair) for pair in pairs])
    taken = np.isin(np.arange(1, len(pairs) + 1), list(found))
    print(
        f"exact index 0.8 or more: {taken[exact >= 0.8].mean():.4f} found of {np.sum(exact >= 0.8)}, 0.85 or more: "
        f"{taken[exact >= 0.85].mean():.4f} of {np.sum(exact >= 0.85)}; below 0.75: {taken[exact < 0.75].sum()} of "
        f"{np.sum(exact < 0.75)}; {counters['near_duplicates']} in all"
    )
    assert taken[exact >= 0.87].mean() > 0.98
    assert taken[exact >= 0.8].mean() > 0.85
    assert taken[exact < 0.72].mean() < 0.03
