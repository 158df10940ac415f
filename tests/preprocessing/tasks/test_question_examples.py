import dataclasses
import io
import json
import os

import numpy as np
import pytest

from preprocessing import batches, features
from preprocessing.errors import InputError
from preprocessing.tasks import question_examples
from preprocessing.tasks.squad import Questions
from preprocessing.tasks.windows import WindowRules
from preprocessing.tokenizer import BertTokenizer
from tests.model import small_examples

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "who", "##b", "東"]
TOKENIZER = BertTokenizer(VOCAB)
RULES = WindowRules(10, 2, 3)


def written(folder, *questions):
    path = folder / "q.jsonl"
    path.write_text("".join(json.dumps({"question": "who a"} | question) + "\n" for question in questions))
    return Questions(path)


def write(folder, *questions, rules=RULES):
    aside = io.StringIO()
    split = question_examples.write(written(folder, *questions), str(folder / "x.tfrecord"), TOKENIZER, rules, aside)
    return split, [line.split("\t") for line in aside.getvalue().splitlines()]


def read(split):
    return batches.open_examples([split.file], features.ANSWERED, vocab_size=len(VOCAB)).arrays


def answer(text, start=None):
    return [{"text": text, "answer_start": start}]


def shown(arrays):
    """Of each window its tokens, with the answer in parentheses."""
    rows = zip(*(arrays[name] for name in features.ANSWERED.features), strict=True)
    for ids, mask, _, (start,), (end,) in rows:
        tokens = [VOCAB[number] for number in ids[: mask.sum()]]
        if start:
            tokens[start] = f"({tokens[start]}"
            tokens[end] += ")"
        yield " ".join(tokens)


def test_a_window_has_the_answer_or_none(tmp_path):
    split, aside = write(tmp_path, {"context": "a b c d e f g h", "answers": answer("e f", 8)})
    assert list(shown(read(split))) == [
        "[CLS] who a [SEP] a b c d e [SEP]",
        "[CLS] who a [SEP] c d (e f) g [SEP]",
        "[CLS] who a [SEP] (e f) g h [SEP]",
    ]
    assert aside == []
    assert (split.questions, split.rows, split.answered, split.impossible, split.cut) == (1, 3, 2, 0, 0)
    assert split.tokens == 10 + 10 + 9


def test_what_has_no_answer_has_it_at_cls(tmp_path):
    split, _ = write(tmp_path, {"context": "a b", "answers": []}, {"context": "\u200b", "answers": []})
    assert list(shown(read(split))) == ["[CLS] who a [SEP] a b [SEP]", "[CLS] who a [SEP] [SEP]"]
    assert (split.impossible, split.answered) == (2, 0)


def test_the_tokens_of_an_answer_share_a_character_with_it(tmp_path):
    split, _ = write(
        tmp_path,
        {"context": "a ab 東c", "answers": answer("b 東", 3)},
        rules=WindowRules(12, 2, 3),
    )
    assert next(shown(read(split))) == "[CLS] who a [SEP] a a (##b 東) c [SEP]"


@pytest.mark.parametrize("context", ["a b. c", "é東 ﬁ 👩‍🚀 a", "가 a", "  a \t b"])
def test_an_answer_may_be_any_part_of_a_context(context, tmp_path):
    """Of text with accents, joiners, syllables of several tokens."""
    spans = TOKENIZER.tokenize_with_offsets([context])
    places = list(zip(spans.char_starts[0].numpy(), spans.char_ends[0].numpy(), strict=True))
    questions = [
        {"context": context, "answers": answer(context[start:end], start)}
        for start in range(len(context))
        for end in range(start + 1, len(context) + 1)
        if context[start:end].strip()
    ]
    split, aside = write(tmp_path, *questions, rules=WindowRules(32, 8, 3))
    arrays, lines = read(split), {int(line) for _, line, _ in aside}
    used = [question for line, question in enumerate(questions, 1) if line not in lines]
    for question, start, end in zip(
        used, arrays[features.START_POSITIONS][:, 0], arrays[features.END_POSITIONS][:, 0], strict=True
    ):
        first = question["answers"][0]["answer_start"]
        wanted = [n for n, (a, b) in enumerate(places) if a < first + len(question["answers"][0]["text"]) and b > first]
        assert (start - 4, end - 4) == (wanted[0], wanted[-1])
    assert all("its answer has no token" in reason for _, _, reason in aside)


