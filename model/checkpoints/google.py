"""google-research/bert's TF1 checkpoints: `bert_model.ckpt.{index,data-*}`, `bert_config.json`, `vocab.txt`.

`bert_config.json` gets keys that google's code ignores, each only where it says something: `exact_gelu` (google knows
the tanh approximation only), `layer_norm_eps`, `do_lower_case`, and what else there is to say of the tokenizer.
"""

import pathlib
import re
from collections.abc import Sequence

import tensorflow as tf

from model.checkpoints import foreign_names
from model.checkpoints.configs import config_of, read_json, settings_from, write_json
from model.checkpoints.names import Checkpoint, arrays_of, shapes, without
from model.checkpoints.tokenizer_files import CheckpointTokenizer
from model.checkpoints.vocabularies import tokenizer_of, vocab_in, write_vocab
from model.encoder import BertEncoder, heads
from preprocessing import storage
from preprocessing.errors import InputError

CONFIG = "bert_config.json"
PREFIX = "bert_model.ckpt"
DEFAULT_EPSILON = 1e-12
LANDMARK = "bert/embeddings/word_embeddings"
OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"


def find_prefix(path: pathlib.Path) -> pathlib.Path | None:
    """The checkpoint that `path` names: a prefix, one of its files, or a folder that holds one; None if none is there.

    In a folder, `bert_model.ckpt` comes first, then what its `checkpoint` file names, then the only one there is.
    """
    if path.is_dir():
        prefixes = sorted(index.with_suffix("") for index in path.glob("*.index"))
        if path / PREFIX in prefixes:
            return path / PREFIX
        latest = _latest(path)
        if latest in prefixes:
            return latest
        if len(prefixes) > 1:
            raise InputError(f"{path}: several checkpoints; name one of: {', '.join(p.name for p in prefixes)}")
        return prefixes[0] if prefixes else None
    prefix = pathlib.Path(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", str(path)))
    return prefix if pathlib.Path(f"{prefix}.index").is_file() else None


def _latest(folder: pathlib.Path) -> pathlib.Path | None:
    """What the folder's `checkpoint` file names, in this folder: a copied one names the place it was trained in."""
    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except UnicodeDecodeError as error:
        raise InputError(f"{folder / 'checkpoint'}: must be UTF-8 text: {error}") from error
    return folder / pathlib.Path(state.model_checkpoint_path).name if state else None


def read(prefix: pathlib.Path, ignore: Sequence[str] = ()) -> Checkpoint:
    config_path = prefix.parent / CONFIG
    if not config_path.is_file():
        raise InputError(f"{config_path}: missing; a google checkpoint needs it beside {prefix.name}")
    config = read_json(config_path)
    if config.get("hidden_act", "gelu") != "gelu":
        raise InputError(f'{config_path}: hidden_act must be "gelu". Received: {config["hidden_act"]!r}')
    settings = settings_from(config_path, config, "gelu" if config.get("exact_gelu") else "gelu_tanh")
    try:
        _holder, loaded_from = storage.without_glob(str(prefix))
        reader = tf.train.load_checkpoint(loaded_from)
        stored = reader.get_variable_to_shape_map()
        known = shapes(settings, heads.ALL_HEADS)
        names, told = foreign_names.weights_among(prefix, without(stored, ignore), known)
        arrays = {name: reader.get_tensor(name) for name in names if OBJECTS not in stored}
    except (tf.errors.OpError, RuntimeError, LookupError) as error:  # an IndexError where the data are cut
        raise InputError(f"{prefix}: not a readable TensorFlow checkpoint: {error}") from error
    if OBJECTS in stored:
        raise InputError(
            f"{prefix}: an object checkpoint of TensorFlow 2, as Model Garden writes it; its arrays have no names but "
            "places in the objects of the code that wrote it. Restore it there, and save the model as a TF1 checkpoint "
            "or for Hugging Face"
        )
    wrapper = foreign_names.prefix_of(prefix, names.values(), LANDMARK)
    weights = {names[name].removeprefix(wrapper): array for name, array in arrays.items()}
    return Checkpoint(prefix, settings, without(weights, ignore), [*told, *foreign_names.told_prefix(prefix, wrapper)])


def vocab_file(prefix: pathlib.Path) -> pathlib.Path | None:
    return vocab_in(prefix.parent)


def tokenizer(prefix: pathlib.Path) -> CheckpointTokenizer:
    path = prefix.parent / CONFIG
    config = read_json(path) if path.is_file() else {}
    return tokenizer_of(vocab_file(prefix), config.get("do_lower_case"), config)


def write(encoder: BertEncoder, prefix: pathlib.Path, tokenizer: CheckpointTokenizer) -> None:
    """Writes `prefix.*` and bert_config.json beside it. The files are what TF1's Saver writes (format V2)."""
    settings = encoder.settings
    prefix.parent.mkdir(parents=True, exist_ok=True)
    arrays = arrays_of(encoder)
    names = [name for name in shapes(settings, encoder.described_heads) if name in arrays]
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(arrays[name]) for name in names],
    )
    config = config_of(settings) | {"hidden_act": "gelu"}
    if settings.activation == "gelu":
        config["exact_gelu"] = True
    if settings.layer_norm_epsilon == DEFAULT_EPSILON:
        del config["layer_norm_eps"]
    if tokenizer.lower_case is not None:
        config["do_lower_case"] = tokenizer.lower_case
    config |= tokenizer.stated()
    write_vocab(prefix.parent, tokenizer.tokens)
    write_json(prefix.parent / CONFIG, config)
