"""Our own format, a folder: `config.json` (`"format": "bert-pipeline"`, the EncoderSettings, the tokenizer's rules),
`model.safetensors` (float32, by google's names) and `vocab.txt`.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from model.checkpoints.configs import read_json, settings_in, write_json
from model.checkpoints.names import Checkpoint, arrays_of, without
from model.checkpoints.tensor_files import read_safetensors, write_safetensors
from model.checkpoints.tokenizer_files import CheckpointTokenizer
from model.checkpoints.vocabularies import tokenizer_of, vocab_in, write_vocab
from model.encoder import BertEncoder
from preprocessing.errors import InputError

FORMAT, VERSION = "bert-pipeline", 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def is_folder(path: pathlib.Path) -> bool:
    return (path / CONFIG).is_file() and read_json(path / CONFIG).get("format") == FORMAT


def read(folder: pathlib.Path, ignore: Sequence[str] = ()) -> Checkpoint:
    version = read_json(folder / CONFIG).get("version")
    if version != VERSION:
        raise InputError(f"{folder / CONFIG}: version must be {VERSION}. Received: {version!r}")
    return Checkpoint(folder, settings_in(folder / CONFIG), without(read_safetensors(folder / WEIGHTS), ignore))


vocab_file = vocab_in


def tokenizer(folder: pathlib.Path) -> CheckpointTokenizer:
    config = read_json(folder / CONFIG)
    return tokenizer_of(vocab_file(folder), config.get("lower_case"), config)


def write(encoder: BertEncoder, folder: pathlib.Path, tokenizer: CheckpointTokenizer) -> None:
    """Weights first and config.json last, each under a temporary name until it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_vocab(folder, tokenizer.tokens)
    write_safetensors(folder / WEIGHTS, arrays_of(encoder))
    config = {
        "format": FORMAT,
        "version": VERSION,
        "lower_case": tokenizer.lower_case,
        **tokenizer.stated(),
        "encoder": dataclasses.asdict(encoder.settings),
    }
    write_json(folder / CONFIG, config)
