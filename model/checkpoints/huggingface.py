"""Hugging Face folders: `config.json`, `model.safetensors` (or shards, or `pytorch_model.bin`), `vocab.txt`,
`tokenizer_config.json`.

Read: old names (`gamma`, `beta`), a missing `bert.` prefix, `position_ids`, aliases of tied tensors.
Written: what `BertForPreTraining` and its relatives load without a missing or unexpected key. (The one exception: a
model with a head over tokens alone keeps its pooler, which `BertForMaskedLM` and others report as unexpected and drop.)
"""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from model.checkpoints import foreign_names, tensor_files
from model.checkpoints.configs import config_of, read_json, settings_from, write_json
from model.checkpoints.huggingface_tokenizer import CONFIG, TOKENIZER_CONFIG, read_tokenizer
from model.checkpoints.names import Checkpoint, arrays_of, shapes, without
from model.checkpoints.tokenizer_files import CheckpointTokenizer
from model.checkpoints.vocabularies import vocab_in, write_vocab
from model.encoder import BertEncoder, heads
from model.settings import EncoderSettings
from preprocessing.errors import InputError, require
from preprocessing.vocab_file import ids

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"
LANDMARK = "embeddings.word_embeddings.weight"
READERS = {SAFETENSORS: tensor_files.read_safetensors, PICKLE: tensor_files.read_torch_pickle}
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
# Those of a head alone are the head's; others are not known to Hugging Face.
ARCHITECTURES = {tuple(head.name for head in heads.PRETRAINING): "BertForPreTraining", (): "BertModel"}


def is_folder(path: pathlib.Path) -> bool:
    return (path / CONFIG).is_file() and any(
        (path / f"{name}{ending}").is_file() for name in READERS for ending in ("", INDEX)
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


def read(folder: pathlib.Path, ignore: Sequence[str] = ()) -> Checkpoint:
    config = read_json(folder / CONFIG)
    settings = _settings(folder / CONFIG, config)
    tensors = without(_tensors(folder), ignore)
    prefix = foreign_names.prefix_of(folder, tensors, LANDMARK, "bert.")
    tensors = {modern_name(name.removeprefix(prefix)): array for name, array in tensors.items()}
    tensors = {name: array for name, array in tensors.items() if not name.endswith(".position_ids")}
    _drop_aliases(folder, tensors)
    google_names = _google_names(settings, config.get("architectures"))
    arrays = {}
    for name, array in tensors.items():
        google_name = google_names.get(name, name)  # an unknown one keeps its name, to be refused by it
        arrays[google_name] = array.T if _transposed(google_name) else array
    told = [*foreign_names.told_prefix(folder, prefix), *read_tokenizer(folder).unlike]
    return Checkpoint(folder, settings, without(arrays, ignore), told)


def _google_names(settings: EncoderSettings, architectures: object) -> dict[str, str]:
    """Hugging Face's name -> google's. Heads may be spelled alike there; then the config's own one counts, or the first
    where it names none."""
    names = {huggingface_name(name): name for name in shapes(settings, ())}
    stated = architectures if isinstance(architectures, list) else []
    for head in reversed(heads.ALL_HEADS):
        shared = any(array.huggingface for array in head.arrays)  # names that another head may have
        if head.architecture in stated or not (shared and stated):
            names |= {theirs: google for google, theirs in _head_names(head).items()}
    return names


def _head_names(head: heads.Head) -> dict[str, str]:
    """Google's name -> Hugging Face's, of a head's arrays."""
    return {array.google: array.huggingface or huggingface_name(array.google) for array in head.arrays}


vocab_file = vocab_in


tokenizer = read_tokenizer


def _settings(path: pathlib.Path, config: Mapping) -> EncoderSettings:
    for key, wanted in (("model_type", "bert"), ("position_embedding_type", "absolute"), ("is_decoder", False)):
        if (config.get(key) if config.get(key) is not None else wanted) != wanted:
            raise InputError(f"{path}: {key} must be {json.dumps(wanted)}. Received: {config[key]!r}")
    activation = config.get("hidden_act", "gelu")
    if activation not in list(ACTIVATIONS):
        raise InputError(f"{path}: hidden_act must be one of {', '.join(ACTIVATIONS)}. Received: {activation!r}")
    return settings_from(path, config, ACTIVATIONS[activation])


def _tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
    for name, read_file in READERS.items():
        if (folder / name).is_file():
            return read_file(folder / name)
        index = folder / f"{name}{INDEX}"
        if index.is_file():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict):
                raise InputError(f"{index}: weight_map must be a JSON object. Received: {shards!r}")
            tensors: dict[str, np.ndarray] = {}
            for shard in sorted({pathlib.Path(str(name)).name for name in shards.values()}):
                require((folder / shard).is_file(), f"{index}: every shard must be in the folder", shard)
                tensors |= read_file(folder / shard)
            return tensors
    raise InputError(f"{folder}: has no {' or '.join(READERS)}")


def _drop_aliases(folder: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    """Removes the decoder's second names for the tied word embedding and the output bias, once they agree."""
    for alias, name in ALIASES.items():
        if alias in tensors:
            if not np.array_equal(tensors.setdefault(name, tensors[alias]), tensors[alias]):
                raise InputError(f"{folder}: {alias} must equal {name} (tied); ignore it to use the embedding")
            del tensors[alias]


def write(encoder: BertEncoder, folder: pathlib.Path, tokenizer: CheckpointTokenizer) -> None:
    settings = encoder.settings
    architecture = _architecture(encoder.described_heads)
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "" if encoder.heads else "bert."  # BertModel's own keys have no prefix
    names = {google: theirs for head in encoder.described_heads for google, theirs in _head_names(head).items()}
    tensors = {
        names.get(name, huggingface_name(name)).removeprefix(prefix): np.ascontiguousarray(
            array.T if _transposed(name) else array
        )
        for name, array in arrays_of(encoder).items()
    }
    tensor_files.write_safetensors(folder / SAFETENSORS, tensors)
    config = config_of(settings) | {
        "model_type": "bert",
        "architectures": [architecture],
        "hidden_act": "gelu" if settings.activation == "gelu" else "gelu_pytorch_tanh",
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
    labels = max((head.labels or 0 for head in encoder.described_heads), default=0)
    if labels:
        config["id2label"] = {str(label): f"LABEL_{label}" for label in range(labels)}
    rules: dict = {"tokenizer_class": "BertTokenizer", "model_max_length": settings.max_positions}
    if tokenizer.lower_case is not None:
        rules["do_lower_case"] = tokenizer.lower_case
    if tokenizer.tokens and tokenizer.added:
        numbers = ids(tokenizer.tokens)
        usual = dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
        rules["added_tokens_decoder"] = {
            str(numbers[token]): {"content": token, "normalized": not exact, "special": exact, **usual}
            for token, exact in tokenizer.added.items()
        }
    write_vocab(folder, tokenizer.tokens)
    write_json(folder / TOKENIZER_CONFIG, rules)
    write_json(folder / CONFIG, config)


def _architecture(described_heads: Sequence[heads.Head]) -> str:
    names = tuple(head.name for head in described_heads)
    known = ARCHITECTURES | {(head.name,): head.architecture for head in described_heads}
    require(names in known, "Hugging Face must have a model with these heads; convert to ours", names)
    return known[names]
