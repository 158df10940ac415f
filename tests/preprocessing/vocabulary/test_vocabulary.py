import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cli import bert
from preprocessing import storage, vocab_file
from preprocessing.errors import InputError
from preprocessing.settings import VocabularySettings
from preprocessing.tokenizer.normalization import RESERVED
from preprocessing.tokenizer.words import count_words
from preprocessing.vocabulary import learning, merging
from preprocessing.vocabulary import report as vocabulary_report
from tests import data
from tests.preprocessing.tokenizer import google_reference

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORD_COUNTS = st.dictionaries(st.text("aabcdé", min_size=1, max_size=9), st.integers(1, 6), min_size=1, max_size=25)


def write(path, content):
    path.write_bytes(content)
    return path


class TestFile:
    def test_round_trip(self, tmp_path):
        tokens = [*SPECIAL, "a", "##b", "\u2028", "é"]
        vocab_file.save(tokens, tmp_path / "vocab.txt")
        assert (tmp_path / "vocab.txt").read_bytes() == "".join(f"{token}\n" for token in tokens).encode()
        assert vocab_file.load(tmp_path / "vocab.txt") == tokens
        assert os.listdir(tmp_path) == ["vocab.txt"]

    @pytest.mark.parametrize(
        "content",
        [
            "\n".join([*SPECIAL, "a"]),
            "\n".join([*SPECIAL, "a", "", ""]),
            "\r\n".join([*SPECIAL, "a", ""]),
            "\ufeff" + "\n".join([*SPECIAL, "a", ""]),
            "\ufeff" + "\r\n".join([*SPECIAL, "a"]),
            "\n".join([*SPECIAL, "a \t"]),
        ],
        ids=["no line end", "blank lines behind", "Windows line ends", "byte order mark", "both", "blanks"],
    )
    def test_reads_rightly(self, tmp_path, content):
        assert vocab_file.load(write(tmp_path / "vocab.txt", content.encode())) == [*SPECIAL, "a"]

    @pytest.mark.parametrize(
        "lines",
        [[*SPECIAL, "a", "b", "a"], [*SPECIAL, "", "b"], ["[UNK]", "[SEP]", "a", "[CLS]"]],
        ids=["a token twice", "a blank line", "neither [MASK] nor [PAD]"],
    )
    def test_takes_what_others_take(self, tmp_path, lines):
        """Whatever the file holds, the number of a line is an id."""
        assert vocab_file.load(write(tmp_path / "vocab.txt", "\n".join(lines).encode())) == lines

    def test_special_tokens_in_small_letters(self, tmp_path):
        small = [token.lower() for token in SPECIAL]
        assert vocab_file.load(write(tmp_path / "vocab.txt", "\n".join([*small, "a"]).encode())) == [*SPECIAL, "a"]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"[PAD]\n[CLS]\n[SEP]\na", r"Missing: \[UNK\]; write each on the line of a token that is not used"),
            (b"[PAD]\n\xff\xfe\n", r"vocab.txt:2: a vocabulary is UTF-8 text"),
            (b"", r"Missing: \[UNK\], \[CLS\], \[SEP\]"),
            ("[PAD]\n".encode("utf-16"), r"vocab.txt:1: a vocabulary is UTF-8 text"),
        ],
        ids=["special tokens missing", "not UTF-8", "empty", "UTF-16"],
    )
    def test_refuses(self, tmp_path, content, message):
        with pytest.raises(InputError, match=message):
            vocab_file.load(write(tmp_path / "vocab.txt", content))

    def test_refuses_what_is_no_file(self, tmp_path):
        with pytest.raises(InputError, match=r"absent\.txt: the vocabulary cannot be read"):
            vocab_file.load(tmp_path / "absent.txt")
        with pytest.raises(InputError, match="Received a folder"):
            vocab_file.load(tmp_path)

    def test_unwritable_output_is_one_line(self, tmp_path):
        with pytest.raises(InputError, match=r"file/vocab\.txt: cannot be written"):
            vocab_file.save(SPECIAL, write(tmp_path / "file", b"") / "vocab.txt")

    @pytest.mark.parametrize("name", ["uncased", "cased", "chinese", "multilingual-cased"])
    def test_official(self, name):
        size = {"uncased": 30_522, "cased": 28_996, "chinese": 21_128, "multilingual-cased": 119_547}[name]
        assert len(vocab_file.load(data.require(f"vocab/bert-base-{name}-vocab.txt"))) == size