def test_answers_that_are_elsewhere_or_nowhere_are_told(tmp_path):
    train = written(
        tmp_path,
        {"context": "a b a", "answers": answer("a", 3)},
        {"context": "a b a", "answers": answer("x", 0), "id": "odd"},
        {"context": "a b \u200b", "answers": answer("\u200b", 4)},
        {"context": "a b", "answers": None},
        {"context": "b", "answers": []},
    )
    (tmp_path / "dev").mkdir()
    dev = written(tmp_path / "dev", {"context": "c", "answers": []}, {"context": "b", "answers": []})
    prepared = question_examples.prepare(train, dev, TOKENIZER, tmp_path / "examples", RULES)
    assert list(prepared.notes()) == [
        f"{train.path}: questions in JSONL",
        f"train: 3 questions cannot be used: {train.path}:2 the answer 'x' is not in its context (id odd); "
        f"{train.path}:4 has no answers; {train.path}:3 its answer has no token (id 3)",
        f"train: 1 answers are not where the file says, but elsewhere in the context: {train.path}:1 from 3 to 4",
        f"{dev.path}: questions in JSONL",
        f"1 questions of dev are asked of the same context in train, so that dev flatters: {dev.path}:2",
    ]
    (aside,) = (tmp_path / "examples").glob("*-set_aside.tsv")
    assert [line.split("\t")[:2] for line in aside.read_text().splitlines()] == [
        [train.path, n] for n in ("2", "4", "3")
    ]


def test_what_the_same_files_gave_is_used_again(tmp_path):
    questions = written(tmp_path, {"context": "b", "answers": []})
    first = question_examples.prepare(questions, questions, TOKENIZER, tmp_path / "examples", RULES)
    before = os.stat(first.train.file).st_mtime_ns
    assert question_examples.prepare(questions, questions, TOKENIZER, tmp_path / "examples", RULES) == first
    assert os.stat(first.train.file).st_mtime_ns == before
    others = dataclasses.replace(RULES, stride=1)
    assert question_examples.prepare(questions, questions, TOKENIZER, tmp_path / "examples", others) != first


def test_no_usable_question_is_an_error(tmp_path):
    with pytest.raises(
        InputError, match=r"there must be usable questions\. Received: .*:1 the answer 'x' is not in its"
    ):
        write(tmp_path, {"context": "a", "answers": answer("x")})


def test_questions_that_are_too_long_are_cut_and_counted(tmp_path):
    split, _ = write(tmp_path, {"question": "a b c d", "context": "e f", "answers": answer("f")})
    assert split.cut == 1
    assert list(shown(read(split))) == ["[CLS] a b c [SEP] e (f) [SEP]"]


@pytest.mark.parametrize(("start", "end"), [(3, 2), (2, 9)])
def test_positions_that_are_of_no_tokens_are_refused(start, end, tmp_path):
    arrays = {name: small_examples.examples(3, 0)[name] for name in features.SEQUENCE_FEATURES}
    arrays[features.INPUT_MASK][:, 8:] = 0
    arrays |= {
        features.START_POSITIONS: np.array([[0], [1], [start]]),
        features.END_POSITIONS: np.array([[0], [7], [end]]),
    }
    path = small_examples.write(tmp_path / "a.tfrecord", arrays)
    with pytest.raises(InputError, match=f"example 2: an answer must be of tokens.*Received: {start} to {end}"):
        batches.open_examples([path], features.ANSWERED)
