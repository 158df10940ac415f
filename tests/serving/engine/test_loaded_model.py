"""What a folder says of its signatures, and how they are batched for it."""

import json

import numpy as np
import pytest
import tensorflow as tf

from serving.engine.loaded_model import DESCRIPTION, LoadedModel

TEXT = tf.TensorSpec([None], tf.string, name="text")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model whose two signatures answer with the letters of each text and their number."""
    module, functions = tf.Module(), {}
    for name, count in (("spell", "letter_count"), ("fill_mask", "mask_count")):

        def letters(text, count=count):
            found = tf.strings.unicode_split(text, "UTF-8")
            return {"letters": found.to_tensor(), count: tf.cast(found.row_lengths(), tf.int32)}

        functions[name] = tf.function(letters).get_concrete_function(TEXT)
    folder = tmp_path_factory.mktemp("letters") / "1"
    tf.saved_model.save(module, str(folder), signatures=functions)
    return folder


@pytest.mark.parametrize(
    ("described", "shared"),
    [
        (None, {"fill_mask"}),  # any SavedModel
        ({"settings": {}}, {"fill_mask"}),
        ({"signatures": {"fill_mask": {"inputs": {}}, "spell": {"inputs": {}}}}, {"fill_mask"}),  # an older export
        ({"signatures": {"spell": {"row_count": "letter_count"}}}, {"fill_mask", "spell"}),
        ({"signatures": {"fill_mask": {"row_count": None}}}, set()),
        ({"signatures": {"spell": {"row_count": "elsewhere"}}}, {"fill_mask"}),
    ],
)
def test_the_export_says_which_output_counts_the_entries_of_a_row(saved, described, shared):
    description = saved / DESCRIPTION
    description.unlink(missing_ok=True)
    if described is not None:
        description.parent.mkdir(exist_ok=True)
        description.write_text(json.dumps(described))
    model = LoadedModel("letters", 1, saved)
    assert {name for name, signature in model.signatures.items() if signature.sharable} == shared
    if "spell" in shared:
        spell = model.signature("spell")
        assert spell.fixed_size
        assert spell.cut(spell({"text": np.array([b"abc", b"d"], object)}), slice(1, 2))["letters"].tolist() == [[b"d"]]
