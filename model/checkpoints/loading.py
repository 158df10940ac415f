"""Loading and saving: the format is recognised, the heads are those that the checkpoint has."""

import contextlib
import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from model.checkpoints import google, huggingface, keras_hub, ours, sentence_transformers, vocabularies
from model.checkpoints import names as array_names
from model.checkpoints.names import ENCODER, POOLER, Checkpoint
from model.checkpoints.sentence_transformers import Sentences
from model.checkpoints.tokenizer_files import CheckpointTokenizer
from model.encoder import BertEncoder
from model.encoder.heads import Head, chosen
from model.settings import CheckpointFormat
from preprocessing.errors import InputError

# Each has `read`, `write`, `vocab_file` and `tokenizer`.
_MODULES: dict[CheckpointFormat, Any] = {
    "google": google,
    "huggingface": huggingface,
    "keras-hub": keras_hub,
    "ours": ours,
}
FORMATS = tuple(_MODULES)
# Files of weights in forms that are not read: what they are, and the way out.
_FROM = (
    "load it with transformers 4, and save it: BertForPreTraining.from_pretrained(FOLDER, {}=True).save_pretrained(OUT)"
)
_OTHERS = {
    "tf_model.h5": f"Hugging Face's weights for TensorFlow; {_FROM.format('from_tf')}",
    "flax_model.msgpack": f"Hugging Face's weights for Flax; {_FROM.format('from_flax')}",
    "model.onnx": "an ONNX graph, made to be run only; take the checkpoint that it was made of",
    "saved_model.pb": "a SavedModel, made to be served; take the checkpoint that it was made of",
}
PathLike = str | os.PathLike
Vocab = PathLike | Sequence[str] | CheckpointTokenizer | None

log = logging.getLogger(__name__)


def recognise(path: PathLike) -> CheckpointFormat:
    """The format of the checkpoint at `path` (a folder, a file of it, or google's prefix)."""
    return _locate(pathlib.Path(path))[0]


def _locate(path: pathlib.Path) -> tuple[CheckpointFormat, pathlib.Path]:
    if path.suffix == ".keras" and path.is_file():
        return "keras-hub", path
    if path.is_dir():
        path = sentence_transformers.transformer_in(path)
        if ours.is_folder(path):
            return "ours", path
        if keras_hub.is_preset(path):
            return "keras-hub", path
        if huggingface.is_folder(path):
            return "huggingface", path
    prefix = google.find_prefix(path)
    if prefix is not None:
        return "google", prefix
    if path.is_file():
        return _locate(path.parent)
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint")
    for name, what in _OTHERS.items():
        if (path / name).exists():
            raise InputError(f"{path / name}: {what}")
    for graph in sorted(path.glob("*/[0-9]*/saved_model.pb")):  # as `bert export --output` leaves them
        raise InputError(f"{path}: not a checkpoint, but a folder with an exported model: name {graph.parents[1]}")
    raise InputError(
        f"{path}: not a checkpoint: no *.index (google), no config.json with model.safetensors or pytorch_model.bin "
        "(Hugging Face, ours) or model.weights.h5 (keras-hub)"
    )


def read(path: PathLike, ignore: Sequence[str] = ()) -> Checkpoint:
    """The checkpoint's settings and arrays (but those to `ignore`), not yet checked against each other."""
    kind, place = _locate(pathlib.Path(path))
    with _reading(place):
        return _MODULES[kind].read(place, ignore)


