"""The feature contract: what a pretraining example is, stated once.

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

INPUT_IDS = "input_ids"
INPUT_MASK = "input_mask"
SEGMENT_IDS = "segment_ids"
MASKED_LM_POSITIONS = "masked_lm_positions"
MASKED_LM_IDS = "masked_lm_ids"
MASKED_LM_WEIGHTS = "masked_lm_weights"
NEXT_SENTENCE_LABELS = "next_sentence_labels"

# In the order in which they are written.
SEQUENCE_FEATURES = (INPUT_IDS, INPUT_MASK, SEGMENT_IDS)
PREDICTION_FEATURES = (MASKED_LM_POSITIONS, MASKED_LM_IDS, MASKED_LM_WEIGHTS)
ALL_FEATURES = (*SEQUENCE_FEATURES, *PREDICTION_FEATURES, NEXT_SENTENCE_LABELS)

# TF Model Garden's v2 names for the same features.
MODEL_GARDEN_NAMES = {INPUT_IDS: "input_word_ids", SEGMENT_IDS: "input_type_ids"}

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def lengths(max_seq_length: int, max_predictions: int) -> dict[str, int]:
    """Number of values of each feature, by name."""
    return (
        dict.fromkeys(SEQUENCE_FEATURES, max_seq_length)
        | dict.fromkeys(PREDICTION_FEATURES, max_predictions)
        | {NEXT_SENTENCE_LABELS: 1}
    )
