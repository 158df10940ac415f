import logging

from pipeline import steps


def test_a_line_as_a_step_begins_and_one_as_it_ends(capsys):
    lines = steps.StepLines(2)
    logger = logging.Logger("test")
    logger.addHandler(lines)
    logger.info("Component %s is running.", "CorpusGen")
    assert lines.running == "CorpusGen"
    logger.info("A cached execution %d is used.", 7)
    logger.info("Component %s is finished.", "CorpusGen")
    logger.info("Component %s is running.", "Trainer")
    logger.info("something else")
    logger.info("Component %s is finished.", "Trainer")
    assert capsys.readouterr().err.splitlines() == [
        "[ 1/2] CorpusGen: reading documents",
        "        cached",
        "[ 2/2] Trainer: training",
        "        done in 0:00",
    ]