@contextlib.contextmanager
def _reading(place: pathlib.Path) -> Iterator[None]:
    """Turns what a file cannot do in the block into InputError: be missing, be a folder, be forbidden."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or place}: cannot be read: {error.strerror or error}") from error


def load(
    path: PathLike,
    heads: Sequence[str | Head] | None = None,
    dtype: str | None = None,
    ignore: Sequence[str] = (),
    report: Callable[[str], None] = log.warning,
) -> BertEncoder:
    """An encoder with the checkpoint's weights.

    Args:
        path: a folder, one of its files, or google's prefix; the format is recognised.
        heads: the heads wanted, or their names; those of the checkpoint by default. A wanted head (or a pooler) that
            the checkpoint lacks is initialised, and `report` is told so.
        dtype: Keras's dtype policy, for example "mixed_bfloat16".
        ignore: patterns (`classifier.*`) of arrays to leave out, by the names that the checkpoint gives them.

    Raises InputError, which names the arrays, for missing, unexpected or misshapen ones and for unreadable files.
    """
    return build(read(path, ignore), heads, dtype, report)


def build(
    checkpoint: Checkpoint,
    heads: Sequence[str | Head] | None = None,
    dtype: str | None = None,
    report: Callable[[str], None] = log.warning,
) -> BertEncoder:
    """`load` of a checkpoint that has been read."""
    present = _check(checkpoint)
    wanted = chosen(checkpoint.described_heads if heads is None else heads, checkpoint.described_heads)
    encoder = BertEncoder(checkpoint.settings, wanted, dtype=dtype)
    array_names.assign(encoder, checkpoint.arrays)
    for line in checkpoint.dropped:
        report(line)
    odd = [name for name, array in checkpoint.arrays.items() if not np.isfinite(array).all()]
    if odd:
        report(f"{checkpoint.source}: {len(odd)} arrays hold values that are not finite: {_some(odd)}")
    absent = [part for part in (POOLER, *encoder.heads) if part not in present]
    if absent:
        report(f"{checkpoint.source}: has no {', no '.join(absent)}: initialised at random")
    return encoder


def _check(checkpoint: Checkpoint) -> set[str]:
    """The parts that are wholly there. Raises InputError for anything else that is not as the settings say."""
    source, arrays = checkpoint.source, checkpoint.arrays
    expected = array_names.shapes(checkpoint.settings, checkpoint.described_heads)
    unexpected = sorted(set(arrays) - set(expected))
    if unexpected:
        raise InputError(
            f"{source}: {len(unexpected)} unexpected arrays: {_some(unexpected)}. Ignore them by pattern, "
            f"or correct the configuration ({checkpoint.settings.num_layers} layers)"
        )
    misshapen = [
        f"{name} must be {list(expected[name])}, received {list(array.shape)}"
        for name, array in arrays.items()
        if tuple(array.shape) != expected[name]
    ]
    if misshapen:
        raise InputError(f"{source}: {len(misshapen)} misshapen arrays: {_some(misshapen)}")
    present = set()
    for part in (ENCODER, POOLER, *(head.name for head in checkpoint.described_heads)):
        names = [name for name in expected if array_names.part_of(name) == part]
        missing = [name for name in names if name not in arrays]
        if missing and (part == ENCODER or len(missing) < len(names)):
            raise InputError(f"{source}: {len(missing)} of the {part}'s arrays are missing: {_some(missing)}")
        if not missing:
            present.add(part)
    return present


def _some(items: Sequence[str], count: int = 5) -> str:
    return ", ".join(items[:count]) + (f" and {len(items) - count} more" if len(items) > count else "")


def vocab_file(path: PathLike) -> pathlib.Path | None:
    """The vocab.txt of the checkpoint at `path`, or None."""
    kind, place = _locate(pathlib.Path(path))
    return _MODULES[kind].vocab_file(place)


def tokenizer(path: PathLike) -> CheckpointTokenizer:
    """What the checkpoint says of its tokenizer. Raises InputError for files that cannot be read."""
    kind, place = _locate(pathlib.Path(path))
    with _reading(place):
        return _MODULES[kind].tokenizer(place)


def folder(path: PathLike) -> pathlib.Path:
    """Where the checkpoint's files are."""
    _, place = _locate(pathlib.Path(path))
    return place if place.is_dir() else place.parent


def sentences(path: PathLike) -> Sentences | None:
    """How the checkpoint makes one vector of a text, if it is a folder of sentence-transformers."""
    place = pathlib.Path(path)
    return sentence_transformers.read(place if place.is_dir() else place.parent)


def write_sentences(folder: PathLike, encoder: BertEncoder, source: PathLike) -> Sequence[str]:
    """Writes beside a checkpoint, of `encoder`, how that at `source` makes one vector of a text, if it says so. Returns
    what of it is left out, in lines."""
    said = sentences(source)
    if said is None:
        return ()
    if said.whole:
        sentence_transformers.write(pathlib.Path(folder), said, encoder.settings.hidden_size)
    return said.unlike


def lower_case(path: PathLike) -> bool | None:
    """Whether the checkpoint's text is lower-cased: as its configuration says, else by its vocabulary, else None."""
    return tokenizer(path).lower_case


def save(encoder: BertEncoder, folder: PathLike, vocab: Vocab = None, lower_case: bool | None = None) -> None:
    """Writes our format.

    Args:
        vocab: the vocabulary to put beside it: a file, or the tokens; or all that `tokenizer` found.
        lower_case: whether its text is lower-cased; a reader goes by the vocabulary if None.
    """
    save_as("ours", encoder, folder, vocab, lower_case)


def save_huggingface(
    encoder: BertEncoder, folder: PathLike, vocab: Vocab = None, lower_case: bool | None = None
) -> None:
    """Writes what transformers' `from_pretrained` loads."""
    save_as("huggingface", encoder, folder, vocab, lower_case)


def save_google(encoder: BertEncoder, prefix: PathLike, vocab: Vocab = None, lower_case: bool | None = None) -> None:
    """Writes google's TF1 checkpoint `prefix.*` and, beside it, bert_config.json and vocab.txt."""
    google.write(encoder, pathlib.Path(prefix), _tokenizer(encoder, vocab, lower_case))


def save_as(
    kind: CheckpointFormat, encoder: BertEncoder, folder: PathLike, vocab: Vocab = None, lower_case: bool | None = None
) -> None:
    """Writes a checkpoint of the given format into `folder`."""
    place = pathlib.Path(folder) / google.PREFIX if kind == "google" else pathlib.Path(folder)
    _MODULES[kind].write(encoder, place, _tokenizer(encoder, vocab, lower_case))


def _tokenizer(encoder: BertEncoder, vocab: Vocab, lower_case: bool | None) -> CheckpointTokenizer:
    found = vocab if isinstance(vocab, CheckpointTokenizer) else CheckpointTokenizer(None, lower_case)
    tokens = found.tokens if isinstance(vocab, CheckpointTokenizer) else vocab
    return dataclasses.replace(found, tokens=vocabularies.tokens_of(tokens, encoder.settings.vocab_size))
