"""Overlapping windows of a question and a part of its context, `[CLS] question [SEP] part [SEP]`: those of
google-research/bert's `run_squad.py`, and the same as a served model makes in its graph (`serving.signatures.windows`).

Shapes: B questions, W windows, L max_seq_length.
"""

import dataclasses

import numpy as np

from preprocessing.errors import require
from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS

SPECIALS = 3  # tokens of a window that are neither the question's nor the context's
LEAST = 1  # tokens of a context that every window has room for


@dataclasses.dataclass(frozen=True)
class WindowRules:
    """`stride` is from the beginning of one window's part to the next one's, in tokens, and never more than what a
    window holds: no token is skipped. Of a question more than `max_question` tokens are cut off."""

    max_seq_length: int = 384
    stride: int = 128
    max_question: int = 64

    def __post_init__(self):
        for name in ("stride", "max_question"):
            require(getattr(self, name) > 0, f"{name} must be positive", getattr(self, name))
        least = self.max_question + SPECIALS + LEAST
        require(self.max_seq_length >= least, f"max_seq_length must hold a question and a token: at least {least}",
                self.max_seq_length)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Windows:
    """Int arrays [W] (`kept` [B]): the window's question, where its part begins among the tokens of the context, and
    how long it is; and how much of each question is kept. A context without tokens has one window."""

    rows: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    kept: np.ndarray


def cut(question_lengths: np.ndarray, context_lengths: np.ndarray, rules: WindowRules) -> Windows:
    """Of B questions and their contexts, in order."""
    kept = np.minimum(question_lengths, rules.max_question)
    capacity = rules.max_seq_length - SPECIALS - kept
    step = np.minimum(rules.stride, capacity)
    counts = 1 + np.maximum(-((capacity - context_lengths) // step), 0)
    rows = np.repeat(np.arange(len(kept)), counts)
    starts = (np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]) * step[rows]
    return Windows(rows, starts, np.minimum(capacity[rows], context_lengths[rows] - starts), kept)


def pack(
    windows: Windows,
    questions: tuple[np.ndarray, np.ndarray],
    contexts: tuple[np.ndarray, np.ndarray],
    length: int,
    special: tuple[int, int, int],
) -> dict[str, np.ndarray]:
    """int64 [W, L] by feature name.

    Args:
        questions, contexts: the ids of all of them, one after the other, and where each begins there, [B].
        length: L.
        special: ids of [CLS], [SEP] and padding.
    """
    cls_id, sep_id, pad_id = special
    position = np.arange(length)
    rows = windows.rows
    end = windows.kept[rows][:, None] + 1  # of the question, which begins at 1
    last = end + 1 + windows.lengths[:, None]
    ids = np.full((len(rows), length), pad_id, np.int64)
    ids[:, 0] = cls_id
    for (values, starts), offset, inside in (
        (questions, position - 1, (position >= 1) & (position < end)),
        (contexts, windows.starts[:, None] + position - end - 1, (position > end) & (position < last)),
    ):
        ids[inside] = values[(starts[rows][:, None] + offset)[inside]]
    ids[(position == end) | (position == last)] = sep_id
    mask = (position <= last).astype(np.int64)
    segments = ((position > end) & (position <= last)).astype(np.int64)
    return {INPUT_IDS: ids, INPUT_MASK: mask, SEGMENT_IDS: segments}
