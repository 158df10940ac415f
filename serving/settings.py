"""What an exported model can do and how it is stored. Frozen, validated; written into the export."""

import dataclasses
from typing import Literal

from preprocessing.errors import require, require_one_of

Pooling = Literal["mean", "cls", "max", "pooler"]
Precision = Literal["float32", "bfloat16"]
Storage = Literal["float32", "bfloat16", "int8"]


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """How a checkpoint becomes a SavedModel."""

    max_seq_length: int = (
        512  # tokens with [CLS] and [SEP]; longer texts are cut. Never more than the model's positions
    )
    # A batch is padded to the smallest of these that holds its longest text (max_seq_length is always one of them).
    # Few, so that a server soon has met them all.
    lengths: tuple[int, ...] = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    # Of the last layer: the mean or the greatest over the real tokens, or the first one, [CLS]; or the pooler's output.
    embedding: Pooling = "mean"
    unit_length: bool = False  # whether embeddings are divided by their Euclidean length
    top_k: int = 10  # candidates per [MASK]
    max_predictions: int = 20  # [MASK]s answered per text; bounds the memory one request can ask for
    # How matrices are stored. Those of int8 are multiplied as int8, too, and `compute` says how the rest is.
    weights: Storage = "float32"
    compute: Precision = "float32"  # how matrices are multiplied
    # Layers are cut into so many parts, or fewer, that a processor's cores work out side by side. For GPUs 1.
    parts: int = 2
    warmup_lengths: tuple[int, ...] = (16, 32, 64, 128)  # of the warm-up records
    warmup_batches: tuple[int, ...] = (1, 8)

    def __post_init__(self):
        require(self.max_seq_length >= 8, "max_seq_length must be at least 8", self.max_seq_length)
        require(
            self.lengths == tuple(sorted(set(self.lengths))) and all(length >= 8 for length in self.lengths),
            "lengths must be ascending, each at least 8",
            self.lengths,
        )
        require_one_of(Pooling, "embedding", self.embedding)
        require(self.top_k > 0, "top_k must be positive", self.top_k)
        require(0 < self.parts <= 64, "parts must be from 1 to 64", self.parts)
        require(self.max_predictions > 0, "max_predictions must be positive", self.max_predictions)
        require_one_of(Storage, "weights", self.weights)
        require_one_of(Precision, "compute", self.compute)
        require(self.weights != "int8" or self.compute == "float32", "compute must be float32 with int8", self.compute)
        for name in ("warmup_lengths", "warmup_batches"):
            value = getattr(self, name)
            require(all(number > 0 for number in value), f"{name} must be positive", value)

    @property
    def rounds(self) -> bool:
        """Whether matrices are multiplied with fewer digits than float32 has."""
        return self.compute == "bfloat16" or self.weights == "int8"

    def padded_lengths(self, max_positions: int) -> tuple[int, ...]:
        """Ascending lengths that batches are padded to; the last is where texts are cut."""
        longest = min(self.max_seq_length, max_positions)
        return (*(length for length in self.lengths if length < longest), longest)