class TestCountWords:
    @settings(max_examples=50, deadline=None)
    @given(
        texts=st.lists(
            st.text(st.one_of(st.sampled_from("abÉ .中,\u2028\x00Σ"), st.characters(blacklist_categories=("Cs",))))
        )
    )
    @pytest.mark.parametrize("lower_case", [True, False])
    def test_counts_the_words_of_the_tokenizer(self, texts, lower_case):
        texts = ["".join(c for c in text if c not in RESERVED) for text in texts] + ["x" * 201]
        expected = Counter(
            "".join(character for character, _ in word)
            for text in texts
            for word in google_reference.split_words(text, lower_case)
            if len(word) <= 200
        )
        assert count_words(texts, lower_case) == {word: n for word, n in expected.items() if not unreadable(word)}

    def test_nothing(self):
        assert count_words([], True) == {}


def unreadable(word):
    """Noncharacters, which no text should have, are not counted."""
    return any((ord(c) & 0xFFFE) == 0xFFFE or 0xFDD0 <= ord(c) <= 0xFDEF for c in word)


def naive_merges(counts, alphabet, room):
    """Byte pair encoding as the books have it: count all pairs anew for each merge."""
    words = [([word[0], *(f"##{c}" for c in word[1:])], count) for word, count in counts.items()]
    words = [(word, count) for word, count in words if set(word) <= set(alphabet)]
    pieces = list(alphabet)
    while len(pieces) < room:
        pairs = Counter()
        for word, count in words:
            for pair in itertools.pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pieces.index(pair[0]), pieces.index(pair[1])))
        merged = left + right.removeprefix("##")
        if merged not in pieces:
            pieces.append(merged)
        for word, _ in words:
            at = 0
            while at < len(word) - 1:
                if (word[at], word[at + 1]) == (left, right):
                    word[at : at + 2] = [merged]
                at += 1
    return pieces


DIGEST = "e22c6885470cbebad277dccab6724cd035eea103ead3962361bde07ed3a08efe"


class TestLearning:
    @settings(max_examples=200, deadline=None)
    @given(counts=WORD_COUNTS, extra=st.integers(0, 40))
    def test_merges_are_those_of_the_books(self, counts, extra):
        words = merging.choose_words(counts)
        alphabet = sorted({form for word, _ in words for form in [word[0], *(f"##{c}" for c in word[1:])]})
        room = len(alphabet) + extra
        assert merging.merge_pairs(words, alphabet, room) == naive_merges(dict(words), alphabet, room)

    @settings(max_examples=100, deadline=None)
    @given(counts=WORD_COUNTS, size=st.integers(7, 80), seed=st.integers(0, 9))
    def test_exact_size_whatever_the_order(self, counts, size, seed):
        tokens = learning.learn(counts, VocabularySettings(size))
        assert len(tokens) == len(set(tokens)) == size
        assert tokens[:5] == SPECIAL
        items = list(counts.items())
        random.Random(seed).shuffle(items)
        assert learning.learn(dict(items), VocabularySettings(size)) == tokens

    def test_the_same_for_ever(self):
        """Also in a process with other hashes; a changed digest changes everybody's vocabulary."""
        program = (
            "import hashlib, random\nfrom preprocessing import settings\n"
            "from preprocessing.vocabulary import learning\n"
            "draw = random.Random(7)\n"
            "words = {''.join(draw.choices('etaoinshr', k=draw.randint(1, 9))) for _ in range(3000)}\n"
            "counts = {word: 1 + len(word) * 7 % 11 for word in words}\n"
            "tokens = learning.learn(counts, settings.VocabularySettings(1000))\n"
            "print(hashlib.sha256('\\n'.join(tokens).encode()).hexdigest())"
        )
        answer = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": "4"},
            capture_output=True,
            text=True,
            check=True,
            cwd=data.ROOT,
        ).stdout.strip()
        draw = random.Random(7)
        words = {"".join(draw.choices("etaoinshr", k=draw.randint(1, 9))) for _ in range(3000)}
        tokens = learning.learn({word: 1 + len(word) * 7 % 11 for word in words}, VocabularySettings(1000))
        assert hashlib.sha256("\n".join(tokens).encode()).hexdigest() == answer == DIGEST

    def test_ties_go_to_the_smaller_numbers(self):
        tokens = learning.learn({"ab": 2, "cd": 2, "ef": 3}, VocabularySettings(14))
        assert tokens[5:] == ["##b", "##d", "##f", "a", "c", "e", "ef", "ab", "cd"]

    def test_repeated_letters(self):
        tokens = learning.learn({"aaaaa": 1}, VocabularySettings(11))
        assert tokens[5:] == ["##a", "a", "##aa", "aaa", "aaaaa", "[unused1]"]

    def test_frequent_characters_come_first(self):
        counts = {"a": 10_000_000, "b": 9_000_000} | {chr(0x4E00 + n): 1 for n in range(500)}
        tokens = learning.learn(counts, VocabularySettings(105))
        assert tokens[5:7] == ["a", "b"]
        assert len([token for token in tokens if token >= "\u4e00"]) == 10  # an eighth of the room, less those two

    def test_no_words(self):
        with pytest.raises(InputError, match="needs words to learn from"):
            learning.learn({}, VocabularySettings(100))

    def test_long_words_are_left_out(self):
        assert "z" not in learning.learn({"z" * 201: 100, "ab": 1}, VocabularySettings(10))

    def test_progress(self):
        seen = []
        learning.learn({f"{n:b}x{n:o}": n for n in range(1, 500)}, VocabularySettings(600), seen.append)
        assert seen == [256, 512]


