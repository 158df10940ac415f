"""keras-hub's `BertBackbone`: a preset folder (as `save_to_preset` writes and `from_preset` reads) or a `.keras` file.

BertBackbone has no pretraining heads, one dropout rate, and GELU by the tanh approximation only. A preset written here
carries the rest in two more files, which keras-hub ignores: `encoder.json` (all settings) and `heads.safetensors`. Of
keras-hub's own models with heads, that of BertMaskedLM is read.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import h5py
import keras
import numpy as np

from model.checkpoints.comparing import difference, random_inputs
from model.checkpoints.configs import read_json, settings_in, write_json
from model.checkpoints.names import Checkpoint, arrays_of, without
from model.checkpoints.tensor_files import read_safetensors, write_safetensors
from model.checkpoints.tokenizer_files import CheckpointTokenizer
from model.checkpoints.vocabularies import VOCAB, tokenizer_of
from model.encoder import BertEncoder, heads
from model.settings import EncoderSettings
from preprocessing.errors import InputError
from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS, SPECIAL_TOKENS
from preprocessing.vocab_file import infer_lower_case

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.weights.h5", "tokenizer.json"
ASSETS = pathlib.Path("assets/tokenizer/vocabulary.txt")
SETTINGS, HEADS = "encoder.json", "heads.safetensors"
TASK, TASK_WEIGHTS = "task.json", "task.weights.h5"  # a preset with a head
MASKED_LM_PLACES = dict(
    zip(
        (array.google for array in heads.MASKED_LM.arrays),
        (*(f"_intermediate_{part}/vars/{i}" for part in ("dense", "layer_norm") for i in range(2)), "vars/0"),
        strict=True,
    )
)


def is_preset(path: pathlib.Path) -> bool:
    return (path / WEIGHTS).is_file() and (path / CONFIG).is_file()


def variables(backbone) -> Iterator[tuple[str, keras.Variable, tuple[int, ...] | None]]:
    """(google's name, variable, shape of google's array where it differs in rank) of a BertBackbone's weights."""
    hidden = backbone.hidden_dim
    yield "bert/embeddings/word_embeddings", backbone.token_embedding.embeddings, None
    yield "bert/embeddings/token_type_embeddings", backbone.segment_embedding.embeddings, None
    yield "bert/embeddings/position_embeddings", backbone.position_embedding.position_embeddings, None
    yield "bert/embeddings/LayerNorm/gamma", backbone.embeddings_layer_norm.gamma, None
    yield "bert/embeddings/LayerNorm/beta", backbone.embeddings_layer_norm.beta, None
    for i, layer in enumerate(backbone.transformer_layers):
        name, attention = f"bert/encoder/layer_{i}", layer._self_attention_layer
        for part, dense in (
            ("self/query", attention.query_dense),  # kernels [H, N, D], biases [N, D]
            ("self/key", attention.key_dense),
            ("self/value", attention.value_dense),
            ("output/dense", attention.output_dense),  # kernel [N, D, H]
        ):
            yield f"{name}/attention/{part}/kernel", dense.kernel, (hidden, hidden)
            yield f"{name}/attention/{part}/bias", dense.bias, (hidden,)
        yield f"{name}/attention/output/LayerNorm/gamma", layer._self_attention_layer_norm.gamma, None
        yield f"{name}/attention/output/LayerNorm/beta", layer._self_attention_layer_norm.beta, None
        yield f"{name}/intermediate/dense/kernel", layer._feedforward_intermediate_dense.kernel, None
        yield f"{name}/intermediate/dense/bias", layer._feedforward_intermediate_dense.bias, None
        yield f"{name}/output/dense/kernel", layer._feedforward_output_dense.kernel, None
        yield f"{name}/output/dense/bias", layer._feedforward_output_dense.bias, None
        yield f"{name}/output/LayerNorm/gamma", layer._feedforward_layer_norm.gamma, None
        yield f"{name}/output/LayerNorm/beta", layer._feedforward_layer_norm.beta, None
    yield "bert/pooler/dense/kernel", backbone.pooled_dense.kernel, None
    yield "bert/pooler/dense/bias", backbone.pooled_dense.bias, None


def load_backbone(path: pathlib.Path):
    """The keras_nlp.models.BertBackbone of a preset folder or `.keras` file."""
    import keras_nlp  # takes seconds; registers the class that the files name

    try:
        if path.is_dir():
            backbone = keras_nlp.models.Backbone.from_preset(str(path.resolve()))  # else a built-in name
        else:
            backbone = keras.saving.load_model(path, compile=False)
    except Exception as error:  # what Keras raises for a damaged file depends on the damage
        of = f" ({CONFIG}, {WEIGHTS})" if path.is_dir() else ""
        raise InputError(f"{path}: not a readable keras-hub model{of}: {error}".splitlines()[0]) from error
    if not isinstance(backbone, keras_nlp.models.BertBackbone):
        raise InputError(f"{path}: must hold a BertBackbone. Received: {type(backbone).__name__}")
    return backbone


