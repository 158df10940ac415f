"""Answers, against google's rules (run_squad.py) written out in Python, and what a span of a text must be."""

import json

import numpy as np
import pytest

from model import checkpoints
from model.encoder.heads import SPAN
from model.settings import QuestionAnsweringSettings
from preprocessing.features import INPUT_IDS, INPUT_MASK, SEGMENT_IDS
from preprocessing.tokenizer import BertTokenizer
from serving.client import Client, Span
from serving.export import exporting, golden
from serving.settings import ExportSettings
from serving.signatures import ANSWER, question_answering
from serving.signatures.base import TextEncoder
from tests.serving import small_model
from tests.serving.small_model import VOCAB

COUNT = 5
SETTINGS = ExportSettings(lengths=(16, 48), top_k=COUNT, warmup_lengths=(16,))
TOKENIZER = BertTokenizer(VOCAB)
TASKS = [
    QuestionAnsweringSettings(),
    QuestionAnsweringSettings(max_seq_length=16, stride=4, max_question=5, max_answer=4),
    QuestionAnsweringSettings(max_seq_length=20, stride=100, max_question=12, max_answer=30, no_answer_threshold=0.5),
    QuestionAnsweringSettings(max_seq_length=9, stride=1, max_question=4, max_answer=1, no_answer_threshold=-1.0),
]
WORDS = ["paris", "is", "the", "capital", "of", "france", ",", ".", "?", "river", "runnings", "東京", "é", "E\u0301"]
WORDS += [
    "e\u0301\u0323",
    "Zoë",
    "ﬁn",
    "👩\u200d🚀",
    "👨\u200d👩\u200d👧",
    "\u200b",
    "가",
    "각",
    "ß",
    "İ",
    "  ",
    "\t\n",
    "\u0301",
    "ǆ",
]


def text(random, most):
    joint = random.choice(["", " "])
    return joint.join(random.choice(WORDS, random.integers(0, most)))


def pairs(seed, count=24):
    random = np.random.default_rng(seed)
    rows = [(text(random, 12), text(random, random.choice([3, 20, 60]))) for _ in range(count)]
    return [*rows, ("", ""), ("paris", ""), ("", "paris"), (" ", "\u200b \u0301"), ("the " * 30, "paris is " * 40)]


def texts_of(task, heads=(SPAN,)):
    return TextEncoder(small_model.encoder(heads, 1), TOKENIZER, SETTINGS, task)


def answered(encoder, rows):
    questions, contexts = map(list, zip(*rows, strict=True))
    return {
        name: value.numpy()
        for name, value in ANSWER.answered(encoder, {"question": questions, "context": contexts}).items()
    }


# ------------------------------------------------------------------------------------------------------- google's rules


def windows(question, context, longest, task):
    """(start, length) of each."""
    capacity, spans, start = longest - len(question) - 3, [], 0
    while start < len(context):
        length = min(len(context) - start, capacity)
        spans.append((start, length))
        if start + length == len(context):
            break
        start += min(length, task.stride)
    return spans or [(0, 0)]


def is_best(spans, number, token):
    """google's `_check_is_max_context`, in whole numbers: a hundred times its score."""
    best, found = None, None
    for other, (start, length) in enumerate(spans):
        if start <= token < start + length:
            score = 100 * min(token - start, start + length - 1 - token) + length
            if best is None or score > best:
                best, found = score, other
    return found == number


def logits_of(encoder, rows):
    """[rows][length, 2] of lists of (ids, segments)."""
    length = max(len(ids) for ids, _ in rows)
    inputs = {name: np.zeros((len(rows), length), np.int32) for name in (INPUT_IDS, INPUT_MASK, SEGMENT_IDS)}
    for row, (ids, segments) in enumerate(rows):
        inputs[INPUT_IDS][row, : len(ids)], inputs[INPUT_MASK][row, : len(ids)] = ids, 1
        inputs[SEGMENT_IDS][row, : len(ids)] = segments
    return encoder.span(encoder(inputs)["sequence_output"]).numpy().astype(float)


def google(rows, task):
    """For each question the scores of all spans by their places in bytes and characters, and that of no answer."""
    longest = min(task.max_seq_length, 48)
    encoder, found, asked, owners = small_model.encoder((SPAN,), 1), [], [], []
    for row, (question, context) in enumerate(rows):
        spans = TOKENIZER.tokenize_with_offsets([context])
        ids, *places = (values[0].numpy().tolist() for values in spans)
        kept = TOKENIZER.tokenize([question]).to_list()[0][: min(task.max_question, longest - 4)]
        cut = windows(kept, ids, longest, task)
        found.append(({}, [], list(zip(*places, strict=True))))
        for number, (start, length) in enumerate(cut):
            asked.append(([2, *kept, 3, *ids[start : start + length], 3], [0] * (len(kept) + 2) + [1] * (length + 1)))
            owners.append((row, number, start, length, len(kept) + 2, cut))
    for (row, number, start, length, offset, cut), logits in zip(owners, logits_of(encoder, asked), strict=True):
        scores, none, places = found[row]
        none.append(logits[0].sum())
        for first in range(length):
            if not is_best(cut, number, start + first):
                continue
            for last in range(first, min(length, first + task.max_answer)):
                place = (
                    places[start + first][0],
                    places[start + last][1],
                    places[start + first][2],
                    places[start + last][3],
                )
                score = logits[offset + first, 0] + logits[offset + last, 1]
                scores.setdefault(place, []).append(score)  # pieces of one character have one place
    return [(scores, min(none)) for scores, none, _ in found]


