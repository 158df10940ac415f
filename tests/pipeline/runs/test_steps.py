from pipeline.runs import steps


def test_a_line_as_a_step_begins_and_one_as_it_ends(capsys):
    steps.show_begin(1, 2, "CorpusGen")
    steps.show_end("cached", 0.1)
    steps.show_begin(2, 2, "Trainer")
    steps.show_end("ran", 313.4)
    assert capsys.readouterr().err.splitlines() == [
        "[ 1/2] CorpusGen: reading documents",
        "        cached",
        "[ 2/2] Trainer: training",
        "        done in 5:13",
    ]
