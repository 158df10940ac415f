"""Weights and inputs that the encoder's golden outputs are made from, on both sides: a function of a seed, NumPy only.

The names are google-research/bert's; this list is written out independently of `model`.
"""

import numpy as np

SIZES = {  # layers, hidden, heads, activation (Hugging Face's name)
    "tiny": (2, 128, 2, "gelu_new"),
    "tiny_exact": (2, 128, 2, "gelu"),
    "mini": (4, 256, 4, "gelu_new"),
    "small": (4, 512, 8, "gelu"),
    "medium": (8, 512, 8, "gelu_new"),
    "base": (12, 768, 12, "gelu"),
}
VOCAB_SIZE, MAX_POSITIONS, BATCH, LENGTH = 30_522, 512, 2, 24
MASKED_POSITIONS = np.array([[1, 5, 20], [2, 3, 14]], np.int32)


def shapes(layers: int, hidden: int) -> dict[str, tuple[int, ...]]:
    h, inner = (hidden,), 4 * hidden
    result = {
        "bert/embeddings/word_embeddings": (VOCAB_SIZE, hidden),
        "bert/embeddings/token_type_embeddings": (2, hidden),
        "bert/embeddings/position_embeddings": (MAX_POSITIONS, hidden),
        "bert/embeddings/LayerNorm/beta": h,
        "bert/embeddings/LayerNorm/gamma": h,
    }
    for i in range(layers):
        for name in ("query", "key", "value"):
            result[f"bert/encoder/layer_{i}/attention/self/{name}/kernel"] = (hidden, hidden)
            result[f"bert/encoder/layer_{i}/attention/self/{name}/bias"] = h
        for name, rows, columns in (
            ("attention/output/dense", hidden, hidden),
            ("intermediate/dense", hidden, inner),
            ("output/dense", inner, hidden),
        ):
            result[f"bert/encoder/layer_{i}/{name}/kernel"] = (rows, columns)
            result[f"bert/encoder/layer_{i}/{name}/bias"] = (columns,)
        for name in ("attention/output", "output"):
            result[f"bert/encoder/layer_{i}/{name}/LayerNorm/beta"] = h
            result[f"bert/encoder/layer_{i}/{name}/LayerNorm/gamma"] = h
    result["bert/pooler/dense/kernel"] = (hidden, hidden)
    result["bert/pooler/dense/bias"] = h
    result["cls/predictions/transform/dense/kernel"] = (hidden, hidden)
    result["cls/predictions/transform/dense/bias"] = h
    result["cls/predictions/transform/LayerNorm/beta"] = h
    result["cls/predictions/transform/LayerNorm/gamma"] = h
    result["cls/predictions/output_bias"] = (VOCAB_SIZE,)
    result["cls/seq_relationship/output_weights"] = (2, hidden)
    result["cls/seq_relationship/output_bias"] = (2,)
    return result


def arrays(layers: int, hidden: int) -> dict[str, np.ndarray]:
    """Random arrays by name; every bias and LayerNorm parameter differs from its initial value."""
    random = np.random.RandomState(layers * 1000 + hidden)  # its stream is frozen across NumPy versions
    result = {}
    for name, shape in shapes(layers, hidden).items():
        values = random.standard_normal(shape).astype(np.float32)
        if name.endswith("gamma"):
            result[name] = 1 + np.float32(0.1) * values
        else:
            result[name] = np.float32(0.1 if len(shape) == 1 else 0.03) * values
    return result


def inputs() -> dict[str, np.ndarray]:
    """Two rows, the second with padding."""
    random = np.random.RandomState(7)
    ids = random.randint(0, VOCAB_SIZE, (BATCH, LENGTH)).astype(np.int32)
    mask, segments = np.ones_like(ids), np.zeros_like(ids)
    segments[:, 9:] = 1
    ids[1, 15:] = mask[1, 15:] = segments[1, 15:] = 0
    return {"input_ids": ids, "input_mask": mask, "segment_ids": segments}


def excerpt(array: np.ndarray) -> np.ndarray:
    """About 16 values, evenly spaced, of the last axis: what is stored of a large output."""
    return np.asarray(array, np.float32)[..., :: max(1, array.shape[-1] // 16)]
