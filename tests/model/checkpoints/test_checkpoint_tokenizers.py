"""What checkpoints of every kind say of their tokenizers."""

import dataclasses
import json

import pytest

from model import checkpoints
from model.checkpoints.tokenizer_files import CheckpointTokenizer
from model.encoder import BertEncoder
from model.settings import EncoderSettings
from preprocessing.errors import InputError
from preprocessing.features import SPECIAL_TOKENS
from preprocessing.vocab_file import infer_lower_case, with_usual_names
from tests import data

SETTINGS = EncoderSettings(
    vocab_size=16, hidden_size=4, num_layers=1, num_heads=1, intermediate_size=4, max_positions=8
)
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s"]


def added(token, number, **rules):
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": token, **flags, **rules}


def fast(vocab=VOCAB, **parts):
    """A tokenizer.json as BERT's fast tokenizer is saved."""
    cls, sep = ({"SpecialToken": {"id": token, "type_id": 0}} for token in ("[CLS]", "[SEP]"))
    a, b = ({"Sequence": {"id": name, "type_id": segment}} for segment, name in enumerate("AB"))
    end = {"SpecialToken": {"id": "[SEP]", "type_id": 1}}
    return {
        "version": "1.0",
        "added_tokens": [added(token, vocab.index(token), special=True) for token in SPECIAL_TOKENS],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": [cls, a, sep], "pair": [cls, a, sep, b, end]},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: number for number, token in enumerate(vocab)},
        },
    } | parts


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    checkpoints.save_huggingface(BertEncoder(SETTINGS), folder)
    return folder


