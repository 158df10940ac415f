"""Asking about the rows of a file, by the graph that is served: a server's, an exported folder's, or the same one made
of a fine-tuned checkpoint."""

import contextlib
import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast, get_args

import numpy as np
import tensorflow as tf

from model import checkpoints
from model.settings import Pooling, SimilaritySettings
from pipeline.finetuning.kinds.kind import Answer, Kind, Row, SetAside, Source
from preprocessing.errors import InputError, require
from serving.client import Client
from serving.export import text_rules
from serving.protocol.errors import RequestError
from serving.settings import ExportSettings
from serving.signatures import ALL
from serving.signatures.base import TextEncoder
from serving.signatures.tagging import TAG_LOGITS

BATCH = 32
SORTED = 1024  # rows that are held, so that rows of like size are asked together


class Served(Protocol):
    """What answers. `path`: what a user calls it; `signatures`: names of those that it has; `left_out`: why it has not
    the others, as far as that is known."""

    @property
    def path(self) -> str: ...

    @property
    def signatures(self) -> Sequence[str]: ...

    @property
    def left_out(self) -> Mapping[str, str]: ...

    def ask(self, signature: str, inputs: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        """The outputs of a signature by name, axis 0 the batch. Raises RequestError."""


class Checkpoint:
    """A Served of an encoder with its tokenizer. A signature's graph is made when it is first asked."""

    def __init__(self, path: str, texts: TextEncoder):
        self.path, self._texts = path, texts
        self._known = {signature.name: signature for signature in (*ALL, TAG_LOGITS)}
        self.left_out = {name: why for name, known in self._known.items() if (why := known.missing(self._texts))}
        self.signatures = [name for name in self._known if name not in self.left_out]
        self._functions: dict[str, tf.types.experimental.PolymorphicFunction] = {}

    def ask(self, signature: str, inputs: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        known = self._known[signature]
        if signature not in self._functions:
            self._functions[signature] = known.function(self._texts)
        given = (tf.constant(inputs[spec.name], spec.dtype) for spec in known.inputs)
        return {name: value.numpy() for name, value in self._functions[signature](*given).items()}


class _Client:
    """A Served of an exported folder, or of a server. `named`: of several models in it, the one that is meant."""

    def __init__(self, path: str, client: Client, named: str | None):
        self.path, self._client, self._prefix = path, client, f"{named}_" if named else ""
        self.left_out: dict[str, str] = {}
        try:
            found = list(client.signatures())
        except RequestError as error:
            raise InputError(f"{path}: {error.message} ({error.code.name})") from None
        self.signatures = [name.removeprefix(self._prefix) for name in found if name.startswith(self._prefix)]
        if not self.signatures:
            raise InputError(f"{path}: has no signature of {named}. Received: {', '.join(found)}")

    def ask(self, signature: str, inputs: Mapping[str, Any]) -> Mapping[str, np.ndarray]:
        return self._client.predict(self._prefix + signature, **inputs)


@contextlib.contextmanager
def opened(target: str, named: str | None = None, **server: Any) -> Iterator[Served]:
    """What answers rows.

    Args:
        target: host:port or http://host:port of a server, an exported folder, or a checkpoint with a fine-tuned head.
        named: the name that a model has in an export of several, whose signatures are called after it.
        server: what a Client is told of the model on a server: its name as `model`, `version`, `timeout`.
    """
    folder = pathlib.Path(target)
    is_server = not folder.exists() and re.fullmatch(r"https?://.*|[^/\s]+:\d+", target)
    if not is_server and not _is_export(folder):
        require(named is None, f"{target}: a checkpoint is one model, without a name", named)
        tokenizer = text_rules.tokenizer_of(target, None, None)
        encoder, task = checkpoints.load(target), checkpoints.read_task(target) or _vectors(target)
        yield Checkpoint(target, TextEncoder(encoder, tokenizer, ExportSettings(), task))
        return
    with Client(target if is_server else folder, **server) as client:
        yield _Client(target, client, named)


def kind_of(served: Served, kinds: Sequence[Kind], named: str | None) -> Kind:
    """The kind that it answers. Raises InputError where it answers none, or several and none is `named`."""
    found = [kind for kind in kinds if named in (None, kind.name) and set(kind.signatures) & set(served.signatures)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{served.path}: it answers {', '.join(kind.name for kind in found)}; choose one with --task")
    wanted = [name for kind in kinds for name in kind.signatures if named in (None, kind.name)]
    reasons = dict.fromkeys(served.left_out[name] for name in wanted if name in served.left_out)
    raise InputError(
        f"{served.path}: it must answer {named or 'a task that it was fine-tuned for'}. "
        f"Received: {'; '.join(reasons) or ', '.join(served.signatures) or 'no signature'}"
    )


def answered(
    kind: Kind, source: Source, served: Served, set_aside: SetAside = lambda line, reason: None
) -> Iterator[tuple[Row, Answer]]:
    """(row, answer) of each usable row, in order. Raises InputError where such rows are not answered."""
    signature = kind.signature(source)
    if signature not in served.signatures:
        others = [name for name in kind.signatures if name in served.signatures]
        reason = served.left_out.get(signature, f"it has no signature {signature}, but {', '.join(others)}")
        raise InputError(f"{served.path}: {reason}")
    return asked(kind, signature, source.rows(set_aside), served)


def asked(kind: Kind, signature: str, rows: Iterable[Row], served: Served) -> Iterator[tuple[Row, Answer]]:
    """The same of rows from anywhere."""
    rows = iter(rows)
    while held := list(itertools.islice(rows, SORTED)):
        order = sorted(range(len(held)), key=lambda place: kind.size(held[place]))
        found: dict[int, Answer] = {}
        for start in range(0, len(held), BATCH):
            places = order[start : start + BATCH]
            asked = [held[place] for place in places]
            try:
                outputs = served.ask(signature, kind.inputs(signature, asked))
            except RequestError as error:
                raise InputError(f"{served.path}: {asked[0].place}: {error.message} ({error.code.name})") from None
            for number, place in enumerate(places):
                found[place] = {name: values[number] for name, values in outputs.items()}
        for place, row in enumerate(held):
            yield row, found[place]


def _vectors(target: str) -> SimilaritySettings | None:
    """What a folder of sentence-transformers is good for as it is."""
    said = checkpoints.sentences(target)
    if said is None or not said.whole or said.pooling not in get_args(Pooling):
        return None
    return SimilaritySettings(pooling=cast(Pooling, said.pooling), max_seq_length=said.max_seq_length)


def _is_export(folder: pathlib.Path) -> bool:
    versions = folder.glob("[0-9]*/saved_model.pb")
    return (folder / "saved_model.pb").is_file() or any(versions)
