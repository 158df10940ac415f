"""What a served model says of a row, made up."""

import numpy as np


def classified(label: str, labels: tuple[str, ...], probability: float = 0.75) -> dict:
    """Of a classifier: the label has this probability, the others share the rest."""
    rest = (1 - probability) / (len(labels) - 1)
    return {
        "label": label.encode(),
        "labels": np.array([name.encode() for name in labels], object),
        "probabilities": np.array([probability if name == label else rest for name in labels], np.float32),
        "truncated": False,
    }
