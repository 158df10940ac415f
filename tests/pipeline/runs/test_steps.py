import logging

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


def test_a_log_on_a_full_disk_is_told_once_and_ends_nothing(tmp_path, capsys):
    (tmp_path / "full.log").symlink_to("/dev/full")
    with steps.log_to(tmp_path / "full.log"):
        for number in range(3):
            logging.getLogger("tfx").info("line %d", number)
    told = capsys.readouterr().err.splitlines()
    assert told == [f"{tmp_path}/full.log: the log cannot be written: [Errno 28] No space left on device"]
