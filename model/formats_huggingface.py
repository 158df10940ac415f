"""Hugging Face folders: `config.json`, `model.safetensors` (or shards, or `pytorch_model.bin`), `vocab.txt`,
`tokenizer_config.json`.

Read: old names (`gamma`, `beta`), a missing `bert.` prefix, `position_ids`, aliases of tied tensors.
Written: what `BertForPreTraining` and its relatives load without a missing or unexpected key. (The one exception: a
model with the masked-token head alone keeps its pooler, which `BertForMaskedLM` reports as unexpected and drops.)
"""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from model import tensor_files
from model.encoder import BertEncoder
from model.formats import (
    Checkpoint,
    arrays_of,
    config_of,
    read_json,
    settings_from,
    shapes,
    stated_or_inferred,
    vocab_in,
    write_json,
    write_vocab,
)
from model.heads import MASKED_LM, NEXT_SENTENCE
from model.settings import EncoderSettings
from preprocessing.errors import InputError

CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
SAFETENSORS, SAFETENSORS_INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
ALIASES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
ARCHITECTURES = {
    (MASKED_LM, NEXT_SENTENCE): "BertForPreTraining",
    (MASKED_LM,): "BertForMaskedLM",
    (NEXT_SENTENCE,): "BertForNextSentencePrediction",
    (): "BertModel",
}


def is_folder(path: pathlib.Path) -> bool:
    return (path / CONFIG).is_file() and any(
        (path / name).is_file() for name in (SAFETENSORS, SAFETENSORS_INDEX, PICKLE)
    )


def huggingface_name(google_name: str) -> str:
    """`bert/encoder/layer_0/output/LayerNorm/gamma` -> `bert.encoder.layer.0.output.LayerNorm.weight`."""
    name = re.sub(r"/layer_(\d+)/", r"/layer/\1/", google_name)
    name = re.sub(r"_embeddings$", "_embeddings/weight", name)
    name = re.sub(r"/output_(weight|bias)s?$", r"/\1", name)
    name = re.sub(r"/(gamma|kernel)$", "/weight", name)
    name = re.sub(r"/beta$", "/bias", name)
    return name.replace("/", ".")


def modern_name(name: str) -> str:
    """Today's name of an array of an older file: LayerNorm's `gamma` and `beta`, no `bert.` prefix."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name


def _transposed(google_name: str) -> bool:
    return google_name.endswith("/kernel")


def read(folder: pathlib.Path) -> Checkpoint:
    config = read_json(folder / CONFIG)
    settings = _settings(folder / CONFIG, config)
    tensors = {modern_name(name): array for name, array in _tensors(folder).items()}
    tensors = {name: array for name, array in tensors.items() if not name.endswith(".position_ids")}
    _drop_aliases(folder, tensors)
    google_names = {huggingface_name(name): name for name in shapes(settings)}
    arrays = {}
    for name, array in tensors.items():
        google_name = google_names.get(name, name)  # an unknown one keeps its name, to be refused by it
        arrays[google_name] = array.T if _transposed(google_name) else array
    return Checkpoint(folder, settings, arrays)


vocab_file = vocab_in


def lower_case(folder: pathlib.Path) -> bool | None:
    path = folder / TOKENIZER_CONFIG
    return stated_or_inferred(read_json(path).get("do_lower_case") if path.is_file() else None, vocab_file(folder))


def _settings(path: pathlib.Path, config: Mapping) -> EncoderSettings:
    for key, wanted in (("model_type", "bert"), ("position_embedding_type", "absolute"), ("is_decoder", False)):
        if (config.get(key) if config.get(key) is not None else wanted) != wanted:
            raise InputError(f"{path}: {key} must be {json.dumps(wanted)}. Received: {config[key]!r}")
    activation = config.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise InputError(f"{path}: hidden_act must be one of {', '.join(ACTIVATIONS)}. Received: {activation!r}")
    epsilon = config.get("layer_norm_eps", 1e-12)
    return settings_from(path, config, activation=ACTIVATIONS[activation], layer_norm_epsilon=epsilon)


def _tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
    if (folder / SAFETENSORS).is_file():
        return tensor_files.read_safetensors(folder / SAFETENSORS)
    if (folder / SAFETENSORS_INDEX).is_file():
        index = read_json(folder / SAFETENSORS_INDEX)
        shards = sorted({pathlib.Path(str(name)).name for name in index.get("weight_map", {}).values()})
        return {
            name: array for shard in shards for name, array in tensor_files.read_safetensors(folder / shard).items()
        }
    return tensor_files.read_torch_pickle(folder / PICKLE)


def _drop_aliases(folder: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    """Removes the decoder's second names for the tied word embedding and the output bias, once they agree."""
    for alias, name in ALIASES.items():
        if alias in tensors:
            if not np.array_equal(tensors.setdefault(name, tensors[alias]), tensors[alias]):
                raise InputError(f"{folder}: {alias} must equal {name} (tied); this model's decoder is not tied")
            del tensors[alias]


def write(
    encoder: BertEncoder, folder: pathlib.Path, vocab: Sequence[str] | None = None, lower_case: bool | None = None
) -> None:
    settings = encoder.settings
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "" if encoder.heads else "bert."  # BertModel's own keys have no prefix
    tensors = {
        huggingface_name(name).removeprefix(prefix): np.ascontiguousarray(array.T if _transposed(name) else array)
        for name, array in arrays_of(encoder).items()
    }
    tensor_files.write_safetensors(folder / SAFETENSORS, tensors)
    config = config_of(settings) | {
        "model_type": "bert",
        "architectures": [ARCHITECTURES[encoder.heads]],
        "hidden_act": "gelu" if settings.activation == "gelu" else "gelu_pytorch_tanh",
        "layer_norm_eps": settings.layer_norm_epsilon,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
    tokenizer = {"tokenizer_class": "BertTokenizer", "model_max_length": settings.max_positions}
    if lower_case is not None:
        tokenizer["do_lower_case"] = lower_case
    write_vocab(folder, vocab)
    write_json(folder / TOKENIZER_CONFIG, tokenizer)
    write_json(folder / CONFIG, config)
