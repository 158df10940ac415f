"""Entities in tags, against conlleval's rules written out, and examples of seqeval's README."""

import numpy as np
import pytest
import seqeval.scheme
from seqeval.metrics import sequence_labeling

from preprocessing.tags import Entity, Found, entities, of_entities, reading, strict, written


def conlleval(tags):
    """Entities by the two tables of conlleval.pl, which seqeval has from there: when a chunk ends, when one starts."""
    ends = {"EO", "EB", "EI", "EE", "ES", "SO", "SB", "SI", "SE", "SS", "BB", "BS", "BO", "IB", "IS", "IO"}
    starts = {"EE", "EI", "SE", "SI", "OE", "OI"} | {a + b for a in "OBIES" for b in "BS"}
    found, begin = [], None
    before = ("O", "")
    for place, tag in enumerate([*tags, "O"]):
        sign, _, kind = tag.partition("-")
        other = before[1] != kind
        if begin is not None and (before[0] + sign in ends or other):
            found.append(Entity(before[1], begin, place))
            begin = None
        if sign != "O" and (before[0] + sign in starts or other):
            begin = place
        before = (sign, kind)
    return found


@pytest.mark.parametrize("signs", ["BI", "BIES"])
def test_entities_are_conllevals(signs):
    random = np.random.default_rng(0)
    choices = ["O", *(f"{sign}-{kind}" for sign in signs for kind in ("PER", "LOC"))]
    for _ in range(2000):
        tags = random.choice(choices, random.integers(1, 9)).tolist()
        assert entities(tags) == conlleval(tags), tags


def test_examples_of_seqeval():
    gold = "O O O B-MISC I-MISC I-MISC O".split()  # noqa: SIM905
    said = "O O B-MISC I-MISC I-MISC I-MISC O".split()  # noqa: SIM905
    assert entities(gold) == [("MISC", 3, 6)]
    assert entities(said) == [("MISC", 2, 6)]
    assert entities(["B-NP", "I-NP", "O"]) == entities(["I-NP", "I-NP", "O"]) == [("NP", 0, 2)]
    assert strict(["B-NP", "I-NP", "O"]) == [("NP", 0, 2)]
    assert strict(["I-NP", "I-NP", "O"]) == []
    assert strict("B-A I-A I-B O B-B I-B".split()) == [("A", 0, 2), ("B", 4, 6)]  # noqa: SIM905
    assert strict("B-A B-A E-A S-B I-B E-B".split(), "BIOES") == [("A", 1, 3), ("B", 3, 4)]  # noqa: SIM905


@pytest.mark.parametrize(("signs", "scheme"), [("BI", "IOB2"), ("BIES", "IOBES")])
def test_entities_are_seqevals(signs, scheme):
    random, kept = np.random.default_rng(2), getattr(seqeval.scheme, scheme)
    choices = ["O", *(f"{sign}-{kind}" for sign in signs for kind in ("PER", "LOC"))]
    for _ in range(2000):
        tags = random.choice(choices, random.integers(1, 9)).tolist()
        lenient = [(kind, start, end + 1) for kind, start, end in sequence_labeling.get_entities(tags)]
        assert entities(tags) == lenient, tags
        (found,) = seqeval.scheme.Entities([tags], kept).entities
        expected = [(one.tag, one.start, one.end) for one in found]
        assert strict(tags, "IOB2" if scheme == "IOB2" else "BIOES") == expected, tags


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "BIOES"])
def test_what_is_written_in_a_scheme_is_found_in_it(scheme):
    random, found = np.random.default_rng(1), Found()
    for _ in range(200):
        tags = random.choice(["O", "B-A", "I-A", "B-B", "I-B"], 8).tolist()
        again = written(entities(tags), 8, scheme)
        assert entities(again) == entities(tags)
        assert strict(again, scheme) == entities(tags)
        found.add(again)
    assert (found.scheme, found.faults[scheme]) == (scheme, 0)


def test_a_broken_tag_is_found():
    found = Found()
    assert found.add(["B-A", "I-A", "O", "B-A"]) == {"IOB1": 0, "BIOES": 1}
    assert found.add(["O", "B-A", "O", "I-B"])["IOB2"] == 3
    assert found.scheme == "IOB2"
    assert found.faults["IOB2"] == 1


def test_tags_of_entities():
    assert of_entities(["O", "B-creative-work", "I-creative-work"])
    assert entities(["B-creative-work", "I-creative-work"]) == [("creative-work", 0, 2)]
    for tags in (["O"], ["NOUN", "O"], ["B-PER", "NN"], ["-LRB-", "HYPH"], ["X-PER"], ["B-"]):
        assert not of_entities(tags)
        assert reading(tags) is None
    bilou = ["B-A", "L-A", "U-A", "O"]
    assert entities(bilou) == [("A", 0, 2), ("A", 2, 3)]
    assert strict(bilou, "BIOES") == entities(bilou)
    found = Found()
    found.add(bilou)
    assert (found.scheme, found.faults["BIOES"]) == ("BIOES", 0)