def read(path: pathlib.Path, ignore: Sequence[str] = ()) -> Checkpoint:
    backbone = load_backbone(path)
    settings = EncoderSettings(
        vocab_size=backbone.vocabulary_size,
        hidden_size=backbone.hidden_dim,
        num_layers=backbone.num_layers,
        num_heads=backbone.num_heads,
        intermediate_size=backbone.intermediate_dim,
        max_positions=backbone.max_sequence_length,
        type_vocab_size=backbone.num_segments,
        dropout=backbone.dropout,
        attention_dropout=backbone.dropout,
    )
    arrays = {
        name: np.reshape(variable.numpy(), shape or variable.shape) for name, variable, shape in variables(backbone)
    }
    told: list[str] = []
    if path.is_dir():
        if (path / SETTINGS).is_file():
            settings = settings_in(path / SETTINGS)
        if (path / HEADS).is_file():
            arrays |= read_safetensors(path / HEADS)
        elif (path / TASK).is_file():
            arrays |= _task_head(path, told)
    return Checkpoint(path, settings, without(arrays, ignore), told)


def _task_head(path: pathlib.Path, told: list[str]) -> dict[str, np.ndarray]:
    """The masked-token head of a BertMaskedLM by google's names; heads of other tasks are told."""
    kind = read_json(path / TASK).get("class_name")
    if kind != "BertMaskedLM":
        told.append(f"{path / TASK}: a {kind}, of which the backbone is read, and not its head")
        return {}
    try:
        with h5py.File(path / TASK_WEIGHTS) as file:
            head = file["layers/masked_lm_head"]
            found = {name: np.asarray(head[place]) for name, place in MASKED_LM_PLACES.items()}
    except (OSError, KeyError) as error:
        raise InputError(f"{path / TASK_WEIGHTS}: not readable as a BertMaskedLM's: {error}") from error
    told.append(
        f"{path / TASK}: its head computes GELU exactly, and LayerNorm with epsilon 1e-05; here both are the encoder's"
    )
    return found


def vocab_file(path: pathlib.Path) -> pathlib.Path | None:
    candidates = (path / ASSETS, path / VOCAB) if path.is_dir() else (path.parent / VOCAB,)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def tokenizer(path: pathlib.Path) -> CheckpointTokenizer:
    config = read_json(path / TOKENIZER).get("config") if (path / TOKENIZER).is_file() else None
    return tokenizer_of(vocab_file(path), config.get("lowercase") if isinstance(config, dict) else None, {})


def write(encoder: BertEncoder, folder: pathlib.Path, tokenizer: CheckpointTokenizer) -> None:
    """Writes a preset folder; with a vocabulary, also keras-hub's BertTokenizer."""
    vocab = tokenizer.tokens
    if vocab is not None and len(set(vocab)) < len(vocab):
        twice = next(token for token in vocab if vocab.count(token) > 1)
        raise InputError(f"keras-hub's tokenizer takes no token twice. Received: {twice!r}; convert to another format")
    if vocab is not None and tokenizer.added:
        raise InputError(f"keras-hub's tokenizer has no added tokens. Received: {', '.join(tokenizer.added)}")
    if vocab is not None and not set(SPECIAL_TOKENS) <= set(vocab):
        missing = ", ".join(token for token in SPECIAL_TOKENS if token not in vocab)
        raise InputError(f"keras-hub's tokenizer needs all special tokens; the vocabulary has no {missing}")
    import keras_nlp

    settings = encoder.settings
    backbone = keras_nlp.models.BertBackbone(
        vocabulary_size=settings.vocab_size,
        num_layers=settings.num_layers,
        num_heads=settings.num_heads,
        hidden_dim=settings.hidden_size,
        intermediate_dim=settings.intermediate_size,
        dropout=settings.dropout,
        max_sequence_length=settings.max_positions,
        num_segments=settings.type_vocab_size,
        dtype="float32",
    )
    arrays = arrays_of(encoder)
    for name, variable, _ in variables(backbone):
        variable.assign(np.reshape(arrays[name], variable.shape))
    folder.mkdir(parents=True, exist_ok=True)
    backbone.save_to_preset(str(folder))
    if vocab is not None:
        lowercase = infer_lower_case(vocab) if tokenizer.lower_case is None else tokenizer.lower_case
        keras_nlp.models.BertTokenizer(list(vocab), lowercase=lowercase).save_to_preset(str(folder))
    of_heads = {name: arrays[name] for head in encoder.described_heads for name in head.shapes(settings)}
    if of_heads:
        write_safetensors(folder / HEADS, of_heads)
    write_json(folder / SETTINGS, dataclasses.asdict(settings))


def backbone_difference(encoder: BertEncoder, folder: pathlib.Path) -> float:
    """The largest difference between the encoder's outputs and those that keras-hub's own layers give for a preset."""
    inputs = random_inputs(encoder.settings)
    ours = encoder(inputs)
    theirs = load_backbone(folder)(
        {"token_ids": inputs[INPUT_IDS], "padding_mask": inputs[INPUT_MASK], "segment_ids": inputs[SEGMENT_IDS]}
    )
    return max(difference(np.asarray(ours[name]), np.asarray(theirs[name])) for name in ours)
