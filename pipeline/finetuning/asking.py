"""Asking a classifier about the rows of a table, by the graph that is served: a server's, an exported folder's, or the
same one made of a fine-tuned checkpoint."""

import contextlib
import itertools
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from model import checkpoints
from preprocessing.errors import InputError
from preprocessing.tasks.tables import Row
from serving.client import Client
from serving.export import text_rules
from serving.protocol.errors import RequestError
from serving.settings import ExportSettings
from serving.signatures.base import TextEncoder
from serving.signatures.classification import CLASSIFY, CLASSIFY_PAIR

BATCH = 32
SORTED = 1024  # rows that are held, so that texts of like length are asked together

Answers = Mapping[str, np.ndarray]
Ask = Callable[[Sequence[Row]], Answers]


@contextlib.contextmanager
def opened(model: str, pair: bool, name: str = "bert") -> Iterator[Ask]:
    """What answers rows, all of one batch: `label` [B], `probabilities` [B, C], `labels` [B, C], bytes as text.

    Args:
        model: host:port or http://host:port of a server, an exported folder, or a checkpoint with a classifier.
        pair: whether rows have two texts.
        name: of the model on a server.

    Raises InputError where there is no such classifier.
    """
    signature = CLASSIFY_PAIR if pair else CLASSIFY
    folder = pathlib.Path(model)
    is_server = not folder.exists() and re.fullmatch(r"https?://.*|[^/\s]+:\d+", model)
    if not is_server and not _is_export(folder):
        function = signature.function(_encoder(model, pair))
        yield lambda rows: {name: value.numpy() for name, value in function(*_texts(rows, pair)).items()}
        return
    with Client(model if is_server else folder, model=name) as client:
        try:
            has = client.signatures()
        except RequestError as error:
            raise InputError(f"{model}: {error.message} ({error.code.name})") from None
        if signature.name not in has:
            other = CLASSIFY.name if pair else CLASSIFY_PAIR.name
            kind = "single texts, not pairs" if pair else "pairs: name the second text's column with --second"
            raise InputError(f"{model}: {f'it judges {kind}' if other in has else 'has no classifier'}")

        def ask(rows: Sequence[Row]) -> Answers:
            inputs = dict(zip((spec.name for spec in signature.inputs), _texts(rows, pair), strict=True))
            try:
                return client.predict(signature.name, **inputs)
            except RequestError as error:
                raise InputError(f"{model}: {rows[0].place}: {error.message} ({error.code.name})") from None

        yield ask


def answered(rows: Iterable[Row], ask: Ask) -> Iterator[tuple[Row, str, np.ndarray, list[str]]]:
    """(row, label, probabilities [C], their labels) of each row, in order."""
    rows = iter(rows)
    while held := list(itertools.islice(rows, SORTED)):
        order = sorted(range(len(held)), key=lambda place: len(held[place].text) + len(held[place].second or ""))
        found: dict[int, tuple[str, np.ndarray, list[str]]] = {}
        for start in range(0, len(held), BATCH):
            places = order[start : start + BATCH]
            answers = ask([held[place] for place in places])
            labels = [label.decode() for label in answers["labels"][0]]
            for place, label, shares in zip(places, answers["label"], answers["probabilities"], strict=True):
                found[place] = (label.decode(), shares, labels)
        for place, row in enumerate(held):
            yield row, *found[place]


def _encoder(model: str, pair: bool) -> TextEncoder:
    tokenizer = text_rules.tokenizer_of(model, None, None)
    texts = TextEncoder(checkpoints.load(model), tokenizer, ExportSettings(), checkpoints.read_task(model))
    if reason := (CLASSIFY_PAIR if pair else CLASSIFY).missing(texts):
        raise InputError(f"{model}: {reason}")
    return texts


def _texts(rows: Sequence[Row], pair: bool) -> list[list[str]]:
    first = [row.text for row in rows]
    return [first, [row.second or "" for row in rows]] if pair else [first]


def _is_export(folder: pathlib.Path) -> bool:
    versions = folder.glob("[0-9]*/saved_model.pb")
    return (folder / "saved_model.pb").is_file() or any(versions)
