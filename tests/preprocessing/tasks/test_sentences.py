import json
import tracemalloc

import pytest

from preprocessing.errors import InputError
from preprocessing.tasks.sentences import Sentences
from tests import data


def read(folder, name, content, **options):
    """([(lines, words, tags)], [(line, reason)], the file)"""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source, aside = Sentences(path, **options), []
    rows = [(row.lines, row.words, row.tags) for row in source.rows(lambda line, why: aside.append((line, why)))]
    return rows, aside, source


CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP I-ORG
rejects VBZ B-VP O

# NN B-NP O
London NNP I-NP I-LOC
Paris NNP B-NP B-LOC
"""


def test_columns_of_iob1(tmp_path):
    rows, aside, source = read(tmp_path, "a.txt", CONLL_2003)
    assert rows == [
        ((3, 4), ("EU", "rejects"), ("B-ORG", "O")),
        ((6, 7, 8), ("#", "London", "Paris"), ("O", "B-LOC", "B-LOC")),
    ]
    assert (aside, source.scheme, source.broken) == ([], "IOB1", 0)
    assert source.told == (
        f"{tmp_path}/a.txt: blanks, words in column 1, tags in column 4; entities in IOB1, read as IOB2; "
        "left out: 1 -DOCSTART-"
    )
    rows, _, source = read(tmp_path, "a.txt", CONLL_2003, tags="2")
    assert rows[0][2] == ("NNP", "VBZ")
    assert source.scheme is None


def test_tabs_and_remarks_and_words_with_blanks(tmp_path):
    content = "# id one\nNew York\tB-LOC\r\n#tag\tO\n\n \u3000\tO\n\n\n"
    rows, aside, source = read(tmp_path, "a.conll", content)
    assert rows == [((2, 3), ("New York", "#tag"), ("B-LOC", "O")), ((5,), (" \u3000",), ("O",))]
    assert aside == []
    assert "tags in column 2; entities in IOB2; left out: 1 remarks" in source.told


def test_bioes_is_read_as_iob2(tmp_path):
    rows, _, source = read(tmp_path, "a.bio", "a S-X\nb B-X\nc E-X\nd B-X\n")
    assert rows[0][2] == ("B-X", "B-X", "I-X", "B-X")
    assert (source.scheme, source.broken) == ("BIOES", 1)
    assert source.first_broken == f"{tmp_path}/a.bio:4 'B-X'"


def test_tags_that_break_their_scheme_are_mended_and_counted(tmp_path):
    good = "a B-X\nb I-X\n\n" * 3
    rows, _, source = read(tmp_path, "a.iob2", good + "a O\nb I-X\nc I-Y\n")
    assert rows[3][2] == ("O", "B-X", "B-Y")
    assert (source.scheme, source.broken, source.first_broken) == ("IOB2", 1, f"{tmp_path}/a.iob2:11 'I-X'")


def test_ragged_lines_are_set_aside(tmp_path):
    rows, aside, _ = read(tmp_path, "a.tsv", "a\tO\nb\n\nc\tO\n\nd\tO\te\n\n\tO\n\ne\t\n")
    assert rows == [((4,), ("c",), ("O",))]
    assert aside == [
        (1, "line 2 has 1 columns, the first one 2"),
        (6, "line 6 has 3 columns, the first one 2"),
        (8, "word 1 is empty"),
        (10, "tag 1 is empty"),
    ]


def test_bytes_that_are_no_text(tmp_path):
    rows, aside, _ = read(tmp_path, "a.tsv", b"\xef\xbb\xbfa\tO\n\n\xff\tO\n\nb\x00\tO\n")
    assert [row[1] for row in rows] == [("a",)]
    assert aside == [(3, "is not UTF-8, or holds a NUL"), (5, "is not UTF-8, or holds a NUL")]


CONLLU = """# newdoc id = d
# sent_id = d-1
# text = He doesn't.
1\tHe\the\tPRON\tPRP\t_\t2\tnsubj\t_\t_
2-3\tdoesn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdoes\tdo\tAUX\tVBZ\t_\t0\troot\t_\t_
3\tn't\tnot\tPART\tRB\t_\t2\tadvmod\t_\t_
3.1\tgo\tgo\tVERB\tVB\t_\t_\t_\t_\t_
4\t.\t.\tPUNCT\t.\t_\t2\tpunct\t_\t_

1\t#\t#\tSYM\tNFP\t_\t0\troot\t_\t_

