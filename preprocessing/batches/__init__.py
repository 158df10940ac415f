"""Example files -> batches of tensors."""

from preprocessing.batches.stream import Batch, Examples, Transform, by_length, open_examples

__all__ = ["Batch", "Examples", "Transform", "by_length", "open_examples"]
