"""Masked-token figures of parts of the held-out predictions: where a model is good, and where it is not."""

import collections
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from model.encoder import BertEncoder
from model.tasks import pretraining
from preprocessing import batches, features

Slices = dict[str, dict[str, dict[str, float]]]  # {by: {part: {"predictions", "masked_lm_loss", "masked_lm_accuracy"}}}

LENGTH, POSITION, FREQUENCY, SOURCE = "length", "position", "token frequency", "source"
_SHORT = 32  # tokens; from there on each part has examples twice as long
_QUARTERS = ("first quarter", "second quarter", "third quarter", "last quarter")
_COMMON = (("the 10 commonest tokens", 10), ("the next 90", 100), ("the next 900", 1000))
_RARE = "rarer ones"
_BATCH = 32


def of(encoder: BertEncoder, files: Mapping[str, Sequence[str]], limit: int = 2048) -> Slices:
    """Of the first `limit` held-out examples of each source, whose files these are.

    By `length` of the example in tokens, `position` of the prediction in it, `token frequency` of the right answer
    among all of these, and `source`.
    """
    predictions_of = tf.function(lambda batch: _predictions(encoder, batch), autograph=False)
    found: list[dict[str, np.ndarray]] = []
    for number, paths in enumerate(files.values()):
        examples = batches.open_examples(paths, features.MASKED_PAIRS, vocab_size=encoder.settings.vocab_size)
        for batch in examples.batches(_BATCH, shuffle=False).take(-(-limit // _BATCH)):
            nll, right = (value.numpy() for value in predictions_of(batch))
            real = batch[features.MASKED_LM_WEIGHTS].numpy().ravel() > 0
            width = batch[features.MASKED_LM_IDS].shape[1]
            found.append(
                {
                    "nll": nll[real],
                    "right": right[real],
                    "label": batch[features.MASKED_LM_IDS].numpy().ravel()[real],
                    "position": batch[features.MASKED_LM_POSITIONS].numpy().ravel()[real],
                    "length": np.repeat(batch[features.INPUT_MASK].numpy().sum(1), width)[real],
                    "source": np.full(real.sum(), number),
                }
            )
    columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return {
        by: {
            part: {
                "predictions": int(chosen.sum()),
                "masked_lm_loss": float(columns["nll"][chosen].mean()),
                "masked_lm_accuracy": float(columns["right"][chosen].mean()),
            }
            for part, chosen in parts
            if chosen.any()
        }
        for by, parts in _parts(columns, list(files))
    }


def _predictions(encoder: BertEncoder, batch) -> tuple[tf.Tensor, tf.Tensor]:
    return pretraining.predicted(encoder, pretraining.encoder_outputs(encoder, batch), batch)


def _parts(columns: dict[str, np.ndarray], sources: list[str]) -> Iterator[tuple[str, list[tuple[str, np.ndarray]]]]:
    """(by, [(name, which of the predictions are in it)])"""
    lengths = columns["length"]
    bounds = [_SHORT]
    while bounds[-1] < lengths.max(initial=0):
        bounds.append(2 * bounds[-1])
    yield (
        LENGTH,
        [
            (f"{least + 1} to {most} tokens", (lengths > least) & (lengths <= most))
            for least, most in itertools.pairwise([0, *bounds])
        ],
    )
    quarter = np.minimum(4 * columns["position"] // np.maximum(lengths, 1), 3)
    yield POSITION, [(name, quarter == number) for number, name in enumerate(_QUARTERS)]
    ranks = {
        token: rank for rank, (token, _) in enumerate(collections.Counter(columns["label"].tolist()).most_common())
    }
    rank = np.array([ranks[token] for token in columns["label"].tolist()])
    ends = [0, *(most for _, most in _COMMON), len(ranks) + 1]
    names = [*(name for name, _ in _COMMON), _RARE]
    yield (
        FREQUENCY,
        [
            (name, (rank >= least) & (rank < most))
            for name, (least, most) in zip(names, itertools.pairwise(ends), strict=True)
        ],
    )
    yield SOURCE, [(name, columns["source"] == number) for number, name in enumerate(sources)]
