"""What kinds share that say one label of several, each with a probability."""

import dataclasses
import functools
from typing import Any

import numpy as np

from pipeline.finetuning.kinds.kind import Calibration


def calibrated(settings: Any, logits: np.ndarray, gold: np.ndarray) -> Calibration:
    """By the temperature that suits logits [N, C] and the numbers of the right labels [N] best."""
    from pipeline.finetuning import calibration, plots

    temperature = calibration.temperature(logits, gold)
    before, after = (calibration.figures(found, gold) for found in (logits, logits / temperature))
    first, then = (calibration.bins(*calibration.sureness(logits / by, gold)) for by in (1.0, temperature))
    return Calibration(
        dataclasses.replace(settings, temperature=temperature),
        {"temperature": temperature},
        before,
        after,
        {"cross_entropy": before["cross_entropy"]},
        functools.partial(plots.reliability, first, then),
    )