def softmax(values):
    shares = np.exp(np.array(values) - max(values))
    return shares / shares.sum()


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_answers_are_googles(task):
    rows = pairs(0)
    outputs = answered(texts_of(task), rows)
    places = np.stack([outputs[name] for name in ("byte_starts", "byte_ends", "char_starts", "char_ends")], -1)
    for row, (scores, none) in enumerate(google(rows, task)):
        best = sorted((score for same in scores.values() for score in same), reverse=True)[:COUNT]
        shares = softmax([*best, none] if task.no_answer_threshold is not None else best)[: len(best)] if best else []
        np.testing.assert_allclose(outputs["scores"][row], [*shares, *[0] * (COUNT - len(best))], atol=1e-4)
        no_answer = none - (best[0] if best else 0)
        assert outputs["no_answer"][row] == pytest.approx(no_answer, abs=1e-3)
        for rank, score in enumerate(best):
            assert any(abs(score - own) < 1e-3 for own in scores[tuple(places[row, rank].tolist())])
        assert not places[row, len(best) :].any()
        assert set(outputs["answers"][row, len(best) :]) <= {b""}
        is_answered = bool(best) and (task.no_answer_threshold is None or no_answer <= task.no_answer_threshold)
        assert outputs["answer"][row] == (outputs["answers"][row, 0] if is_answered else b"")
    lengths = [len(TOKENIZER.tokenize([question]).to_list()[0]) for question, _ in rows]
    assert outputs["truncated"].tolist() == [
        length > min(task.max_question, min(task.max_seq_length, 48) - 4) for length in lengths
    ]


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_a_span_is_the_answer_in_the_text(task):
    rows = pairs(1)
    outputs = answered(texts_of(task), rows)
    spans = 0
    for row, (_, context) in enumerate(rows):
        columns = zip(*(outputs[name][row] for name in
                        ("answers", "char_starts", "char_ends", "byte_starts", "byte_ends")), strict=True)  # fmt: skip
        for found, start, end, byte_start, byte_end in columns:
            assert context[start:end] == found.decode()
            assert context.encode()[byte_start:byte_end] == found
            spans += bool(found)
    assert spans > 60


def test_a_context_of_any_length_takes_a_few_windows_at_a_time(monkeypatch):
    """And the answer is the same however many."""
    task, rows = TASKS[1], pairs(2, 10)
    expected, encoder = answered(texts_of(task), rows), texts_of(task)
    monkeypatch.setattr(question_answering, "AT_ONCE", 3)
    seen, encode = [], encoder.encode

    def watched(packed):
        seen.append(len(packed.input_ids))
        return encode(packed)

    encoder.encode = watched
    for name, value in answered(encoder, rows).items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(value, expected[name], atol=1e-4)
        else:
            np.testing.assert_array_equal(value, expected[name], name)
    assert set(seen[:-1]) == {3}
    assert len(seen) > 10


def test_a_checkpoint_without_task_or_head():
    assert question_answering._task(texts_of(None)) == QuestionAnsweringSettings()
    assert ANSWER.missing(texts_of(None)) is None
    assert "no head for spans" in ANSWER.missing(texts_of(None, ("masked_lm",)))
    added = BertTokenizer(VOCAB, added={"paris": True})
    assert "added tokens" in ANSWER.missing(TextEncoder(small_model.encoder((SPAN,), 1), added, SETTINGS))


def test_from_checkpoint_and_task_file_to_answers(tmp_path, monkeypatch):
    """As transformers has it, exported by what its files say, asked without a server."""
    task = QuestionAnsweringSettings(
        max_seq_length=24, stride=8, max_question=8, max_answer=3, no_answer_threshold=-2.0
    )
    encoder = small_model.encoder((SPAN,), 1)
    checkpoints.save_huggingface(encoder, tmp_path / "x", small_model.write_vocab(tmp_path), lower_case=True)
    checkpoints.write_task(tmp_path / "x", task)
    assert checkpoints.read_task(tmp_path / "x") == task
    monkeypatch.setattr(exporting, "_answer_elsewhere", lambda folder: golden.answer(str(folder)))  # in this process
    version = exporting.export_version(tmp_path / "x", tmp_path / "served", settings=SETTINGS, signatures=[ANSWER])
    requests = json.loads((version / golden.REQUESTS).read_text())
    assert {request["signature_name"] for request in requests} == {"answer"}
    questions, contexts = (
        ["the capital?", "the capital?", "Zoë"],
        [" ".join(f"{word} is Paris," for word in WORDS), "", "It lies on a river."],
    )
    expected = answered(texts_of(task), zip(questions, contexts, strict=True))
    with Client(version) as client:
        found = client.answer(questions, contexts)
    for row, (one, context) in enumerate(zip(found, contexts, strict=True)):
        assert one.text == expected["answer"][row].decode()
        assert one.no_answer == pytest.approx(expected["no_answer"][row], abs=1e-4)
        assert len(one.spans) == np.count_nonzero(expected["answers"][row])
        for span in one.spans:
            assert context[span.start : span.end] == span.text
            assert context.encode()[span.byte_start : span.byte_end] == span.text.encode()
    assert (found[1].text, found[1].spans) == ("", [])
    assert isinstance(found[0].spans[0], Span)


def test_a_threshold_says_when_there_is_no_answer():
    rows = [("the capital?", "paris is the capital of france")]
    (no_answer,) = answered(texts_of(TASKS[0]), rows)["no_answer"].tolist()
    for threshold, is_answered in ((no_answer + 0.01, True), (no_answer - 0.01, False)):
        outputs = answered(texts_of(QuestionAnsweringSettings(no_answer_threshold=threshold)), rows)
        assert bool(outputs["answer"][0]) is is_answered
        assert outputs["answers"][0, 0]