@pytest.fixture
def folder(weights, tmp_path):
    """A Hugging Face folder without any file of a tokenizer."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((weights / name).read_bytes())
    return tmp_path


def write(folder, name, value):
    (folder / name).write_text(json.dumps(value))


def found(folder):
    return checkpoints.tokenizer(folder)


class TestTokenizerJson:
    def test_all_is_read_from_it(self, folder):
        write(folder, "tokenizer.json", fast())
        write(folder, "tokenizer_config.json", {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers"})
        assert found(folder) == CheckpointTokenizer(VOCAB, True, {}, 100, [])

    def test_its_rules(self, folder):
        parts = fast()
        parts["normalizer"] |= {"lowercase": False}
        parts["model"] |= {"max_input_chars_per_word": 50}
        write(folder, "tokenizer.json", parts)
        assert (found(folder).lower_case, found(folder).longest_word) == (False, 50)
        write(folder, "tokenizer_config.json", {"do_lower_case": True})
        assert found(folder).lower_case is True

    def test_of_the_first_versions(self, folder):
        parts = fast(post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]})
        del parts["model"]["type"]
        parts["normalizer"] = {"type": "Sequence", "normalizers": [parts["normalizer"]]}
        write(folder, "tokenizer.json", parts)
        assert found(folder) == CheckpointTokenizer(VOCAB, True, {}, 100, [])

    def test_an_id_without_a_token(self, folder):
        parts = fast()
        parts["model"]["vocab"]["cat"] = 10
        write(folder, "tokenizer.json", parts)
        assert list(found(folder).tokens) == [*VOCAB[:6], "", "##s", "", "", "cat"]

    @pytest.mark.parametrize(
        ("change", "line"),
        [
            ({"normalizer": None}, "normalizer must be BertNormalizer. Received: None"),
            ({"normalizer": {"type": "NFC"}}, "normalizer must be BertNormalizer. Received: 'NFC'"),
            ({"pre_tokenizer": {"type": "ByteLevel"}}, "pre_tokenizer must be BertPreTokenizer. Received: 'ByteLevel'"),
            (
                {"post_processor": {"type": "RobertaProcessing"}},
                "must be TemplateProcessing. Received: 'RobertaProcessing'",
            ),
            (
                {"post_processor": {"type": "TemplateProcessing", "single": [], "pair": []}},
                "must make a single of texts",
            ),
            ({"model": {"type": "BPE", "vocab": {}}}, "model must be WordPiece. Received: 'BPE'"),
            ({"model": fast()["model"] | {"continuing_subword_prefix": "_"}}, "continuing_subword_prefix must be '##'"),
            ({"normalizer": fast()["normalizer"] | {"strip_accents": False}}, "strip_accents false is dropped"),
            ({"normalizer": fast()["normalizer"] | {"handle_chinese_chars": False}}, "tokenize_chinese_chars false"),
            ({"normalizer": fast()["normalizer"] | {"clean_text": False}}, "clean_text false is dropped"),
            ({"added_tokens": [added("cat", 6, single_word=True)]}, "single_word must be false"),
        ],
    )
    def test_what_is_not_berts_is_named_and_the_weights_are_read(self, folder, change, line):
        write(folder, "tokenizer.json", fast(**change))
        told = []
        checkpoints.load(folder, report=told.append)
        assert told
        assert all(each.startswith(f"{folder / 'tokenizer.json'}: ") for each in told)
        assert any(line in each for each in told)
        assert list(found(folder).unlike) == told

    def test_beside_another_vocabulary(self, folder):
        write(folder, "tokenizer.json", fast())
        (folder / "vocab.txt").write_text("\n".join(VOCAB))
        assert found(folder).unlike == []
        (folder / "vocab.txt").write_text("\n".join([*VOCAB[:6], "dog", "##s"]))
        (line,) = found(folder).unlike
        assert line.endswith("remove the one that is not the model's. Received: 6 and None as the id of 'dog'")

    @pytest.mark.parametrize("ids", [{"a": -1}, {"a": "0"}, {"a": 10**9}])
    def test_ids_that_are_none(self, folder, ids):
        write(folder, "tokenizer.json", fast(model=fast()["model"] | {"vocab": ids}))
        with pytest.raises(InputError, match=r"tokenizer\.json: the vocabulary's ids must be whole numbers"):
            found(folder)


class TestAddedTokens:
    expected = CheckpointTokenizer([*VOCAB, "[USER]", "covid19"], True, {"[USER]": True, "covid19": False}, 100, [])

    def test_of_the_slow_tokenizer(self, folder):
        (folder / "vocab.txt").write_text("\n".join(VOCAB))
        write(folder, "added_tokens.json", {"covid19": 9, "[USER]": 8})
        write(folder, "special_tokens_map.json", {"additional_special_tokens": [{"content": "[USER]"}]})
        assert found(folder) == self.expected

    def test_of_the_decoder(self, folder):
        (folder / "vocab.txt").write_text("\n".join(VOCAB))
        listed = [added("[USER]", 8, special=True), added("covid19", 9, normalized=True), added("[CLS]", 2)]
        decoder = {str(token.pop("id")): token for token in listed}
        write(folder, "tokenizer_config.json", {"added_tokens_decoder": decoder})
        assert found(folder) == self.expected

    def test_of_the_fast_tokenizer(self, folder):
        listed = [added("[USER]", 8, special=True), added("covid19", 9, normalized=True)]
        write(folder, "tokenizer.json", fast(added_tokens=fast()["added_tokens"] + listed))
        assert found(folder) == self.expected

    def test_at_the_id_of_another_token(self, folder):
        (folder / "vocab.txt").write_text("\n".join(VOCAB))
        write(folder, "added_tokens.json", {"dog": 6})
        assert found(folder).unlike == [f"{folder}: id 6 must be one token. Received: 'cat' and 'dog'"]

    @pytest.mark.parametrize("kind", ["google", "huggingface", "ours"])
    def test_they_are_carried_along(self, kind, tmp_path):
        checkpoints.save_as(kind, BertEncoder(SETTINGS), tmp_path, self.expected)
        assert found(tmp_path) == self.expected

    def test_keras_hub_has_none(self, tmp_path):
        with pytest.raises(InputError, match=r"has no added tokens. Received: \[USER\], covid19"):
            checkpoints.save_as("keras-hub", BertEncoder(SETTINGS), tmp_path, self.expected)


@pytest.mark.parametrize("kind", ["google", "ours"])
def test_what_is_unlike_is_carried_along(kind, tmp_path):
    odd = CheckpointTokenizer(VOCAB, False, {}, 7, ["x: strip_accents true is dropped"])
    checkpoints.save_as(kind, BertEncoder(SETTINGS), tmp_path, odd)
    assert found(tmp_path) == odd


class TestSpecialTokens:
    def test_in_small_letters(self, folder):
        small = [token.lower() for token in VOCAB]
        (folder / "vocab.txt").write_text("\n".join(small))
        assert list(found(folder).tokens) == VOCAB

    def test_under_other_names(self, folder):
        (folder / "vocab.txt").write_text("\n".join(["<pad>", "<unk>", "<s>", "</s>", "<mask>", *VOCAB[5:]]))
        names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
        write(folder, "special_tokens_map.json", names | {"mask_token": {"content": "<mask>"}})
        assert list(found(folder).tokens) == VOCAB

    def test_none_of_the_usual_name_is_left_beside_another(self):
        tokens = with_usual_names([*VOCAB, "<s>"], {"[CLS]": "<s>"})
        assert tokens == [*VOCAB[:2], "", *VOCAB[3:], "[CLS]"]


def test_the_case_of_a_vocabulary_without_capitals():
    """Uncased Korean is decomposed, as its accents had to be dropped."""
    assert infer_lower_case([*VOCAB, "한국", "##어"]) is False
    assert infer_lower_case([*VOCAB, "\u1112\u1161\u11ab"]) is True
    for name, lower_case in (("uncased", True), ("cased", False), ("multilingual-cased", False), ("chinese", True)):
        tokens = data.require(f"vocab/bert-base-{name}-vocab.txt").read_text(encoding="utf-8").split("\n")
        assert infer_lower_case(tokens) is lower_case


def test_the_package_of_a_real_one():
    tokenizer = found(data.minilm())
    assert dataclasses.replace(tokenizer, tokens=None) == CheckpointTokenizer(None, True, {}, 100, [])
    assert len(tokenizer.tokens) == 30522
