"""Kinds of characters, and outlines that keep no more than them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing import character_kinds


@pytest.mark.parametrize(
    ("characters", "kind"),
    [
        ("aZéß", "latin"), ("жЯ", "cyrillic"), ("ωΆ", "greek"), ("א", "hebrew"), ("ع", "arabic"), ("अ", "indic"),
        ("ก", "thai"), ("かカ", "kana"), ("한", "hangul"), ("字", "han"), ("აԱ", "letter"), ("7٣", "digit"),
        (" \n\u3000", "space"), (".,«。", "punctuation"), ("+€😀", "symbol"),
    ],
)  # fmt: skip
def test_kinds(characters, kind):
    assert {character_kinds.kind(character) for character in characters} == {kind}


def test_an_outline_keeps_lengths_and_masks():
    assert character_kinds.outline("Paris, 2024: ça [MASK] ва") == "xxxxx. 0000. xx [MASK] жж"


@given(st.text())
def test_an_outline_says_nothing_else(text):
    outline = character_kinds.outline(text)
    assert character_kinds.outline(outline) == outline
    if "[MASK]" not in text:
        assert list(map(character_kinds.kind, outline)) == list(map(character_kinds.kind, text))
        assert len(set(outline)) <= len(character_kinds.KINDS)


def test_a_sample_is_spread_over_the_text():
    assert character_kinds.sample("a" * 500 + "ж" * 500, 10) == ["latin"] * 5 + ["cyrillic"] * 5
    assert character_kinds.sample("a1") == ["latin", "digit"]
    assert len(character_kinds.sample("a" * 101)) <= 100
    assert character_kinds.sample("") == []
