"""One run on this machine: the home folder, the lock, the record, and what is told to a person."""

import contextlib
import dataclasses
import errno
import hashlib
import logging
import os
import pathlib
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from pipeline import settings as pipeline_settings
from pipeline import terminal
from pipeline.finetuning.settings import FinetuningSettings
from pipeline.history.homes import StoreError
from pipeline.runs import lean, locks
from pipeline.runs.process import Refused
from preprocessing import storage
from preprocessing.errors import InputError, require
from preprocessing.settings import SPAN

if TYPE_CHECKING:
    from tfx.orchestration.pipeline import Pipeline

    from pipeline.runs.record import Record

_KEPT_SECONDS = 7 * 24 * 3600


def from_environment(environment: Mapping[str, str]) -> tuple[pipeline_settings.Settings, pathlib.Path]:
    """Settings and home folder that BERT_SETTINGS, BERT_CORPUS, BERT_SPAN and BERT_HOME ask for (see local_runner)."""
    settings = pipeline_settings.load(environment.get("BERT_SETTINGS") or "demo")
    try:
        patterns = tuple(shlex.split(environment.get("BERT_CORPUS") or ""))
    except ValueError as error:
        received = environment["BERT_CORPUS"]
        raise InputError(f"CORPUS is read as a shell reads words ({error}). Received: {received}") from None
    span = environment.get("BERT_SPAN")
    require(not span or span.isdecimal(), "BERT_SPAN must be a number", span)
    if isinstance(settings, FinetuningSettings):
        rule = "CORPUS is what is pretrained on; fine-tuning takes the files `train` and `eval` of its settings"
        require(not patterns, rule, " ".join(patterns))
    else:
        corpus = dataclasses.replace(settings.corpus, input=patterns or settings.corpus.input)
        # Of other corpora it says nothing: a scheduler that gives each run its day would have them all read anew.
        if span and any(SPAN in pattern for pattern in corpus.input):
            corpus = dataclasses.replace(corpus, newest_span=int(span))
        settings = settings.replace(corpus=corpus)
    home = environment.get("BERT_HOME") or ".bert"
    require("://" not in home, "BERT_HOME must be a local folder", home)
    return settings, pathlib.Path(home).absolute()


def run(settings: pipeline_settings.Settings, home: pathlib.Path) -> None:
    """Runs the pipeline once. `home` keeps `artifacts/`, `metadata.sqlite`, `training/` (checkpoints of a run that has
    not finished), `serving/<name>/<version>/`, `reports/` and `logs/`. Raises InputError for bad input, Refused where
    no model was pushed; what else goes wrong is in the log. The settings' webhook is told of all of these."""
    from pipeline.history import code
    from pipeline.runs import notice
    from pipeline.runs.record import Record

    webhook = notice.address(settings.webhook)
    with locks.held(home):
        storage.write_whole(settings.to_json(), home / "settings.json")
        record = Record(home / "reports", settings.name)
        record.note(settings=dataclasses.asdict(settings), code=code.state())
        try:
            report = _run(settings, home, record)
        except BaseException as error:
            with contextlib.suppress(OSError):
                record.fail(cause(error))
            if isinstance(error, Exception):  # and not Ctrl-C
                notice.send(webhook, notice.failed(record, home, cause(error), input_error(error) is not None))
            raise
        if report and not report["pushed_to"]:
            notice.send(webhook, notice.refused(record, home, report))
            raise refusal(report, record)


def refusal(report: dict[str, Any], record: "Record") -> Refused:
    """Of a run that pushed nothing."""
    from pipeline.history.runs import of_unpushed

    why = {"rolled back": "was rolled back", "outdated": "is of earlier data than the one that is served"}
    said = why.get(of_unpushed(report), "did not pass the gate")
    return Refused(f"nothing was pushed, since the model {said}: see {record.place() / 'report.json'}")


