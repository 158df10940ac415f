import json

import pytest

from preprocessing.errors import InputError
from preprocessing.tasks import squad
from preprocessing.tasks.squad import Answer, Questions

CONTEXT = "Zoë was in Paris. Then she left Paris for 東京."


def written(folder, *qas, context=CONTEXT):
    path = folder / "q.json"
    path.write_text(json.dumps({"version": "2.0", "data": [{"paragraphs": [{"context": context, "qas": list(qas)}]}]}))
    return path


def asked(name="a", answers=(("Paris", 11),), **more):
    given = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": "Where?", "answers": given} | more


def read(path, **options):
    aside = []
    return list(Questions(path, **options).rows(lambda line, reason: aside.append((line, reason)))), aside


def test_both_versions_of_squad(tmp_path):
    plausible = [{"text": "Paris", "answer_start": 11}]
    path = written(tmp_path, asked(), asked("b", (), is_impossible=True, plausible_answers=plausible), asked("é", ()))
    questions, aside = read(path)
    assert aside == []
    assert [(q.id, q.line, q.answers) for q in questions] == [
        ("a", 1, (Answer("Paris", 11),)),
        ("b", 2, ()),
        ("é", 3, ()),
    ]
    assert {(q.question, q.context, q.place.removeprefix(str(path))) for q in questions} == {
        ("Where?", CONTEXT, f":{line}") for line in (1, 2, 3)
    }


def test_jsonl_in_all_its_spellings(tmp_path):
    path = tmp_path / "q.jsonl"
    lines = (
        {"id": 7, "question": "Where?", "context": CONTEXT},
        {"question": "Where?", "context": CONTEXT},
        {"question": "Who?", "context": CONTEXT, "answers": {"text": [], "answer_start": []}},
        {"id": "7", "question": "Who?", "context": CONTEXT},
    )
    path.write_text("\n\n".join(json.dumps(line) for line in lines) + "\n[3]")
    questions, aside = read(path, answered=False)
    assert [(q.id, q.line, q.answers) for q in questions] == [("7", 1, None), ("3", 3, None), ("5", 5, ())]
    assert aside == [(7, "has the id of question 1"), (8, "not a JSON object")]


def test_answers_of_jsonl(tmp_path):
    path = tmp_path / "q.jsonl"
    lines = ([{"text": "Paris"}, "Zoë"], {"text": ["Paris"]}, None)
    path.write_text(
        "\n".join(json.dumps({"question": "Where?", "context": CONTEXT, "answers": answers}) for answers in lines)
    )
    assert [q.answers for q in read(path, answered=False)[0]] == [
        (Answer("Paris", None), Answer("Zoë", None)),
        (Answer("Paris", None),),
        None,
    ]
    assert read(path)[1] == [(3, "has no answers")]
    assert read(path)[0][0].gold == ("Paris", "Zoë")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"question": " "}, "question is empty"),
        ({"question": None}, "question must be text. Received: nothing"),
        ({"question": "\ud800"}, "is not UTF-8, or holds a NUL"),
        ({"answers": "Paris"}, "answers must be a list. Received: 'Paris'"),
        ({"answers": [{"text": ""}]}, "an answer must be text that is not empty. Received: ''"),
        ({"answers": [{"text": "Paris", "answer_start": "11"}]}, "answer_start must be a whole number. Received: '11'"),
        ({"answers": {"text": ["Paris"], "answer_start": [1, 2]}}, "answers must have lists of text and answer_start"),
        ({"is_impossible": True}, "is_impossible, yet it has answers"),
        ({"id": "a"}, "has the id of question 1"),
    ],
)
def test_what_cannot_be_used_is_set_aside_with_its_place(tmp_path, changed, reason):
    questions, aside = read(written(tmp_path, asked(), asked("b") | changed, asked("c")))
    assert [q.id for q in questions] == ["a", "c"]
    ((line, received),) = aside
    assert line == 2
    assert received.startswith(reason)
    assert received.endswith(f"(id {changed.get('id', 'b')})")


def test_an_empty_context_sets_its_questions_aside(tmp_path):
    assert read(written(tmp_path, asked(), asked("b"), context=" \n")) == (
        [],
        [(1, "context is empty (id a)"), (2, "context is empty (id b)")],
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "q.json: cannot be read as JSON"),
        ("[]", "q.json: SQuAD's JSON must have a list 'data' here. Received: nothing"),
        ('{"data": [{"paragraphs": []}, {"title": 1}]}', r"q.json: data\[1\]: SQuAD's JSON must have a list 'paragr"),
        ('{"data": [{"paragraphs": [3]}]}', r"q.json: data\[0\].paragraphs\[0\]: SQuAD's JSON must have a list 'qas'"),
    ],
)
def test_json_that_is_no_squad_is_refused_by_its_place(tmp_path, content, message):
    (tmp_path / "q.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "q.json")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file of questions"):
        Questions(tmp_path / "q.json")
    (tmp_path / "q.tsv").write_text("x")
    with pytest.raises(InputError, match=r"must end in \.json, \.jsonl, \.ndjson\. Received: '\.tsv'"):
        Questions(tmp_path / "q.tsv")


@pytest.mark.parametrize(
    ("text", "start", "found"),
    [
        ("Paris", 11, 11),
        ("Paris", 12, 11),
        ("Paris", 31, 32),
        ("Paris", 10**9, 32),
        ("Paris", -5, 11),
        ("Paris", None, 11),
        ("東京", 0, 42),
        ("Zoe", 0, None),
        ("Zoe", None, None),
    ],
)
def test_an_answer_is_looked_for_nearest_to_where_it_should_be(text, start, found):
    assert squad.located(CONTEXT, Answer(text, start)) == found
