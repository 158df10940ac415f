"""The feature contract: what a pretraining example is, stated once, and how one states what any example is.

Names and layout are those of google-research/bert's `create_pretraining_data.py`, so that its readers and TF Model
Garden's read our files. One example is a serialized `tf.Example`; L is `max_seq_length`, P `max_predictions`:

| feature                | type    | length | meaning                                                     |
|------------------------|---------|--------|-------------------------------------------------------------|
| `input_ids`            | int64   | L      | token ids, `[CLS] A [SEP] B [SEP]`, masks applied; then 0   |
| `input_mask`           | int64   | L      | 1 at real tokens, 0 at padding                              |
| `segment_ids`          | int64   | L      | 0 for `[CLS] A [SEP]`, 1 for `B [SEP]`, 0 at padding        |
| `masked_lm_positions`  | int64   | P      | positions to predict, ascending; then 0                     |
| `masked_lm_ids`        | int64   | P      | the original ids there; then 0                              |
| `masked_lm_weights`    | float32 | P      | 1.0 for a prediction, 0.0 for padding                       |
| `next_sentence_labels` | int64   | 1      | **0 = B follows A, 1 = B is random**                        |

Worked example, L = 12, P = 3, with [PAD] 0, [CLS] 101, [SEP] 102, [MASK] 103; A = `the man went`, B = `to the store`,
which does follow A; `man` (2158) is masked and `store` (3573) is predicted but kept:

    input_ids             101 1996  103 2253  102 2000 1996 3573  102    0    0    0
    input_mask              1    1    1    1    1    1    1    1    1    0    0    0
    segment_ids             0    0    0    0    0    1    1    1    1    0    0    0
    masked_lm_positions     2    7    0
    masked_lm_ids        2158 3573    0
    masked_lm_weights     1.0  1.0  0.0
    next_sentence_labels    0

Unmasking (writing `masked_lm_ids` back at `masked_lm_positions` where the weight is 1) restores the original ids.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

INPUT_IDS = "input_ids"
INPUT_MASK = "input_mask"
SEGMENT_IDS = "segment_ids"
MASKED_LM_POSITIONS = "masked_lm_positions"
MASKED_LM_IDS = "masked_lm_ids"
MASKED_LM_WEIGHTS = "masked_lm_weights"
NEXT_SENTENCE_LABELS = "next_sentence_labels"
LABEL_IDS = "label_ids"  # of a text or pair; google-research/bert's name in `run_classifier.py`
SCORES = "scores"  # of a text or pair
TEXT_MASK = "text_mask"  # of two texts whose tokens stand in turn
START_POSITIONS = "start_positions"  # of an answer's first and last token; google's names in `run_squad.py`
END_POSITIONS = "end_positions"
TAG_IDS = "tag_ids"  # of the words, each at its first piece

# In the order in which they are written.
SEQUENCE_FEATURES = (INPUT_IDS, INPUT_MASK, SEGMENT_IDS)
PREDICTION_FEATURES = (MASKED_LM_POSITIONS, MASKED_LM_IDS, MASKED_LM_WEIGHTS)
ALL_FEATURES = (*SEQUENCE_FEATURES, *PREDICTION_FEATURES, NEXT_SENTENCE_LABELS)

# TF Model Garden's v2 names for the same features.
MODEL_GARDEN_NAMES = {INPUT_IDS: "input_word_ids", SEGMENT_IDS: "input_type_ids"}

# What is seen of a text that is too long: its beginning; that and its end; or all of it, a window after the other.
Long = Literal["cut", "head-tail", "windows"]

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


# The axis along which the features of a token lie: it is cut where a batch is shorter.
LENGTH = "L"
# Not the axis of a feature but a bound of ids: the model's number of tokens.
VOCABULARY = "V"


@dataclasses.dataclass(frozen=True)
class Feature:
    """A list of numbers in each example.

    Attributes:
        size: how many: a number, or the name of an axis. An axis is as long as in the first example of the files;
            what lies along `LENGTH` is cut with the sequence.
        rule: what each number must be, in words for the error.
        least, below: each is `least` or more and less than `below`: numbers, or the name of an axis, or `VOCABULARY`.
            None: there is no such bound.
        stored: its type in memory. In files integers are int64, in the model int32; other numbers are float32 in both.
    """

    size: int | str
    rule: str
    least: float | None = 0
    below: int | str | None = None
    stored: Literal["int8", "int32", "float32"] = "int32"


@dataclasses.dataclass(frozen=True)
class Spec:
    """What the examples of a task are: the same code then reads, checks, keeps and batches them.

    Attributes:
        features: by name; the three of `SEQUENCE_FEATURES` among them, since an encoder needs them.
        written_by: the command that writes such files, for errors.
        check: arrays [N, size] by name -> the first row that breaks a rule which no single feature can state, and that
            rule with what was received; None when all keep it.
        in_turn: so many texts stand in a sequence, their tokens in turn, and each is encoded by itself.
    """

    features: Mapping[str, Feature]
    written_by: str
    check: Callable[[Mapping[str, np.ndarray]], tuple[int, str] | None] = lambda arrays: None
    in_turn: int = 1

    def lengths(self, axes: Mapping[str, int]) -> dict[str, int]:
        """Number of values of each feature, by name, where the axes are so long."""
        return {
            name: axes[feature.size] if isinstance(feature.size, str) else feature.size
            for name, feature in self.features.items()
        }


# What every example for an encoder has.
SEQUENCE = {
    INPUT_IDS: Feature(LENGTH, "a token id must lie inside the model's vocabulary", below=VOCABULARY),
    INPUT_MASK: Feature(LENGTH, "the mask must be 0 or 1", below=2, stored="int8"),
    SEGMENT_IDS: Feature(LENGTH, "a segment must be 0 or 1", below=2, stored="int8"),
}


def _predictions_are_of_tokens(arrays: Mapping[str, np.ndarray]) -> tuple[int, str] | None:
    positions = arrays[MASKED_LM_POSITIONS]
    real = np.take_along_axis(arrays[INPUT_MASK], positions.astype(np.int64), 1)
    beyond = (arrays[MASKED_LM_WEIGHTS] > 0) & (real == 0)
    if not beyond.any():
        return None
    row, column = np.argwhere(beyond)[0]
    return int(row), f"a masked position must be a token's. Received: {positions[row, column]}"


MASKED_PAIRS = Spec(
    SEQUENCE
    | {
        MASKED_LM_POSITIONS: Feature("P", "a position must lie inside the sequence", below=LENGTH),
        MASKED_LM_IDS: Feature("P", "a token id must lie inside the model's vocabulary", below=VOCABULARY),
        MASKED_LM_WEIGHTS: Feature("P", "a weight must be a finite number", stored="float32"),
        NEXT_SENTENCE_LABELS: Feature(1, "the label must be 0 or 1", below=2),
    },
    "`bert examples`",
    _predictions_are_of_tokens,
)


def classified(classes: int) -> Spec:
    """Texts or pairs of so many classes; the number after the last stands for a label that is none of them."""
    label = Feature(1, "a label must be the number of a class, or their count where it is none", below=classes + 1)
    return Spec(SEQUENCE | {LABEL_IDS: label}, "`bert finetune`")


def several_labels(labels: int) -> Spec:
    """Texts or pairs that may have any of so many labels: 1 for each that one has, else 0."""
    label = Feature(labels, "a label must be 1 where it is there, else 0", below=2, stored="int8")
    return Spec(SEQUENCE | {LABEL_IDS: label}, "`bert finetune`")


# Texts or pairs with a number.
_score = Feature(1, "a score must be a finite number", least=None, stored="float32")
SCORED = Spec(SEQUENCE | {SCORES: _score}, "`bert finetune`")
# The same of two texts, each `[CLS] text [SEP]`, whose tokens stand in turn: those of the first at 0, 2, 4, ... Where
# only the shorter one has come to its end there is padding all the same, to which the input mask is 1 and the text mask
# 0: a sequence that is cut behind its input mask has all of both.
_has_token = Feature(LENGTH, "the mask must be 0 or 1", below=2, stored="int8")
COMPARED = Spec(SEQUENCE | {TEXT_MASK: _has_token, SCORES: _score}, "`bert finetune`", in_turn=2)


def _answers_are_of_tokens(arrays: Mapping[str, np.ndarray]) -> tuple[int, str] | None:
    starts, ends = (arrays[name][:, 0].astype(np.int64) for name in (START_POSITIONS, END_POSITIONS))
    bad = (starts > ends) | (ends >= np.maximum(arrays[INPUT_MASK].sum(1), 1))
    if not bad.any():
        return None
    row = int(bad.argmax())
    return row, f"an answer must be of tokens, its start not behind its end. Received: {starts[row]} to {ends[row]}"


_position = Feature(1, "a position must lie inside the sequence", below=LENGTH)
# Windows of a question and a part of its context; both positions are 0, that of [CLS], where no answer is in it.
ANSWERED = Spec(
    SEQUENCE | {START_POSITIONS: _position, END_POSITIONS: _position}, "`bert finetune`", _answers_are_of_tokens
)


def tagged(tags: int) -> Spec:
    """Windows of words of so many tags: at the first piece of each word that the window answers its tag's number, from
    1, or the number after the last for a tag that is none of them; 0 at all other tokens."""
    tag = Feature(LENGTH, "a tag must be the number of one, from 1, or 0 where there is none", below=tags + 2)
    return Spec(SEQUENCE | {TAG_IDS: tag}, "`bert finetune`")


def lengths(max_seq_length: int, max_predictions: int) -> dict[str, int]:
    """Number of values of each feature of a masked pair, by name."""
    return MASKED_PAIRS.lengths({LENGTH: max_seq_length, "P": max_predictions})
