import functools
import json
import os
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing import unicode_table
from preprocessing.errors import InputError
from preprocessing.tokenizer import BertTokenizer
from preprocessing.tokenizer.normalization import Normalizer
from tests import data
from tests.data import ROOT
from tests.preprocessing.tokenizer import google_reference

GOLDEN = ROOT / "tests" / "golden" / "tokenizer_ids.jsonl"
OFFICIAL = {"uncased": True, "cased": False, "chinese": True, "multilingual-cased": False}
# Pieces of many kinds, so that words of generated characters are not simply unknown.
TOKENS = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[", "]", "mask", "sep", "M", "##A", "##SK", "##k"]
TOKENS += [form for letter in "abesΑΣσςαijıöoc각中の\u1100\u1161\u11a8م" for form in (letter, f"##{letter}")]
TOKENS += [
    "ab",
    "##ab",
    "abe",
    ".",
    ",",
    "'",
    "…",
    "!",
    "#",
    "...",
    "##.",
    "a.",
    "中文",
    "##中",
    "a中",
    "İ",
    "I",
    "é",
    "\u2028",
]
TOKENS = list(dict.fromkeys(TOKENS))
# Each adds a class that has made some implementation differ.
ALPHABET = st.one_of(
    st.sampled_from(
        "abesΑΣσςαİIiıÖÉ .,'#[]中각の\u0301\u0307\u200b\u00ad\x00\x1f\x85\ufffd\u2028\u00a0\u302e\U0001d165م"
    ),
    st.characters(blacklist_categories=("Cs",)),
)
TEXTS = st.lists(
    st.one_of(
        st.text(ALPHABET, max_size=20),
        st.lists(st.sampled_from(["[MASK]", "[SEP]", "abe", "a", " ", "中", "."]), max_size=8).map("".join),
        st.tuples(st.sampled_from("aéö각の.中"), st.integers(60, 210)).map(lambda word: "a" + word[0] * word[1] + " b"),
    ),
    min_size=1,
    max_size=12,
)


@pytest.fixture(scope="module")
def uncased():
    return BertTokenizer.from_vocab(data.uncased_vocabulary())


def pair(lower_case, **options):
    return BertTokenizer(TOKENS, lower_case, **options), {token: number for number, token in enumerate(TOKENS)}


@functools.cache
def small(lower_case):
    return pair(lower_case)


def spans_of(tokenizer, texts):
    spans = tokenizer.tokenize_with_offsets(texts)
    columns = (spans.ids.to_list(), spans.char_starts.to_list(), spans.char_ends.to_list())
    return [list(zip(*row, strict=True)) for row in zip(*columns, strict=True)]


def check(tokenizer, ids, texts):
    expected = [google_reference.tokenize_with_spans(text, ids, tokenizer.lower_case) for text in texts]
    assert tokenizer.tokenize(texts).to_list() == [[token for token, _, _ in row] for row in expected]
    assert spans_of(tokenizer, texts) == expected


def test_stored_ids(uncased):
    rows = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    assert len(rows) == 300
    texts = [row["text"] for row in rows]
    assert uncased.tokenize(texts).to_list() == [row["uncased"] for row in rows]
    cased = BertTokenizer(uncased.vocab, lower_case=False)
    assert cased.tokenize(texts).to_list() == [row["cased"] for row in rows]


def test_special_ids(uncased):
    assert (uncased.pad_id, uncased.unk_id, uncased.cls_id, uncased.sep_id, uncased.mask_id) == (0, 100, 101, 102, 103)
    assert uncased.vocab_size == len(uncased.vocab) == 30_522
    assert uncased.ordinary_ids.dtype == np.int32
    ordinary = {uncased.vocab[index] for index in uncased.ordinary_ids}
    assert len(ordinary) == 30_522 - 5 - 994
    assert not [token for token in ordinary if token.startswith("[") and len(token) > 1]


