"""Skew: what a model is asked, by the log of its server, beside what it was trained on."""

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

from tensorflow_metadata.proto.v0 import statistics_pb2
from tensorflow_serving.apis import prediction_log_pb2

from pipeline import values
from pipeline.bounds import DataBounds
from pipeline.drift import comparing, measures, statistics
from pipeline.drift.comparing import Moved
from pipeline.history import lineage
from pipeline.history.homes import Home
from pipeline.history.store import Store
from preprocessing import character_kinds, tfrecord
from preprocessing.errors import InputError, require
from preprocessing.tokenizer import BertTokenizer
from serving.protocol import tensors
from serving.protocol.errors import RequestError

# What is asked is shorter than what was read, and asked in other words: its length is told, and bounded by nothing.
BOUNDS = DataBounds(words=1.0, tokens=0.15)
_LEAST = 20  # texts
_BATCH = 1000
_EVALUATE = "evaluate"  # the signature that takes serialized examples instead of texts


@dataclasses.dataclass(frozen=True)
class Skew:
    """`moved`: a line for each feature; `texts`: how many were compared, `repeated` of which had stood there before;
    `only_outlines`: whether the log has no texts, so that neither languages nor tokens are known."""

    moved: list[Moved]
    texts: int
    repeated: int
    only_outlines: bool


def texts(files: Sequence[str]) -> Iterator[str]:
    """All strings that were asked about in logs of requests, words of a row as one. Raises InputError for a file that
    is no log, or is cut short."""
    for path in files:
        try:
            with open(path, "rb") as handle:
                for record in tfrecord.records(handle):
                    yield from _asked(prediction_log_pb2.PredictionLog.FromString(record))
        except (OSError, ValueError, RequestError) as error:  # protobuf's DecodeError is a ValueError
            raise InputError(f"{path}: must be a TFRecord of PredictionLog messages ({error})") from None


def _asked(entry: prediction_log_pb2.PredictionLog) -> Iterator[str]:
    request = entry.predict_log.request
    if request.model_spec.signature_name == _EVALUATE:
        return
    for _, proto in sorted(request.inputs.items()):
        array = tensors.from_proto(proto)
        if array.dtype == object and array.ndim:
            for row in array.reshape(len(array), -1):
                yield " ".join(text.decode("utf-8", "replace") for text in row)


def compare(home: Home, serving: str, version: str, files: Sequence[str], bounds: DataBounds) -> Skew:
    """Compares the texts of logs with what a version was trained on, of data in spans the newest. Raises InputError
    where the statistics of its run are gone, or were never taken."""
    asked = list(texts(files))
    require(len(asked) >= _LEAST, f"skew is told of {_LEAST} texts and more", len(asked))
    traced = lineage.trace(home, serving, version)
    store = Store(home)
    read = _statistics(store, traced["data"]["artifact"], "CorpusGate", version)
    made = _statistics(store, traced["examples"]["artifact"], "ExampleGate", version)
    only_outlines = all(character_kinds.outline(text) == text for text in asked)
    measured: list[measures.Measures] = [measures.of_text(text) for text in asked]
    if only_outlines:
        for one in measured:
            del one[measures.LANGUAGE]
    else:
        vocabulary = os.path.join(traced["examples"]["artifact"], "vocab.txt")
        lower_case = traced["settings"]["examples"].get("lower_case", True)
        _add_tokens(measured, asked, BertTokenizer.from_vocab(vocabulary, lower_case))
    now = statistics.of(measured)
    stated = dataclasses.asdict(bounds)
    moved = [
        line
        for before in (read, made)
        for line in comparing.compare(
            before, now, stated, against="training", of="the log", comparator="skew_comparator"
        )
    ]
    return Skew(moved, len(asked), len(asked) - len(collections.Counter(asked)), only_outlines)


def _add_tokens(measured: list[measures.Measures], asked: list[str], tokenizer: BertTokenizer) -> None:
    for start in range(0, len(asked), _BATCH):
        ids = tokenizer.tokenize(asked[start : start + _BATCH]).to_list()
        for one, row in zip(measured[start:], ids, strict=False):
            one[measures.TOKENS] = [tokenizer.vocab[number] for number in row]


def _statistics(store: Store, uri: str, gate: str, version: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    artifact = store.artifact(uri)
    ran = [found for found in store.users(artifact, gate) if found.state == "ran"] if artifact else []
    made: list[Any] = store.outputs(ran[-1]).get("statistics_artifact", []) if ran else []
    splits = os.listdir(made[0].uri) if made and os.path.isdir(made[0].uri) else []
    names = [name.removeprefix("Split-") for name in splits if name.startswith("Split-")]
    if not names:
        raise InputError(
            f"version {version}: the statistics that {gate} takes of what is trained on must be there. Received: none, "
            "as of runs that were before it did, or were removed by `bert clean`"
        )
    newest = max(names, key=lambda name: int(name.rpartition("-")[2]) if "-" in name else 0)
    return statistics.load(statistics.place(made[0].uri, newest))


def bounds_of(stated: Sequence[str]) -> DataBounds:
    """BOUNDS with those that are stated as `name=value`. Raises InputError."""
    given: dict[str, Any] = {}
    for text in stated:
        name, _, value = text.partition("=")
        try:
            given[name] = float(value)
        except ValueError:
            raise InputError(f"a bound is stated as name=number, words=0.5. Received: {text!r}") from None
    return values.build(DataBounds, dataclasses.asdict(BOUNDS) | given, "bounds")