def test_report_by_hand():
    tokens = [*SPECIAL, "[unused1]", "a", "##b", "c"]
    report = vocabulary_report.describe(tokens, {"a": 5, "ab": 2, "z": 1, "cz": 2}, lower_case=True)
    assert report == {
        "size": 9,
        "unused": 1,
        "words": 10,
        "coverage": 0.7,
        "whole_words": 0.5,
        "pieces_per_word": 1.2,
        "unknown_share": 0.25,
    }


class TestCommand:
    text = "The cat sat on the mat.\nThe dog sat on the log.\n\nA bird sang in the tree.\nIt sang all day.\n"

    def run(self, *arguments):
        return CliRunner().invoke(bert, ["vocab", *map(str, arguments)])

    def test_learns(self, tmp_path):
        source = write(tmp_path / "a.txt", self.text.encode())
        output = tmp_path / "vocab.txt"
        result = self.run("--input", source, "--size", 60, "--output", output)
        assert result.exit_code == 0, result.exception
        tokens = vocab_file.load(output)
        assert len(tokens) == 60
        assert "the" in tokens
        assert sorted(os.listdir(tmp_path)) == ["a.txt", "vocab.report.json", "vocab.txt"]
        assert "pieces per word" in result.stdout
        assert "on the text it was learned from" in result.stdout
        assert not json.loads((tmp_path / "vocab.report.json").read_text())["held_out"]

    def test_holds_out(self, tmp_path):
        source = write(tmp_path / "a.txt", "\n\n".join(f"the cat {n}" for n in range(200)).encode())
        output = tmp_path / "v[o]cab.txt"
        (tmp_path / f"{output.name}.counts-1").mkdir()  # of a killed run
        result = self.run("--input", source, "--size", 60, "--output", output, "--", "--runner", "DirectRunner")
        assert result.exit_code == 0, result.exception
        assert "on held-out text" in result.stdout
        assert json.loads((tmp_path / "v[o]cab.report.json").read_text())["held_out"]
        assert sorted(os.listdir(tmp_path)) == ["a.txt", "v[o]cab.report.json", output.name]

    def test_bad_lines_within_the_share_allowed(self, tmp_path):
        source = write(tmp_path / "a.txt", self.text.encode() + b"\xff\n")
        arguments = ("--input", source, "--size", 60, "--output", tmp_path / "v")
        assert "raise --max-bad-share" in str(self.run(*arguments).exception)
        assert self.run(*arguments, "--max-bad-share", 0.5).exit_code == 0

    def test_one_run_at_a_time(self, tmp_path):
        source = write(tmp_path / "a.txt", self.text.encode())
        with storage.alone(str(tmp_path / "v.lock"), "v"):
            result = self.run("--input", source, "--size", 60, "--output", tmp_path / "v")
        assert "one run at a time" in str(result.exception)

    def test_the_same_however_the_text_is_cut_into_files(self, tmp_path):
        documents = self.text.split("\n\n")
        write(tmp_path / "whole.txt", self.text.encode())
        write(tmp_path / "part2.txt", documents[0].encode())
        write(tmp_path / "part1.txt", documents[1].encode())
        for name in ("whole", "part"):
            arguments = ("--format", "sentences", "--input", tmp_path / f"{name}*.txt", "--size", 60)
            assert self.run(*arguments, "--output", tmp_path / f"{name}.vocab").exit_code == 0
        assert (tmp_path / "whole.vocab").read_bytes() == (tmp_path / "part.vocab").read_bytes()

    def test_refuses(self, tmp_path):
        source = write(tmp_path / "a.txt", self.text.encode())
        for arguments, message in (
            (("--input", tmp_path / "none*.txt", "--output", tmp_path / "v"), "no file matches"),
            (("--input", source, "--output", tmp_path), "must be a file"),
            (("--input", source, "--output", source / "vocab.txt"), "cannot be written"),
            (("--input", source, "--output", tmp_path / "v", "--size", 5), "must exceed its 5 special tokens"),
            (("--input", source, "--output", tmp_path / "v", "--compare", source), "one token per line"),
            (("--input", tmp_path, "--output", source), "must not overwrite an input"),
            (("--input", source, "--output", tmp_path / "v", "--", "--runner=Nope"), "Beam must know its options"),
        ):
            result = self.run(*arguments)
            assert isinstance(result.exception, InputError), result.exception
            assert message in str(result.exception)
            assert os.listdir(tmp_path) == ["a.txt"]