@pytest.mark.parametrize("lower_case", [True, False])
@settings(max_examples=150, deadline=None)
@given(texts=TEXTS)
def test_any_text(lower_case, texts):
    check(*small(lower_case), texts)


@pytest.mark.parametrize("lower_case", [True, False])
@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.binary(max_size=12).map(lambda tail: "aé".encode() + tail), min_size=1, max_size=8))
def test_any_bytes(lower_case, texts):
    tokenizer, ids = small(lower_case)
    readable = [text.decode("utf-8", "ignore") for text in texts]
    expected = [google_reference.tokenize_with_spans(text, ids, lower_case) for text in readable]
    assert spans_of(tokenizer, texts) == expected
    assert tokenizer.tokenize(texts).to_list() == [[token for token, _, _ in row] for row in expected]


@pytest.mark.parametrize("lower_case", [True, False])
def test_characters_of_every_category(lower_case):
    """Each in a word, at its end and alone; the long test takes all."""
    codes = [c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cs", "Cn", "Co", "Lo", "So")]
    codes += [c for c in range(0, 0x110000, 501) if not 0xD800 <= c < 0xE000]
    check(*small(lower_case), [f"a{chr(code)}b a{chr(code)} {chr(code)}" for code in codes])


def test_canonical_order_of_marks_that_are_kept():
    """They change places (224 before 9, not so across another character, nor across texts)."""
    kept, lower, starter = "\u302e", "\u1b44", "\u0941"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", f"##{kept}", f"##{lower}", kept, lower, "\u2e52"]
    texts = [
        f"a{kept}{lower}",
        f"a{lower}{kept}",
        f"a{kept}{starter}{lower}",
        f"a{kept}\u0301{lower}",
        f"a{kept}",
        lower,
    ]
    texts += [text + "\u2e52" for text in texts]  # sends it the other way
    check(BertTokenizer(tokens), {token: number for number, token in enumerate(tokens)}, texts)


@pytest.mark.long
@pytest.mark.parametrize("lower_case", [True, False])
def test_every_character(lower_case):
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(codes), 100_000):
        check(
            *small(lower_case), [f"a{chr(code)}b a{chr(code)} {chr(code)}" for code in codes[start : start + 100_000]]
        )


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in OFFICIAL])
@pytest.mark.parametrize("step", [20, pytest.param(1, marks=pytest.mark.long)])
def test_official_vocabularies_on_many_languages(name, step):
    tokenizer = BertTokenizer.from_vocab(data.require(f"vocab/bert-base-{name}-vocab.txt"), OFFICIAL[name])
    lines = [
        line
        for path in sorted(data.require("corpus_intl").glob("*.txt"))
        for line in path.read_text(encoding="utf-8").split("\n")[::step]
    ]
    check(tokenizer, {token: number for number, token in enumerate(tokenizer.vocab)}, lines)


def test_english_prose(uncased):
    with data.require("corpus_en/wikipedia_490_articles.txt").open(encoding="utf-8") as file:
        lines = [line for line, _ in zip(file, range(600), strict=False)]
    check(uncased, {token: number for number, token in enumerate(uncased.vocab)}, lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abe ab", [("abe", "abe"), ("ab", "ab")]),
        ("ÁB\u200bE,", [("abe", "ÁB\u200bE"), (",", ",")]),
        ("x a\u0301b\u0301 c", [("[UNK]", "x"), ("ab", "a\u0301b\u0301"), ("c", "c")]),
        ("\x00\x00é\x00.", [("e", "é"), (".", ".")]),
        ("각", [("\u1100", "각"), ("##\u1161", "각"), ("##\u11a8", "각")]),
        ("a中b", [("a", "a"), ("中", "中"), ("b", "b")]),
        ("a" * 201 + " b", [("[UNK]", "a" * 201), ("b", "b")]),
        ("😀 İa", [("[UNK]", "😀"), ("i", "İ"), ("##a", "a")]),
    ],
)
def test_spans_show_the_original_text(text, expected):
    tokenizer, _ = small(True)
    spans = tokenizer.tokenize_with_offsets([text])
    tokens = [TOKENS[index] for index in spans.ids[0].numpy()]
    in_characters = [text[a:b] for a, b in zip(spans.char_starts[0], spans.char_ends[0], strict=True)]
    in_bytes = [text.encode()[a:b].decode() for a, b in zip(spans.byte_starts[0], spans.byte_ends[0], strict=True)]
    assert list(zip(tokens, in_characters, strict=True)) == expected
    assert in_bytes == in_characters


