"""A tag of each word, and the entities that tags like `B-PER` mark."""

import collections
import dataclasses
import math
import pathlib
import types
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from model.settings import TaggingSettings
from pipeline.finetuning.kinds import label_files, temperature
from pipeline.finetuning.kinds.kind import OF_TEACHER, Answer, Calibration, Verdict
from preprocessing import tags
from preprocessing.errors import require
from preprocessing.tasks.sentences import Sentence, Sentences

SHOWN = 3
ENOUGH = 200_000  # words
LEAST = 1e-7  # a probability below it may have lost its digits: 1 minus another one
# Of files of raw texts, whose words the model finds.
TEXTS = (".csv", ".parquet")


class Tagging:
    """A `pipeline.finetuning.kinds.kind.Kind`. Rows are sentences of words; to be answered only, texts too."""

    name = "tagging"
    title = "Tagging of words"
    figures = types.MappingProxyType(
        {
            "entity_f1": "Entity F1 (exact span and type; tags read as conlleval and seqeval's default do)",
            "entity_f1_strict": "Entity F1, strict (only entities whose tags keep IOB2)",
            "entity_precision": "Entity precision",
            "entity_recall": "Entity recall",
            "accuracy": "Accuracy of words",
            "macro_f1": "Macro F1 of tags",
            "majority_accuracy": "Accuracy of the commonest tag",
            "cross_entropy": "Cross entropy of a word (nats), before the temperature",
        }
    )
    watched = ("entity_f1", "accuracy", "macro_f1", "cross_entropy")
    defaults = types.MappingProxyType({"max_seq_length": 128, "labels": None, "class_weights": None} | OF_TEACHER)
    pooling = None
    chosen = "The temperature"
    signatures = ("tag_words", "tag")
    calibrates_on = "tag_logits"

    def row(self):
        return Sentence

    def source(self, path, columns):
        from preprocessing.tasks.tables import Table

        are_texts = not columns.labelled and path.lower().endswith(TEXTS)
        given = {"second": columns.second, "separator": columns.separator, "slices column:": columns.more or None}
        given |= {} if are_texts else {"header": columns.header, "id": columns.id}
        for name, value in given.items():
            require(value is None, f"{path}: files of words and tags have no --{name}", value)
        if are_texts:
            return Table(path, columns)
        return Sentences(path, columns.text, columns.label, columns.labelled)

    def prepare(self, train, dev, tokenizer, folder, options, progress):
        from preprocessing.tasks import tagged

        declared = label_files.declared(options.labels)
        given = {"max_seq_length": options.max_seq_length, "labels": declared, "progress": progress}
        # A pipeline's rows have tags: it has set aside those without.
        untagged = bool(options.teacher) and isinstance(train, Sentences)
        return tagged.prepare(train, dev, tokenizer, folder, untagged=untagged, **given)

    def task(self, prepared, options):
        from model.tasks import classification
        from model.tasks.tagging import Tagging as Task

        watched: Any = options.watch
        if watched == "entity_f1" and not tags.of_entities(prepared.labels):
            watched = "accuracy"
        balanced = classification.balanced(prepared.train.counts)
        weights = label_files.class_weights(options.class_weights, prepared.labels, balanced)
        return Task(tuple(prepared.labels), watched, weights)

    def settings(self, prepared, train, options):
        return TaggingSettings(tuple(prepared.labels), max_seq_length=options.max_seq_length)

    def told(self, prepared, options):
        train, dev, labels = prepared.train, prepared.dev, prepared.labels
        for split, name in ((train, "train"), (dev, "dev")):
            several = f"{split.cut / split.sentences:.1%} in several windows of {options.max_seq_length} tokens"
            yield f"{name}: {split.sentences:,} sentences, {split.words:,} words, {several}"
        shown = sorted(zip(train.counts, labels, strict=True), key=lambda pair: -pair[0])
        more = ", ..." if len(shown) > 6 else ""
        yield f"{len(labels)} tags: {', '.join(f'{label} {count:,}' for count, label in shown[:6])}{more}"
        most = max(range(len(labels)), key=dev.counts.__getitem__)
        yield f"always saying {labels[most]!r} is right in {dev.counts[most] / dev.words:.4f} of dev's words"

    def signature(self, source):
        return "tag_words" if isinstance(source, Sentences) else "tag"

    def inputs(self, signature, rows):
        if signature == "tag":
            return {"text": [row.text for row in rows]}
        words = np.full((len(rows), max(len(row.words) for row in rows)), b"", object)
        for place, row in enumerate(rows):
            words[place, : len(row.words)] = [word.encode() for word in row.words]
        return {"words": words}

    def size(self, row):
        return sum(map(len, row.words)) + len(row.words) if isinstance(row, Sentence) else len(row.text)

    def labels(self, row):
        return sorted(set(row.tags or ()))

    def said(self, row, answer):
        count, entities = int(answer["word_count"]), range(int(answer["entity_count"]))
        found: dict[str, Any] = {"tags": _texts(answer["tags"][:count])}
        given = isinstance(row, Sentence)
        if not given:
            found = {"words": _texts(answer["words"][:count])} | found
        starts, ends = (answer["entity_starts" if given else "entity_char_starts"],
                        answer["entity_ends" if given else "entity_char_ends"])  # fmt: skip
        found["entities"] = [
            {
                "text": " ".join(row.words[starts[i] : ends[i]]) if given else answer["entities"][i].decode(),
                "type": answer["entity_types"][i].decode(),
                "start": int(starts[i]),
                "end": int(ends[i]),
                "score": float(answer["entity_scores"][i]),
            }
            for i in entities
        ]
        return found

    def calibrated(self, settings, answered):
        """A temperature, on so many words that more would not change it."""
        numbers = {label: number for number, label in enumerate(settings.labels)}
        logits, gold = [np.zeros([0, len(numbers)])], list[int]()
        for row, answer in answered:
            known = [place for place, tag in enumerate(row.tags or ()) if tag in numbers]
            logits.append(answer["logits"][known].astype(float))
            gold += [numbers[row.tags[place]] for place in known]
            if len(gold) >= ENOUGH:
                break
        if not gold:
            return Calibration(settings)
        return temperature.calibrated(settings, np.concatenate(logits), np.array(gold))

    def judge(self):
        return Judge()

    def sections(self, prepared, metrics):
        yield from ("## Tags", "", "| tag | F1 on dev | words of train | words of dev |", "|---|---|---|---|")
        counts = zip(prepared.labels, prepared.train.counts, prepared.dev.counts, strict=True)
        for label, of_train, of_dev in sorted(counts, key=lambda row: metrics["f1"].get(row[0], 0.0)):
            shown = label.replace("|", "\\|")
            yield f"| {shown} | {metrics['f1'].get(label, 0.0):.4f} | {of_train} | {of_dev} |"
        yield ""
        if metrics["entities"]:
            yield from ("## Entities", "", "| type | precision | recall | F1 | in dev |", "|---|---|---|---|---|")
            for name, count in metrics["entities"].items():
                figures = (metrics[f"{figure}_of_type"][name] for figure in ("precision", "recall", "f1"))
                yield f"| {name} | {' | '.join(f'{figure:.4f}' for figure in figures)} | {count} |"
            yield ""


