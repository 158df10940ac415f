import collections
import math
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.evaluation import pretraining
from pipeline.settings import GateSettings
from preprocessing import features


def element(ids, weights, label, **sums):
    return SimpleNamespace(
        features={
            features.MASKED_LM_IDS: np.array(ids),
            features.MASKED_LM_WEIGHTS: np.array(weights),
            features.NEXT_SENTENCE_LABELS: np.array([label]),
        },
        get_predictions=lambda model_name: {name: np.array(value) for name, value in sums.items()},
    )


ELEMENTS = [
    element([7, 7, 0], [1, 1, 0], 1, mlm_loss=2.0, mlm_correct=1.0, mlm_weight=2.0, nsp_correct=1.0),
    element([7, 9, 0], [1, 1, 0], 0, mlm_loss=4.0, mlm_correct=2.0, mlm_weight=2.0, nsp_correct=0.0),
]


def result(elements):
    combiner = pretraining.PretrainingCombiner("")
    parts = [combiner.add_input(combiner.create_accumulator(), item) for item in elements]
    values = combiner.extract_output(combiner.merge_accumulators(parts))
    return {key.name: value for key, value in values.items()}


def test_figures_by_hand():
    values = result(ELEMENTS)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert values == pytest.approx(
        {
            "masked_lm_loss": 1.5,
            "masked_lm_perplexity": math.exp(1.5),
            "masked_lm_accuracy": 0.75,
            "next_sentence_accuracy": 0.5,
            "next_sentence_baseline": 0.5,
            "unigram_loss": entropy,
            "commonest_token_accuracy": 0.75,
            "masked_lm_loss_gain": entropy - 1.5,
            "masked_lm_accuracy_gain": 0.0,
        }
    )


def test_no_examples_give_nan_which_no_threshold_passes():
    assert all(math.isnan(value) for value in result([]).values())


def test_a_model_no_better_than_the_baseline_is_below_the_bound():
    values = pretraining.figures(collections.Counter({1: 3, 2: 1}), np.array([1.0, 3.0, 4.0, 1.0, 2.0, 1.0]))
    assert values["masked_lm_accuracy_gain"] == 0.0 < GateSettings().min_accuracy_gain


def test_thresholds_bind_the_overall_slice_alone():
    (spec,) = pretraining.eval_config(GateSettings(min_loss_gain=0.5)).metrics_specs
    assert set(spec.per_slice_thresholds) == {"masked_lm_loss", "masked_lm_loss_gain", "masked_lm_accuracy_gain"}
    (bound,) = spec.per_slice_thresholds["masked_lm_loss_gain"].thresholds
    assert [list(slice_.feature_keys) for slice_ in bound.slicing_specs] == [[]]
    assert bound.threshold.value_threshold.lower_bound.value == 0.5