def test_invalid_bytes_are_no_characters_to_spans_whatever_texts_are_beside():
    tokenizer, _ = small(True)
    for texts in ([b"a\xff\xfe b\xc3 e"], [b"a\xff\xfe b\xc3 e", "é"]):
        spans = tokenizer.tokenize_with_offsets(texts)
        assert spans.char_starts[0].numpy().tolist() == [0, 2, 4]
        assert spans.byte_starts[0].numpy().tolist() == [0, 4, 7]


@functools.cache
def with_special_tokens():
    return pair(True, special_tokens_in_text=True)


class TestSpecialTokensInText:
    @pytest.mark.parametrize(
        "text", ["a[MASK]b", "É [MASK].", "[SEP][MASK]", "[MASK", "[mask] [CLS]", "[[MASK]]", "\u2fe1"]
    )
    def test_become_ids(self, text):
        """As if the text had been cut there."""
        tokenizer, ids = with_special_tokens()
        expected, offset = [], 0
        for part in text.replace("[MASK]", "\0M\0").replace("[SEP]", "\0S\0").split("\0"):
            if part in ("M", "S"):
                token = {"M": "[MASK]", "S": "[SEP]"}[part]
                expected.append((ids[token], offset, offset + len(token)))
                offset += len(token)
            else:
                found = google_reference.tokenize_with_spans(part, ids, True)
                expected += [(token, offset + start, offset + end) for token, start, end in found]
                offset += len(part)
        assert spans_of(tokenizer, [text]) == [expected]
        assert tokenizer.tokenize([text]).to_list() == [[token for token, _, _ in expected]]

    def test_are_text_by_default(self):
        tokenizer, ids = small(True)
        assert tokenizer.tokenize(["[MASK]"]).to_list() == [[ids["["], ids["mask"], ids["]"]]]

    @settings(max_examples=60, deadline=None)
    @given(texts=TEXTS)
    def test_other_texts_are_untouched(self, texts):
        texts = [text.replace("[MASK]", "").replace("[SEP]", "") for text in texts]
        (tokenizer, _), (plain, _) = with_special_tokens(), small(True)
        assert tokenizer.tokenize(texts).to_list() == plain.tokenize(texts).to_list()
        assert spans_of(tokenizer, texts) == spans_of(plain, texts)


TEXTS_FOR_PATHS = ["Hello, wörld! [MASK]", "", "Ünï\x00code 中文", "plain text", "\ufeffΑΣ ΣΑ" + "x" * 300]


@pytest.fixture(scope="module", params=[False, True], ids=["text-only", "special-tokens"])
def pathed(request, uncased):
    tokenizer = BertTokenizer(uncased.vocab, special_tokens_in_text=request.param)
    return tokenizer, tokenizer.tokenize(TEXTS_FOR_PATHS).to_list(), spans_of(tokenizer, TEXTS_FOR_PATHS)


def test_same_in_a_function_and_one_by_one(pathed):
    tokenizer, ids, _ = pathed
    graph = tf.function(tokenizer.tokenize)
    assert graph(tf.constant(TEXTS_FOR_PATHS)).to_list() == ids
    assert [tokenizer.tokenize([text]).to_list()[0] for text in TEXTS_FOR_PATHS] == ids
    assert tokenizer.tokenize(np.array(TEXTS_FOR_PATHS)).to_list() == ids


