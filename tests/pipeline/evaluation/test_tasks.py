import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.evaluation import tasks
from pipeline.finetuning.kinds.classification import CLASSIFICATION
from pipeline.finetuning.kinds.tagging import TAGGING
from pipeline.finetuning.settings import TuningGate
from preprocessing.tasks.sentences import Sentence
from preprocessing.tasks.tables import Row

LABELS = np.array([b"dry", b"wet"], object)


def element(gold, wet, floor=0.5):
    answer = {"label": LABELS[int(wet > 0.5)], "labels": LABELS, "probabilities": np.array([1 - wet, wet])}
    return answered(Row("a.tsv", 1, "text", None, gold), answer, floor)


def answered(row, answer, floor):
    found = {tasks.ANSWERED: np.array([pickle.dumps((row, answer))], object), tasks.FLOOR: np.array([floor])}
    return SimpleNamespace(get_predictions=lambda model_name: found)


def test_the_judge_of_the_kind_has_seen_all_answers_however_they_were_collected():
    combiner = tasks.TaskCombiner(CLASSIFICATION, "candidate")
    elements = [element("wet", 0.9), element("dry", 0.2), element("dry", 0.7), element("wet", 0.8)]
    parts = [combiner.add_input(combiner.create_accumulator(), item) for item in elements]
    merged = combiner.merge_accumulators([*parts, combiner.create_accumulator()])
    found = combiner.extract_output(merged)
    assert {key.model_name for key in found} == {"candidate"}
    values = {key.name: value for key, value in found.items()}
    assert values["accuracy"] == 0.75
    assert values["majority_accuracy"] == 0.5
    assert values[tasks.FIRST] == 0.75
    assert values[tasks.GAIN] == 0.25


@pytest.mark.parametrize(
    ("tags", "said", "first"), [(("B-LOC", "O", "O"), ("O", "O", "O"), 0.0), (("NOUN", "VERB"), ("NOUN", "NOUN"), 0.5)]
)
def test_a_tagger_of_entities_is_held_to_them_and_another_one_to_words(tags, said, first):
    """To say that no word is of an entity is right of most words."""
    row = Sentence("a.conll", tuple(range(1, len(tags) + 1)), tuple("abc"[: len(tags)]), tags)
    answer = {
        "tags": np.array([tag.encode() for tag in said], object),
        "scores": np.full(len(said), 0.9),
        "word_count": len(said),
    }
    combiner = tasks.TaskCombiner(TAGGING, "candidate")
    seen = combiner.add_input(combiner.create_accumulator(), answered(row, answer, 0.25))
    found = {key.name: value for key, value in combiner.extract_output(seen).items()}
    assert (found[tasks.FIRST], found[tasks.GAIN]) == (first, first - 0.25)


def test_the_overall_slice_must_beat_the_floor_and_stay_near_the_model_before():
    (spec,) = tasks.eval_config(CLASSIFICATION, TuningGate(min_gain=0.1, max_decrease=0.03)).metrics_specs
    bounds = {name: per.thresholds[0] for name, per in spec.per_slice_thresholds.items()}
    assert set(bounds) == {tasks.FIRST, tasks.GAIN}
    assert all(not spec.feature_keys for bound in bounds.values() for spec in bound.slicing_specs)
    assert bounds[tasks.GAIN].threshold.value_threshold.lower_bound.value == 0.1
    assert bounds[tasks.FIRST].threshold.change_threshold.absolute.value == -0.03


def test_the_code_that_judges_is_part_of_what_an_evaluation_is_known_by():
    (spec,) = tasks.eval_config(CLASSIFICATION, TuningGate(), "some code").metrics_specs
    assert json.loads(spec.metrics[0].config) == {"task": "classification", "code": "some code"}
