"""`bert features`, from tables to vectors and figures."""

import functools
import json

import numpy as np
import pyarrow.parquet
import pytest
import scipy.stats
import tensorflow as tf
from click.testing import CliRunner

from model import checkpoints
from pipeline import cli
from pipeline.features import sources
from pipeline.features.choices import Choice
from preprocessing.errors import InputError
from preprocessing.tokenizer import BertTokenizer
from serving.export import exporting, golden
from serving.signatures import EMBEDDING, FEATURES
from tests.serving import small_model

TEXTS = ("the river", "paris is the capital of france", "it lies on a river", "no mask here")
WET = ["the river runs", "a river is here", "it is on the river", "river of france", "no river here"]
DRY = ["paris is here", "the capital", "it is no runner", "a mask , here", "paris of france"]


def run(*arguments):
    return CliRunner().invoke(cli.bert, ["features", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    vocab = small_model.write_vocab(folder)
    checkpoints.save(small_model.encoder((), 4), folder / "checkpoint", vocab, lower_case=True)
    (folder / "lines.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    (folder / "pairs.csv").write_text('"the river",it lies on a river,3.5\nparis,the capital,5\nno mask,a river,0.5\n')
    rows = [*((text, "wet") for text in WET), *((text, "dry") for text in DRY)] * 4
    (folder / "labelled.tsv").write_text("".join(f"{text}\t{label}\n" for text, label in rows))
    return folder


@functools.cache
def states(text):
    """Hidden states [layers + 1, tokens, H] and the pooler's output [H], by the encoder itself."""
    tokenizer = BertTokenizer(small_model.VOCAB, True)
    ids = [tokenizer.cls_id, *tokenizer.tokenize([text]).to_list()[0], tokenizer.sep_id]
    inputs = {"input_ids": tf.constant([ids]), "input_mask": tf.ones([1, len(ids)], tf.int32)}
    outputs = small_model.encoder((), 4)(
        inputs | {"segment_ids": tf.zeros_like(inputs["input_ids"])}, hidden_states=True
    )
    return np.stack(outputs["hidden_states"])[:, 0], outputs["pooled_output"].numpy()[0]


VECTORS = {
    ("last", "mean", False): lambda states: states[4].mean(0),
    ("-2", "mean", False): lambda states: states[3].mean(0),
    ("0", "max", False): lambda states: states[0].max(0),
    ("last4:sum", "cls", False): lambda states: states[1:, 0].sum(0),
    ("2..3:mean", "mean", False): lambda states: states[2:4].mean((0, 1)),
    ("last3:concat", "mean", False): lambda states: states[:1:-1].mean(1).ravel(),
    ("last", "mean", True): lambda states: states[4].mean(0) / np.linalg.norm(states[4].mean(0)),
}


def gives_all_choices(source):
    """In one pass."""
    choices = [Choice.read(*typed, source.last) for typed in VECTORS]
    found, cut = source.ask(choices)(TEXTS)
    for typed, vectors in zip(VECTORS, found, strict=True):
        expected = [VECTORS[typed](states(text)[0]) for text in TEXTS]
        np.testing.assert_allclose(vectors, expected, atol=2e-5, err_msg=str(typed))
    assert not cut.any()
    assert (source.last, source.hidden) == (4, 16)


def test_vectors_are_those_of_the_encoder(folder, tmp_path):
    path = tmp_path / "vectors.npy"
    told = run("--model", folder / "checkpoint", "--input", folder / "lines.txt", "--output", path).output
    np.testing.assert_allclose(np.load(path), [states(text)[0][4].mean(0) for text in TEXTS], atol=2e-5)
    for words in ("4 rows", "does not say which vector it was trained for", "layers 4, pooling mean\n"):
        assert words in told


def test_layers_and_poolings_are_those_of_the_encoder(folder):
    source = sources.opened(str(folder / "checkpoint"), None, None, {}, lambda line: None)
    gives_all_choices(source)
    (pooler,), _ = source.ask([sources.chosen(None, "pooler", source)])(TEXTS)
    np.testing.assert_allclose(pooler, [states(text)[1] for text in TEXTS], atol=2e-5)


def test_parquet_says_the_lines_and_how_it_was_made(folder, tmp_path):
    table = tmp_path / "table.tsv"
    table.write_text("id\ttext\n1\tthe river\n2\t\n3\tparis\n4\n")
    vectors = tmp_path / "vectors.parquet"
    asked = ("--model", folder / "checkpoint", "--input", table, "--layers", "2..3:mean")
    told = run(*asked, "--output", vectors).output
    assert f"2 rows cannot be used and have no vector: {table}:3 text (text) is empty; {table}:5 has 1 columns" in told
    found = pyarrow.parquet.read_table(vectors)
    assert found["line"].to_pylist() == [2, 4]
    expected = [states(text)[0][2:4].mean((0, 1)) for text in ("the river", "paris")]
    np.testing.assert_allclose(found["vector"].to_pylist(), expected, atol=2e-5)
    assert found.schema.metadata[b"features"] == b"layers 2..3:mean, pooling mean"
    with pytest.raises(InputError, match=r"vectors.npy: in .npy a vector's place is all .* Received: 2 rows without"):
        run(*asked, "--output", tmp_path / "vectors.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.tsv", "vectors.parquet"]


def test_a_checkpoint_says_what_it_was_trained_for(folder, tmp_path):
    checkpoints.save_huggingface(small_model.encoder((), 4), tmp_path / "own", small_model.VOCAB, True)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (tmp_path / "own" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "own" / "1_Pooling").mkdir()
    (tmp_path / "own" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    asked = ("--model", tmp_path / "own", "--input", folder / "lines.txt", "--output", tmp_path / "vectors.npy")
    assert "layers 4, pooling cls, divided by its length" in run(*asked).output
    source = sources.opened(str(tmp_path / "own"), None, None, {"unit_length": False}, lambda line: None)
    assert str(sources.chosen("3", None, source)) == "layers 3, pooling cls"
    modules.append({"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    (tmp_path / "own" / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=r"its own vectors cannot be made; name a --pooling for others.*Dense"):
        run(*asked)
    cls = np.array([states(text)[0][4, 0] for text in TEXTS])
    expected = cls / np.linalg.norm(cls, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), expected, atol=2e-5)


def test_texts_that_are_cut_are_told(folder, tmp_path):
    table = tmp_path / "lines.txt"
    table.write_text(f"paris\n{'the river ' * 30}\n")
    told = run("--model", folder / "checkpoint", "--input", table, "--output", tmp_path / "a.npy").output
    assert f"{table}: 1 texts have more tokens than the model takes, and were cut" in told


def test_pairs_have_a_score_that_is_compared_with_the_label(folder, tmp_path):
    asked = ("--model", folder / "checkpoint", "--input", folder / "pairs.csv", "--text", 1, "--second", 2)
    told = run(*asked, "--label", 3, "--output", tmp_path / "a.parquet", "--report", tmp_path / "r.json").output
    pairs = [("the river", "it lies on a river"), ("paris", "the capital"), ("no mask", "a river")]
    vectors = [[states(text)[0][4].mean(0) for text in pair] for pair in pairs]
    expected = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in vectors]
    np.testing.assert_allclose(pyarrow.parquet.read_table(tmp_path / "a.parquet")["score"], expected, atol=1e-5)
    (found,) = json.loads((tmp_path / "r.json").read_text())["found"]
    assert found["spearman"] == pytest.approx(scipy.stats.spearmanr(expected, [3.5, 5, 0.5])[0])
    assert found["pearson"] == pytest.approx(scipy.stats.pearsonr(expected, [3.5, 5, 0.5])[0], abs=1e-4)
    assert f"4       mean     {found['pearson']:.4f}   {found['spearman']:.4f}" in told
    run(*asked, "--output", tmp_path / "a.npy")
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), expected, atol=1e-5)


def test_all_choices_compared_by_pairs(folder):
    asked = ("--model", folder / "checkpoint", "--input", folder / "pairs.csv", "--text", 1, "--second", 2)
    one = run(*asked, "--label", 3, "--layers", "2", "--pooling", "max").output.splitlines()[-1]
    table = run(*asked, "--label", 3, "--compare").output.splitlines()
    (same,) = (line for line in table if line.split()[:2] == ["2", "max"])
    assert same.split() == one.split()


def test_logistic_regression(folder, tmp_path):
    test = tmp_path / "test.tsv"
    test.write_text("the river runs\twet\na mask , here\tdry\nparis\todd\n")
    asked = ("--model", folder / "checkpoint", "--input", folder / "labelled.tsv", "--report", tmp_path / "r.json")
    told = run(*asked, "--logistic", "--layers", 0).output
    report = json.loads((tmp_path / "r.json").read_text())
    (found,) = report["found"]
    assert found["accuracy"] == 1.0  # "river" is in all texts of one label
    assert found["f1"] == {"dry": 1.0, "wet": 1.0}
    assert "30 rows of train, 10 of test, 2 labels" in told
    assert "dry  F1 1.0000  5 rows" in told
    told = run(*asked, "--logistic", "--layers", 0, "--test", test).output
    assert "40 rows of train, 3 of test" in told
    assert "1 rows of test have none of the labels of train and count as errors" in told
    assert json.loads((tmp_path / "r.json").read_text())["found"][0]["accuracy"] == pytest.approx(2 / 3)


def test_all_choices_compared_by_logistic_regression(folder, tmp_path):
    asked = ("--model", folder / "checkpoint", "--input", folder / "labelled.tsv", "--report", tmp_path / "r.json")
    told = run(*asked, "--compare").output
    found = json.loads((tmp_path / "r.json").read_text())["found"]
    assert len(found) == (5 + 2) * 3 + 1
    shown = [line.split()[:2] for line in told.splitlines()]
    assert all([one["layers"], one["pooling"]] in shown for one in found)
    assert "Best by the rows that chose C: layers " in told
    run(*asked, "--logistic", "--layers", "last4:concat", "--pooling", "max")
    (alone,) = json.loads((tmp_path / "r.json").read_text())["found"]
    (same,) = (one for one in found if (one["layers"], one["pooling"]) == ("1..4:concat", "max"))
    assert alone == same


@pytest.fixture(scope="module")
def exported(folder):
    patch = pytest.MonkeyPatch()
    (all_states,) = (one for one in FEATURES if one.name == "features_all")
    few = functools.partial(exporting.export_version, signatures=(EMBEDDING, all_states))
    patch.setattr(exporting, "export_version", few)
    patch.setattr(exporting, "_answer_elsewhere", lambda path: golden.answer(str(path)))
    asked = ["--model", folder / "checkpoint", "--output", folder / "served", "--embedding", "pooler"]
    result = CliRunner().invoke(cli.bert, ["export", *map(str, asked)], catch_exceptions=False)
    patch.undo()
    assert result.exit_code == 0
    return folder / "served" / "bert"


def test_an_export_gives_the_same_vectors(folder, exported, tmp_path):
    gives_all_choices(sources.opened(str(exported), None, None, {}, lambda line: None))
    asked = ("--input", folder / "lines.txt", "--output", tmp_path / "vectors.npy")
    assert "layers 4, pooling pooler" in run("--model", exported / "1", *asked).output
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), [states(text)[1] for text in TEXTS], atol=2e-5)
    with pytest.raises(InputError, match=r"texts are read as the export does. Received: --max-seq-length"):
        run("--model", exported, *asked, "--max-seq-length", 16)
    with pytest.raises(InputError, match="answers with its pooler only as its own embedding"):
        run("--model", exported, *asked, "--pooling", "pooler", "--unit-length")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name an --output, or --logistic, --compare or --label"),
        (("--output", "a.csv"), "--output must end in .parquet or .npy"),
        (("--logistic", "--second", 2), "--logistic is of single texts"),
        (("--compare", "--second", 2), "--compare of pairs needs --label"),
        (("--label", 2, "--output", "a.npy"), "--label is for"),
        (("--output", "a.npy", "--test", "b.tsv"), "--test is for"),
        (("--output", "a.npy", "--logistic"), "--output is not with --logistic"),
        (("--compare", "--layers", "2"), "--compare takes all"),
        (("--logistic", "--separator", ","), "--separator and --id are not for vectors"),
        (("--output", "a.npy", "--layers", "9"), "--layers must be of the model's: 0, the embeddings, to 4"),
        (("--second", 2, "--label", 2), "must be columns of their own"),
        (("--logistic", "--model", "/none"), "/none: no such checkpoint"),
        (("--text", 2, "--second", 1, "--label", 1), "columns of their own"),
    ],
)
def test_bad_input(arguments, message, folder):
    asked = {"--model": folder / "checkpoint", "--input": folder / "labelled.tsv"}
    with pytest.raises(InputError, match=message):
        run(*(part for pair in asked.items() for part in pair), *arguments)


def test_labels_of_pairs_must_be_numbers(folder, tmp_path):
    table = tmp_path / "pairs.csv"
    table.write_text("a river,the river,1\nparis,france,much\n")
    asked = ("--model", folder / "checkpoint", "--input", table, "--text", 1, "--second", 2, "--label", 3)
    with pytest.raises(InputError, match=r"pairs.csv:2: the label of a pair must be a number. Received: 'much'"):
        run(*asked)
    table.write_text("a river,the river,1\nparis,france,\nparis,a river,2\n")
    assert "1 rows have no label and are left out of the correlations" in run(*asked).output
