"""Every command in a folder whose path has all that a glob, a shell or a URL would take for something else."""

import pytest
from click.testing import CliRunner

from pipeline import cli

FOLDER = "home [1] *? q'\"% {a,b}#ü 中 " + "long " * 20


def bert(*arguments):
    result = CliRunner().invoke(cli.bert, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.long
@pytest.mark.timeout(600)
def test_from_text_to_answers(tmp_path):
    home = tmp_path / FOLDER
    (home / "corpus").mkdir(parents=True)
    for name in ("[a].txt", "w*.txt"):
        texts = (f"The river number {number} flows to the sea.\nIt is a {name} river." for number in range(40))
        (home / "corpus" / name).write_text("\n\n".join(texts))
    vocab, examples, trained = home / "[v].txt", home / "ex [2]", home / "out [3]"
    bert("vocab", "--input", home / "corpus" / "*.txt", "--size", 120, "--output", vocab)
    lengths = ("--max-seq-length", 32, "--max-predictions", 5, "--dupe-factor", 2, "--workers", 2)
    bert("examples", "--input", home / "corpus", "--vocab", vocab, "--output", examples, *lengths)
    training = ("--vocab", vocab, "--config", "tiny", "--steps", 4, "--batch-size", 8, "--checkpoint-every", 2)
    bert("train", "--examples", examples, "--output", trained, *training)
    bert("train", "--examples", examples / "*.tfrecord", "--output", trained, *training)  # goes on from its checkpoint
    assert len(list((trained / "checkpoints").glob("*.index"))) == 2  # and older ones are removed
    bert("convert", "--input", trained / "model", "--output", home / "[google]", "--to", "google")
    bert("convert", "--input", home / "[google]", "--output", home / "[back]", "--to", "ours")
    bert("export", "--model", home / "[back]", "--output", home / "exported [4]")
    assert "sea" in bert("predict", "--model", home / "exported [4]" / "bert" / "1", "The river flows to the sea.")
