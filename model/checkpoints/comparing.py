"""How far two models' outputs differ."""

import numpy as np

from model.encoder import BertEncoder
from model.settings import EncoderSettings
from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS


def random_inputs(settings: EncoderSettings) -> dict[str, np.ndarray]:
    """A batch of two examples of random ids and segments, the second padded."""
    random, length = np.random.default_rng(0), min(settings.max_positions, 32)
    return {
        INPUT_IDS: random.integers(settings.vocab_size, size=(2, length), dtype=np.int32),
        INPUT_MASK: (np.arange(length) < [[length], [length // 2 + 1]]).astype(np.int32),
        SEGMENT_IDS: random.integers(settings.type_vocab_size, size=(2, length), dtype=np.int32),
    }


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest absolute difference; infinite where one alone is not a number."""
    with np.errstate(invalid="ignore"):
        gaps = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
    return float(np.max(np.where(np.isnan(gaps), np.inf, gaps)))


def largest_difference(first: BertEncoder, second: BertEncoder) -> float:
    """The largest absolute difference of any output, heads included, on one batch of random ids."""
    inputs = random_inputs(first.settings)
    pairs = zip(_outputs(first, inputs), _outputs(second, inputs), strict=True)
    return max(difference(a, b) for a, b in pairs)


def _outputs(encoder: BertEncoder, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    outputs = encoder(inputs, hidden_states=True)
    tensors = [*outputs["hidden_states"], outputs["pooled_output"]]
    first = np.zeros((len(inputs[INPUT_IDS]), 1), np.int32)
    for head in encoder.described_heads:
        over = (outputs["sequence_output"], first) if head.over == "tokens" else (outputs["pooled_output"],)
        tensors.append(getattr(encoder, head.name)(*over))
    return [np.asarray(tensor, np.float32) for tensor in tensors]
