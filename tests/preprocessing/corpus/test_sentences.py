"""Sentence boundaries: what the splitter must get right, and that it loses nothing but white space."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.corpus import sentences
from tests import data

CASES = {
    "abbreviations": ["Dr. Smith went to Washington D.C. yesterday.", "He arrived at 5 p.m. on Jan. 3rd, 1999."],
    "initials": ["Mr. J. R. R. Tolkien wrote it (see p. 5).", "It cost $3.50!"],
    "quotes": ['"Why?" he asked.', '"I don\'t know... maybe," she said.'],
    "ellipsis": ["Wait... there is more.", "Really?!"],
    "list": ["1. First item.", "2. Second item.", "3. Third."],
    "parentheses": ["(He left.)", "She stayed."],
    "Chinese": ["什么是版本控制？", "我为什么要关心它呢？", "“你好！”他说。", "她走了。"],
    "Japanese": ["これはペンです。", "「そうですか？」と聞いた。"],
    "Hindi": ["यह एक वाक्य है।", "यह दूसरा वाक्य है।"],
    "Arabic": ["هذا هو السؤال؟", "نعم.", "هذا جواب."],
}


@pytest.mark.parametrize("name", CASES)
def test_boundaries(name):
    between = "" if name in ("Chinese", "Japanese") else " "
    assert sentences.split(between.join(CASES[name])) == CASES[name]


def test_language_aware():
    text = "Am 3. Mai kam sie nach Berlin. Dort blieb sie."
    assert sentences.split(text, "de") == ["Am 3. Mai kam sie nach Berlin.", "Dort blieb sie."]
    assert sentences.split(text, "en")[0] == "Am 3."  # not an ordinal in English


def test_a_line_end_ends_a_sentence():
    assert sentences.split("A heading\nThe text. More\n\n  of it \n") == ["A heading", "The text.", "More", "of it"]


def test_nothing_to_split():
    assert sentences.split("") == sentences.split(" \n\t\n") == []


@given(
    st.text(
        alphabet=st.characters(exclude_categories=["Cs", "Cc", "Cf"], exclude_characters="\u2420\u2424")
        | st.sampled_from(' .!?"”)\n。।A1'),
        max_size=60,
    )
)
def test_only_white_space_is_lost(text):
    found = sentences.split(text)
    assert all(sentence.strip() == sentence and sentence for sentence in found)
    assert re.sub(r"\s", "", "".join(found)) == re.sub(r"\s", "", text)


@pytest.mark.parametrize("name", ["progit_zh", "progit_ru", "pud_hi", "progit_ko"])
def test_real_text_keeps_its_characters(name):
    text = data.require(f"corpus_intl/{name}.txt").read_text()
    found = sentences.split(text, name[-2:])
    assert re.sub(r"\s", "", "".join(found)) == re.sub(r"\s", "", text)
    assert len(found) > len([line for line in text.split("\n") if line])


def test_invisible_characters_are_lost_where_a_line_begins():
    assert sentences.split("\ufeff\u200b\u2420a\u200bb\u200b") == ["a\u200bb\u200b"]


def test_sentences_that_are_given():
    assert sentences.given("One. Two.\n\n  Three \n") == ["One. Two.", "Three"]