def test_same_in_tf_data(pathed):
    tokenizer, ids, spans = pathed
    dataset = tf.data.Dataset.from_tensor_slices(TEXTS_FOR_PATHS).batch(2)
    assert [row for batch in dataset.map(tokenizer.tokenize) for row in batch.to_list()] == ids
    starts = dataset.map(lambda texts: tokenizer.tokenize_with_offsets(texts).char_starts)
    assert [row for batch in starts for row in batch.to_list()] == [[start for _, start, _ in row] for row in spans]


def test_made_inside_a_graph():
    texts = ["abe 中 É"]
    dataset = tf.data.Dataset.from_tensors(texts).map(lambda batch: BertTokenizer(TOKENS).tokenize(batch))
    assert next(iter(dataset)).to_list() == small(True)[0].tokenize(texts).to_list()


# Of the ops that need tensorflow_text, TensorFlow Serving links these among others (not the trimmers, for instance).
SERVED_CUSTOM_OPS = {"NormalizeUTF8", "FastWordpieceTokenizeWithOffsets"}


def test_same_in_a_saved_model(pathed, tmp_path):
    tokenizer, ids, spans = pathed

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def tokenize(self, texts):
            spans = tokenizer.tokenize_with_offsets(texts)
            tokens = tokenizer.tokenize(texts)
            return {"values": tokens.values, "splits": tokens.row_splits, "ends": spans.char_ends.values}

    module = Module()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.tokenize})
    answer = tf.saved_model.load(str(tmp_path)).signatures["serving_default"](texts=tf.constant(TEXTS_FOR_PATHS))
    assert tf.RaggedTensor.from_row_splits(answer["values"], answer["splits"]).to_list() == ids
    assert answer["ends"].numpy().tolist() == [end for row in spans for _, _, end in row]

    definition = module.tokenize.get_concrete_function().graph.as_graph_def()
    nodes = [*definition.node, *(node for function in definition.library.function for node in function.node_def)]
    known = set(dir(tf.raw_ops)) | {"StatefulPartitionedCall"}
    custom = {node.op for node in nodes if node.op not in known and not node.op.startswith(("__inference", "_"))}
    assert custom == SERVED_CUSTOM_OPS


def test_empty_batch(uncased):
    assert uncased.tokenize([]).to_list() == []
    assert uncased.tokenize(tf.zeros([0], tf.string)).to_list() == []
    assert uncased.tokenize_with_offsets([]).char_ends.to_list() == []


def test_a_single_string_is_refused(uncased):
    with pytest.raises(ValueError, match=r"texts must be strings \[batch\]. Received: string \(\)"):
        uncased.tokenize("one text")


def test_ids_do_not_depend_on_the_language_of_the_machine():
    """ICU lowers I to a dotless i where the locale is Turkish. (In a process of its own, since it looks but once.)"""
    texts = ["IÉ İI", "\x00IÉ ÌJ\u0301Į"]
    program = (
        "from preprocessing.tokenizer.normalization import Normalizer\n"
        f"print(Normalizer(True).normalize({texts!r}).numpy().tolist())"
    )
    turkish = {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"}
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | turkish,
        capture_output=True,
        text=True,
        check=True,
        cwd=data.ROOT,
    )
    assert answer.stdout == "[b'ie ii', b'ie iji']\n"


def test_characters_of_later_versions_are_letters_without_case():
    """Some ops take the first for punctuation, decompose the second or lower the third: tokens with them are found all
    the same. The last stands for the first inside, and means nothing outside."""
    later = "\U00010f86\u1b4e\U000105c9\u2c2f"
    assert set(later) <= google_reference.members(unicode_table.UNASSIGNED)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", *later, *(f"##{c}" for c in later), "##🫠"]
    ids = {token: number for number, token in enumerate(tokens)}
    texts = [f"A{c}Á {c}a {c}" for c in f"{later}\u2e53\U00011b00"] + [later, later[::-1], "a\U000e1000 \ufdd0a a🫠 🫠"]
    for lower_case in (True, False):
        check(BertTokenizer(tokens, lower_case), ids, texts)
        words = [["".join(c for c, _ in word) for word in google_reference.split_words(t, lower_case)] for t in texts]
        found = Normalizer(lower_case).words(tf.constant(texts[:-1])).numpy()
        assert [line.decode().split() for line in found] == words[:-1]


