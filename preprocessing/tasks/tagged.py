"""Sentences of tagged words -> files of examples of a tagging, with what is to be known of them.

A file is read a few times and never held.
"""

import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from preprocessing import features, tfrecord
from preprocessing.errors import InputError, require
from preprocessing.examples import encoding
from preprocessing.storage import write_whole
from preprocessing.tasks.labelling import MAX_LABELS
from preprocessing.tasks.leakage import Ids, Leakage
from preprocessing.tasks.leakage import key as leakage_key
from preprocessing.tasks.sentences import Sentence, Sentences
from preprocessing.tasks.splits import SHOWN, Split, earlier, fingerprint, ignored
from preprocessing.tasks.word_windows import pack, pieces
from preprocessing.tokenizer import BertTokenizer

MOST_ROWS = 1024  # encoded at once


@dataclasses.dataclass
class TaggedSplit(Split):
    """What is in a file of examples, `features.tagged`, which are windows: `rows` of them; `cut` are sentences that lie
    in several.

    Attributes:
        counts: words by tag; `unknown` have one that train does not have.
        removed: words of which nothing is left when they are cleaned.
        broken: sentences whose tags broke their scheme.
        untagged: sentences without tags, which train has for a teacher alone.
    """

    counts: list[int] = dataclasses.field(default_factory=list)
    unknown: int = 0
    sentences: int = 0
    words: int = 0
    removed: int = 0
    broken: int = 0
    untagged: int = 0


@dataclasses.dataclass
class TaggedPrepared:
    """The files of a run, and the tags in the order of their numbers. `leaked`: sentences of dev that are in train too;
    `leaked_places`: the first of them."""

    labels: list[str]
    train: TaggedSplit
    dev: TaggedSplit
    leaked: int = 0
    leaked_places: list[str] = dataclasses.field(default_factory=list)

    def notes(self) -> Iterator[str]:
        """What a person should know of the data, a line each."""
        yield from (self.train.told, self.dev.told)
        for split, name in ((self.train, "train"), (self.dev, "dev")):
            for kind, count, what in (
                ("set_aside", split.set_aside, "sentences cannot be used"),
                ("repeated", split.repeated, "sentences have the id of a sentence before them"),
                (
                    "broken",
                    split.broken,
                    "sentences break their tags' scheme; an I- without its B- begins an entity",
                ),
                ("untagged", split.untagged, "sentences have no tags and are learned from the teacher alone"),
                ("unknown", split.unknown, "words have a tag that train does not have and count as errors"),
            ):
                if count:
                    yield f"{name}: {count:,} {what}: {'; '.join(split.places[kind])}"
            if split.removed:
                yield f"{name}: of {split.removed:,} words nothing is left when they are cleaned: [UNK] stands for them"
        if self.leaked:
            yield (
                f"{self.leaked:,} sentences of dev are in train, so that dev flatters: {'; '.join(self.leaked_places)}"
            )


