import pytest

from pipeline.features.choices import Choice, every
from preprocessing.errors import InputError


@pytest.mark.parametrize(
    ("typed", "layers", "how"),
    [
        ("last", (6,), None),
        ("0", (0,), None),
        ("5", (5,), None),
        ("-2", (5,), None),
        ("last4:sum", (3, 4, 5, 6), "sum"),
        ("-4..-1:concat", (3, 4, 5, 6), "concat"),
        ("1..3:mean", (1, 2, 3), "mean"),
        ("all:sum", (1, 2, 3, 4, 5, 6), "sum"),
        ("last1:sum", (6,), None),  # of one, nothing is to be put together
    ],
)
def test_layers_that_can_be_typed(typed, layers, how):
    choice = Choice.read(typed, "mean", False, 6)
    assert (choice.layers, choice.how) == (layers, how)
    assert Choice.read(choice.said, "mean", False, 6) == choice
    assert choice.width(8) == (8 * len(layers) if how == "concat" else 8)


@pytest.mark.parametrize(
    ("typed", "pooling", "message"),
    [
        ("first", "mean", "--layers must be LAYER, or .*Received: 'first'"),
        ("", "mean", "--layers must be LAYER"),
        ("7", "mean", "of the model's: 0, the embeddings, to 6, the last. Received: '7'"),
        ("-8", "mean", "of the model's"),
        ("4..2:sum", "mean", "of the model's"),
        ("last8:sum", "mean", "of the model's"),
        ("1..3", "mean", "several layers need sum, mean, concat after a colon"),
        ("1..3:max", "mean", "several layers need sum, mean, concat"),
        ("5", "pooler", "the pooler is made of the last layer alone"),
    ],
)
def test_layers_that_there_are_not(typed, pooling, message):
    with pytest.raises(InputError, match=message):
        Choice.read(typed, pooling, False, 6)


def test_every_choice_has_a_name_of_its_own():
    names = [str(choice) for choice in every(6, True, False)]
    assert len(names) == len(set(names)) == (7 + 3) * 3 + 1
    assert {"layers 0, pooling cls", "layers 3..6:concat, pooling max", "layers 6, pooling pooler"} <= set(names)
    # The last four of two layers are all of them; of one, nothing is put together.
    assert [len(every(layers, False, False)) for layers in (2, 1)] == [(3 + 2) * 3, 2 * 3]