ADDED = {"[USER]": True, "covid19": False, "[user] x": True, "Zoë": False}
WITH_ADDED = [*TOKENS, *ADDED]


class TestAddedTokens:
    def tokenized(self, text, lower_case=True, **options):
        tokenizer = BertTokenizer(WITH_ADDED, lower_case, added=ADDED, **options)
        return [WITH_ADDED[token] for token in tokenizer.tokenize([text]).to_list()[0]]

    def test_wherever_they_stand(self):
        assert self.tokenized("[USER] a covid19 b") == ["[USER]", "a", "covid19", "b"]
        assert self.tokenized("a[USER]b,covid19abe.") == ["a", "[USER]", "b", ",", "covid19", "abe", "."]
        assert self.tokenized("[USER][USER]") == ["[USER]", "[USER]"]

    def test_as_they_are_spelled_or_not(self):
        assert self.tokenized("[user] COVID19 zoe ZOË") == ["[", "[UNK]", "]", "covid19", "Zoë", "Zoë"]
        assert self.tokenized("COVID19 covid19 Zoë zoe", lower_case=False) == ["[UNK]", "covid19", "Zoë", "[UNK]"]

    def test_the_longest_one_first(self):
        assert self.tokenized("[user] x") == ["[user] x"]

    def test_beside_special_tokens(self):
        found = self.tokenized("[MASK] [USER] [SEP] \U000e01f0", special_tokens_in_text=True)
        assert found == ["[MASK]", "[USER]", "[SEP]", "[UNK]"]

    def test_in_a_graph(self):
        tokenizer = BertTokenizer(WITH_ADDED, added=ADDED)
        dataset = tf.data.Dataset.from_tensors(["a [USER]", "b"]).map(tokenizer.tokenize)
        assert next(iter(dataset)).to_list() == [
            [WITH_ADDED.index("a"), WITH_ADDED.index("[USER]")],
            [WITH_ADDED.index("b")],
        ]

    def test_have_no_places(self):
        with pytest.raises(InputError, match="places need a tokenizer without added tokens"):
            BertTokenizer(WITH_ADDED, added=ADDED).tokenize_with_offsets(["a"])


@pytest.mark.parametrize("lower_case", [True, False])
@pytest.mark.parametrize("longest", [1, 5, 100, 300])
def test_the_longest_word(longest, lower_case):
    tokenizer = BertTokenizer(TOKENS, lower_case, longest_word=longest)
    ids = {token: number for number, token in enumerate(TOKENS)}
    for letter in "aé":
        words = " ".join(letter * count for count in (longest, longest + 1))
        known = tokenizer.tokenize([letter * longest]).to_list()[0]
        assert tokenizer.tokenize([words]).to_list() == [[*known, ids["[UNK]"]]]
    assert ids["[UNK]"] not in tokenizer.tokenize(["a" * longest]).to_list()[0]


def test_the_last_of_equal_tokens_counts_and_none_is_blank():
    tokenizer = BertTokenizer([*TOKENS, "", "abe"])
    assert tokenizer.tokenize(["abe ab"]).to_list() == [[len(TOKENS) + 1, TOKENS.index("ab")]]
    assert not {TOKENS.index("abe"), len(TOKENS)} & set(tokenizer.ordinary_ids.tolist())


def test_a_vocabulary_without_mask_and_padding():
    tokenizer = BertTokenizer([token for token in TOKENS if token not in ("[MASK]", "[PAD]")])
    assert (tokenizer.mask_id, tokenizer.pad_id) == (None, 0)
