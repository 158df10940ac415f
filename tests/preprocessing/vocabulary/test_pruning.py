import numpy as np
import pytest

from preprocessing import vocab_file
from preprocessing.features import SPECIAL_TOKENS
from preprocessing.tokenizer import BertTokenizer
from preprocessing.vocabulary import pruning
from tests import data


@pytest.fixture(scope="module")
def tokenizer():
    return BertTokenizer(vocab_file.load(data.uncased_vocabulary()))


WORDS = ["paris", "capital", "embeddings", "café", "東", "x" * 250]


@pytest.fixture(scope="module")
def pruned(tokenizer):
    kept, found = pruning.needed(tokenizer, WORDS)
    assert found < len(kept) < tokenizer.vocab_size / 3
    return kept, tokenizer.with_tokens(kept)


def test_the_text_is_read_as_before(tokenizer, pruned):
    kept, small = pruned
    texts = [" ".join(WORDS), "CAPITAL, paris!"]
    ours, theirs = small.tokenize(texts), tokenizer.tokenize(texts)
    assert np.array(kept)[ours.values.numpy()].tolist() == theirs.values.numpy().tolist()
    assert (kept[0], small.pad_id, small.vocab[: len(SPECIAL_TOKENS)]) == (0, 0, list(SPECIAL_TOKENS))


def test_no_other_word_becomes_unknown(tokenizer, pruned):
    """Every token of the vocabulary as a word, behind a word of the text, and before one."""
    _, small = pruned
    words = [token.removeprefix("##") for token in tokenizer.vocab if not token.startswith("[")]
    for texts in (words, [f"{word}capital" for word in words], [f"capital{word}" for word in words]):
        ours, theirs = small.tokenize(texts), tokenizer.tokenize(texts)
        unknown = [
            np.any(of.to_tensor(-1) == unk, -1) for of, unk in ((ours, small.unk_id), (theirs, tokenizer.unk_id))
        ]
        assert [word for word, now, before in zip(texts, *unknown, strict=True) if now and not before] == []


def test_what_single_characters_cannot_spell_is_kept():
    vocab = [*SPECIAL_TOKENS, "[unused1]", "a", "##b", "ab", "ac", "##bb", "##bd", "<new>", "", "a"]
    tokenizer = BertTokenizer(vocab, added={"<new>": True})
    kept, found = pruning.needed(tokenizer, ["abb"])
    assert [vocab[number] for number in kept] == [*SPECIAL_TOKENS, "##b", "ab", "ac", "##bd", "<new>", "a"]
    assert found == 2
    small = tokenizer.with_tokens(kept)
    assert (small.added, small.tokenize(["<new> abbb"]).to_list()) == ({"<new>": True}, [[9, 6, 5, 5]])


def test_a_vocabulary_without_padding_keeps_the_id_that_stands_for_it():
    kept, _ = pruning.needed(BertTokenizer(["ab", "[UNK]", "[CLS]", "[SEP]", "a", "##b"]), ["a"])
    assert kept == [0, 1, 2, 3, 4, 5]