1\ta\ta\t_\t_\t_\t0\troot\t_\t_
x\tb\tb\tX\t_\t_\t0\troot\t_\t_
"""


def test_conllu(tmp_path):
    rows, aside, source = read(tmp_path, "a.conllu", CONLLU)
    assert rows == [
        ((4, 6, 7, 9), ("He", "does", "n't", "."), ("PRON", "AUX", "PART", "PUNCT")),
        ((11,), ("#",), ("SYM",)),
    ]
    assert aside == [(13, "line 14 has no number but 'x'")]
    assert source.told.endswith(
        "CoNLL-U, words in column 2, tags in column 4; left out: 1 ranges of words, 1 empty nodes"
    )
    assert [row.id for row in source.rows(lambda line, why: None)] == ["d-1", None]
    for column in ("xpos", "5", "XPOS"):
        assert read(tmp_path, "a.conllu", CONLLU, tags=column)[0][0][2] == ("PRP", "VBZ", "RB", ".")


def test_jsonl(tmp_path):
    lines = [
        {"id": 7, "tokens": ["a", "b"], "ner_tags": ["B-X", "O"]},
        {"tokens": ["a"], "ner_tags": ["O", "O"]},
        {"tokens": [], "ner_tags": []},
        {"tokens": ["a"], "ner_tags": [0]},
        {"tokens": ["a"]},
        {"tokens": "a", "ner_tags": ["O"]},
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines) + "[]\n"
    rows, aside, source = read(tmp_path, "a.jsonl", content)
    assert rows == [((1, 1), ("a", "b"), ("B-X", "O"))]
    assert aside == [
        (2, "has 1 words and 2 tags"),
        (3, "has no words"),
        (4, "ner_tags must be a list of texts. Received: 0; write the tags' names for their numbers"),
        (5, "ner_tags must be a list. Received: nothing"),
        (6, "tokens must be a list. Received: 'a'"),
        (7, "not a JSON object"),
    ]
    assert source.told == f"{tmp_path}/a.jsonl: words tokens, tags ner_tags; entities in IOB2"
    assert [row.id for row in source.rows(lambda line, why: None)] == ["7"]
    rows, _, _ = read(tmp_path, "b.jsonl", '{"w": ["a"], "t": ["X"], "tags": ["Y"]}\n', words="w", tags="t")
    assert rows == [((1,), ("a",), ("X",))]


def test_words_alone(tmp_path):
    conllu = "".join(f"{number}\t{word}" + "\t_" * 8 + "\n" for number, word in enumerate("ab", 1))
    for name, content in (("a.txt", "a\nb\n"), ("a.jsonl", '{"words": ["a", "b"]}\n'), ("a.conllu", conllu)):
        rows, _, _ = read(tmp_path, name, content, labelled=False)
        assert [row[1:] for row in rows] == [(("a", "b"), None)]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.xml", "", {}, r"the name of a file of sentences must end in \.conll.*Received: '\.xml'"),
        ("a.txt", "\n\n", {}, "there must be sentences. Received: none"),
        ("a.txt", "word\n", {}, "a.txt: there must be two columns at least. Received: 'word'"),
        ("a.txt", "a O\n", {"tags": "3"}, "a column must be a number from 1 to 2. Received: '3'"),
        ("a.conllu", CONLLU, {"tags": "pos"}, "a number from 1 to 10, or id, form, .* Received: 'pos'"),
        ("a.txt", "a O\n", {"tags": "1"}, "words and tags must be columns of their own. Received: 'column 1 for both'"),
        ("a.txt", "a O\nb\n", {}, "usable sentences. Received: .*a.txt:1 line 2 has 1 columns, the first one 2"),
        ("a.jsonl", "{}\n", {}, "there must be JSON objects"),
        (
            "a.jsonl",
            '{"words": [], "x": []}\n',
            {},
            r"which key is of the tags\? Name it with --label. Its keys: words, x",
        ),
        (
            "a.jsonl",
            '{"tokens": ["a"], "pos_tags": ["X"], "ner_tags": ["O"]}\n',
            {},
            r"which of ner_tags, pos_tags is of the tags\?",
        ),
        (
            "a.jsonl",
            '{"words": ["a"], "tags": [1]}\n',
            {},
            "a.jsonl:1 tags must be a list of texts. Received: 1; write",
        ),
    ],
)
def test_bad_files(tmp_path, name, content, options, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, name, content, **options)
    with pytest.raises(InputError, match=r"none\.txt: no such file"):
        Sentences(tmp_path / "none.txt")


@pytest.mark.long
def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("word B-X\nanother I-X\nlast O\n\n" * 30_000)
    tracemalloc.start()
    assert sum(len(row.words) for row in Sentences(path).rows(lambda line, why: None)) == 90_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_the_treebank():
    source = Sentences(data.require("ud_english_ewt/en_ewt-ud-dev.conllu"))
    rows = list(source.rows(lambda line, why: pytest.fail(why)))
    assert (len(rows), sum(len(row.words) for row in rows)) == (2001, 25_147)
    assert len({tag for row in rows for tag in row.tags}) == 17