@dataclasses.dataclass
class _Counts:
    """Of entities: there, said, and both; and said with tags that keep IOB2, and right among these."""

    gold: int = 0
    said: int = 0
    right: int = 0
    strict_said: int = 0
    strict_right: int = 0


class Judge:
    """A `pipeline.finetuning.kinds.kind.Judge`. A tag that the model does not have counts as an error."""

    def __init__(self):
        self._pairs: collections.Counter[tuple[str, str]] = collections.Counter()  # (gold, said)
        self._entities: dict[str, _Counts] = collections.defaultdict(_Counts)  # by type

    def add(self, row: Sentence, answer: Answer) -> Verdict:
        said = _texts(answer["tags"][: int(answer["word_count"])])
        gold, scores = list(row.tags or ()), answer["scores"].tolist()
        pairs = list(zip(gold, said, strict=True))  # exactly one for each
        self._pairs.update(pairs)
        self._count(gold, said)
        costs, shown = [], []
        for word, (right, tag), score in zip(row.words, pairs, scores, strict=False):
            shown.append(word if tag == right else f"{word} [{tag}, not {right}]")
            if tag != right:  # a probability that is wrong leaves at most the rest to what is right
                costs.append(-math.log(max(1 - score, LEAST)))
        return Verdict(gold, said, sum(costs) if costs else None, " ".join(shown), {"words": list(row.words)})

    def merge(self, other: "Judge") -> None:
        self._pairs.update(other._pairs)
        for name, counts in other._entities.items():
            both = zip(*map(dataclasses.astuple, (self._entities[name], counts)), strict=True)
            self._entities[name] = _Counts(*map(sum, both))

    def figures(self) -> dict[str, float]:
        from model.tasks import classification, tagging

        confusion, _ = self._confusion()
        of_words = classification.scores(confusion)
        found = {name: of_words[name] for name in ("accuracy", "macro_f1", "majority_accuracy")}
        if self._mark_entities:
            every = [dataclasses.astuple(of) for of in self._entities.values()]
            found |= tagging.entity_figures(*map(float, np.sum(every, 0)))
        return found

    def details(self) -> dict[str, Any]:
        from model.tasks import classification, tagging

        confusion, labels = self._confusion()
        each = dict(zip(labels, classification.f1(confusion).tolist(), strict=True))
        found: dict[str, Any] = {"words": int(confusion.sum()), "f1": each}
        types = sorted(self._entities.items()) if self._mark_entities else []
        figures = {name: tagging.entity_figures(*map(float, dataclasses.astuple(of))) for name, of in types}
        for figure in ("precision", "recall", "f1"):
            found[f"{figure}_of_type"] = {name: of[f"entity_{figure}"] for name, of in figures.items()}
        return found | {"entities": {name: of.gold for name, of in types}}

    def notes(self) -> Iterator[str]:
        gold, said = ({pair[place] for pair in self._pairs} for place in (0, 1))
        if never := sorted(gold - said):
            more = f" and {len(never) - SHOWN} more" if len(never) > SHOWN else ""
            yield f"tags that the model never says: {', '.join(never[:SHOWN])}{more}"
        if len(said) == 1 < len(gold):
            yield (
                f"ALARM: the model says {said.pop()!r} of every word: it has learned nothing. Try another "
                "--learning-rate, or more --epochs"
            )

    def lines(self) -> Iterator[str]:
        confusion, labels = self._confusion()
        width = max(map(len, (*labels, *self._entities)), default=0)
        found = self.details()
        for label, words in zip(labels, confusion.sum(1), strict=False):
            yield f"  {label.ljust(width)}  F1 {found['f1'][label]:.4f}  {words:,.0f} words"
        for name, count in found["entities"].items():
            yield f"  {name.ljust(width)}  entity F1 {found['f1_of_type'][name]:.4f}  {count:,} entities"

    def draw(self, folder: pathlib.Path) -> None:
        from pipeline.finetuning import plots

        plots.confusion(*self._confusion(), folder)

    @property
    def _mark_entities(self) -> bool:
        return tags.of_entities(tag for pair in self._pairs for tag in pair)

    def _count(self, gold: Sequence[str], said: Sequence[str]) -> None:
        """Into the counts by type. Of tags that mark no entities this counts nothing that is told."""
        there, found, strict = set(tags.entities(gold)), set(tags.entities(said)), set(tags.strict(said))
        for names, which in (("gold", there), ("said", found), ("right", there & found)):
            for one in which:
                counts = self._entities[one.type]
                setattr(counts, names, getattr(counts, names) + 1)
        for one in strict:
            self._entities[one.type].strict_said += 1
            self._entities[one.type].strict_right += one in there

    def _confusion(self) -> tuple[np.ndarray, list[str]]:
        """Words [C + 1, C] by their tag and what was said, and the tags. As scikit-learn's macro F1 has it they are all
        that are there or said."""
        labels = sorted({tag for pair in self._pairs for tag in pair})
        numbers = {label: number for number, label in enumerate(labels)}
        confusion = np.zeros((len(labels) + 1, len(labels)))
        for (gold, said), words in self._pairs.items():
            confusion[numbers[gold], numbers[said]] = words
        return confusion, labels


def _texts(values: Any) -> list[str]:
    return [value.decode() for value in values.tolist()]


TAGGING = Tagging()