def without_signs(home: pathlib.Path) -> pathlib.Path:
    """The home, or a link to it where its path has signs of globs: TFX's steps take the names of their files for
    patterns. It is the same one in each run, since earlier results are found by it."""
    if not re.search(r"[*?[\]{}\\]", str(home)):
        return home
    name = f"bert-{os.getuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"
    link = pathlib.Path(tempfile.gettempdir(), name)
    with contextlib.suppress(FileExistsError):
        link.symlink_to(home)
    if not link.is_symlink() or os.readlink(link) != str(home) or link.lstat().st_uid != os.getuid():
        raise InputError(f"{home}: a home with one of *?[]{{}} in its path needs the link {link}, which is another's")
    return link


def create_pipeline(settings: pipeline_settings.Settings, home: pathlib.Path) -> "Pipeline":
    """The pipeline with its places in a home. Raises InputError for a corpus that is not there."""
    if not isinstance(settings, FinetuningSettings) and settings.corpus.input:
        from preprocessing.corpus import inputs

        inputs.check_input(settings.corpus)
    lean.without_all_components()
    from pipeline.graphs import finetuning, pretraining
    from pipeline.history import connection

    plain = without_signs(home)
    graph: Any = finetuning if isinstance(settings, FinetuningSettings) else pretraining
    return graph.create_pipeline(
        settings,
        root=str(plain / "artifacts"),
        metadata=connection.config(plain),
        serving=str(serving_folder(home, settings.name)),
        work=str(plain / "training"),
    )


def serving_folder(home: pathlib.Path, name: str) -> pathlib.Path:
    """Of the models that a pipeline pushes."""
    return home / "serving" / name


def _run(settings, home, record):
    from pipeline.history import connection

    connection.begin(home)
    pipeline = create_pipeline(settings, home)
    from pipeline.runs import steps
    from pipeline.runs.runner import Runner

    log = home / "logs" / "pipeline.log"
    with steps.log_to(log), terminal.native_log(log.with_name("native.log")):
        try:
            Runner(record).run(pipeline)
        except Exception as error:
            name = record.nodes[-1]["node"] if record.nodes else "the pipeline"
            logging.getLogger(__name__).exception("%s failed", name)
            said = input_error(error)
            if said is None:
                click.echo(f"bert: {name} failed; the whole log is {log}", err=True)
                raise
            raise InputError(f"{name}: {said}") from error
        if record.nodes:  # `tfx pipeline create` only looks at the pipeline
            return finish(record, home, settings.name)
        return None


def finish(record: "Record", home: pathlib.Path, name: str) -> dict[str, Any]:
    """The last step of a run whose nodes have all ended: pushes its model again where that is called for, writes the
    report, shows and gives it, and removes what no run needs any more."""
    from pipeline.runs import page, summary

    report = summary.collect(record, str(serving_folder(home, name)))
    summary.copy_files(report, record.place())
    record.finish(report)
    page.of_run(home, record, report)
    summary.show(report)
    remove_superseded(home / "training")
    return report


def remove_superseded(work: pathlib.Path) -> None:
    """After a run that came to its end: trainings that nothing was written to for seven days."""
    from pipeline.history import retention

    for folder in retention.broken_off(work, _KEPT_SECONDS):
        shutil.rmtree(folder, ignore_errors=True)


def cause(error: BaseException) -> str:
    """One line on what went wrong."""
    return input_error(error) or f"{type(error).__name__}: {error}".splitlines()[0]


def input_error(error: BaseException | None) -> str | None:
    """The message for a person in an exception or its causes; Beam and TFX wrap what a step raises."""
    for found in causes(error):
        if os.strerror(errno.ENOSPC) in str(found):  # of TensorFlow's and Beam's errors, and of those made of them, too
            return f"{_named_in(found) or 'the output'}: no space left on the device; make room, or set BERT_HOME"
        if isinstance(found, InputError):
            return str(found)
        if isinstance(found, OSError) and found.filename:
            return f"{found.filename}: {found.strerror}"
        if isinstance(found, StoreError):
            return str(found)
    return None


def _named_in(error: BaseException) -> str | None:
    """The file that an error is about."""
    if isinstance(error, OSError) and error.filename:
        return str(error.filename)
    found = re.search(r"(?:^|[\s'\"(])(/[^;:'\n]+)[;:']", str(error))
    return found[1] if found else None


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