def prepare(
    train: Sentences,
    dev: Sentences,
    tokenizer: BertTokenizer,
    folder: str | os.PathLike,
    *,
    max_seq_length: int,
    labels: Sequence[str] | None = None,
    untagged: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> TaggedPrepared:
    """Writes the examples of both files into `folder`, or finds those that the same files and settings gave before.

    Args:
        labels: the tags that are declared, else those of train, sorted.
        untagged: whether sentences of train without tags are kept, for a teacher to say what they are.
        progress: called with the number of sentences that are written.

    Raises InputError where train has no two tags or one that is not declared, and where dev has none of train's.
    Sentences that cannot be used are listed in `set_aside.tsv`.
    """
    require(max_seq_length >= 8, "max_seq_length must be at least 8", max_seq_length)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = fingerprint(train, dev, tokenizer, "tagging", max_seq_length, labels, *["untagged"] * untagged)
    report = folder / f"{name}.json"
    if known := earlier(report, TaggedPrepared, TaggedSplit):
        return known
    train_split, dev_split = (
        TaggedSplit(str(folder / f"{name}-{part}.tfrecord"), source.told)
        for part, source in (("train", train), ("dev", dev))
    )
    train = train.with_untagged() if untagged else train
    leakage = Leakage(_key(sentence) for sentence in dev.rows(ignored))
    tags = _tags(train, leakage, labels)
    require(len(tags) > 1, f"{train.path}: training needs at least two tags", ", ".join(tags))
    prepared = TaggedPrepared(list(labels or sorted(tags)), train_split, dev_split, leakage.rows)
    if prepared.leaked:
        leaked = (sentence.place for sentence in dev.rows(ignored) if _key(sentence) in leakage)
        prepared.leaked_places = list(itertools.islice(leaked, SHOWN))
    with (folder / f"{name}-set_aside.tsv").open("w") as aside:
        for split, source in ((train_split, train), (dev_split, dev)):
            _write(split, source, tokenizer, prepared.labels, max_seq_length, aside, progress)
    if not sum(dev_split.counts):
        raise InputError(f"{dev.path}: dev must have words with tags of train. Received: none; see --label")
    write_whole(json.dumps(dataclasses.asdict(prepared)), report)
    return prepared


def _key(sentence: Sentence) -> int:
    return leakage_key("\0".join(sentence.words))


def _tags(train: Sentences, leakage: Leakage, declared) -> set[str]:
    """Train's tags; its sentences are seen by `leakage`."""
    found: set[str] = set(declared or ())
    for sentence in train.rows(ignored):
        for line, tag in _tagged(sentence):
            if tag not in found:
                if declared is not None:
                    rule = f"{train.path}:{line}: a tag must be one of those declared ({', '.join(declared[:5])})"
                    raise InputError(f"{rule}. Received: {tag!r}")
                found.add(tag)
        if len(found) > MAX_LABELS:
            way_out = "name the column of the tags with --label"
            raise InputError(f"{sentence.place}: more than {MAX_LABELS:,} different tags; {way_out}")
        leakage.see(_key(sentence))
    return found


def _tagged(sentence: Sentence) -> Iterator[tuple[int, str]]:
    """(line, tag) of each word, if it has tags."""
    return zip(sentence.lines, sentence.tags, strict=True) if sentence.tags is not None else iter(())


def _write(split: TaggedSplit, source: Sentences, tokenizer, labels, length: int, aside, progress) -> None:
    """Writes the split's file and fills in what is in it."""
    numbers = {label: number for number, label in enumerate(labels)}
    counts, untagged = np.zeros(len(labels) + 1, int), 0  # words
    split.broken, split.places["broken"] = source.broken, [source.first_broken]
    sentences, ids = source.rows(split.aside(source.path, aside)), Ids()
    with split.written() as file:
        while chunk := list(itertools.islice(sentences, MOST_ROWS)):
            for sentence in chunk:
                ids.see(sentence)
                for line, tag in _tagged(sentence):
                    if tag not in numbers:
                        split.tell("unknown", f"{source.path}:{line} {tag!r}")
                if sentence.tags is None:
                    split.untagged += 1
                    split.tell("untagged", sentence.place)
                    untagged += len(sentence.words)
            all_tags = (sentence.tags or ("",) * len(sentence.words) for sentence in chunk)
            tags = np.array([numbers.get(tag, len(labels)) for of in all_tags for tag in of])
            of = pieces(tokenizer, [sentence.words for sentence in chunk])
            windows = pack(tokenizer, of, length)
            tag_ids = np.where(windows.words >= 0, tags[windows.words] + 1, 0)
            file.write(tfrecord.frame(encoding.serialize(windows.features | {features.TAG_IDS: tag_ids})))
            counts += np.bincount(tags, minlength=len(counts))
            split.sentences += len(chunk)
            split.words += len(tags)
            split.removed += int(of.removed.sum())
            split.rows += len(windows.sentences)
            split.cut += int((of.lengths > length - 2).sum())
            split.tokens += int(windows.features[features.INPUT_MASK].sum())
            progress(split.sentences)
    *split.counts, split.unknown = counts.tolist()
    split.unknown -= untagged
    split.compare(ids, source.rows(ignored))
