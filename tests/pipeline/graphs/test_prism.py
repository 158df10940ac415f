"""One step of the pipeline on a portable runner, with its workers in processes of their own; the others as ever."""

import hashlib
import os
import shutil

import pytest
from apache_beam.options.pipeline_options import PrismRunnerOptions
from apache_beam.runners.portability.prism_runner import PrismRunner
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline

from pipeline import settings
from pipeline.graphs import parts, pretraining
from tests.data import ROOT

pytestmark = [pytest.mark.runners, pytest.mark.timeout(900)]


def examples(folder, step_beam_args) -> dict[str, str]:
    """Names and digests of the example files that the data steps of the smoke pipeline write."""
    run = settings.smoke()
    nodes, _ = pretraining.data_steps(run, "the embedded corpus")
    parts.add_beam_args(nodes, step_beam_args)
    LocalDagRunner().run(
        Pipeline(
            "data",
            str(folder),
            metadata.sqlite_metadata_connection_config(str(folder / "metadata.sqlite")),
            components=nodes,
            beam_pipeline_args=list(run.beam_args),
        )
    )
    files = sorted((folder / "MaskedExamplesGen" / "examples").glob("*/Split-*/*"))
    return {f"{file.parent.name}/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_step_on_prism_gives_the_same_bytes(tmp_path, monkeypatch):
    prism = os.environ.get("PRISM") or shutil.which("prism") or str(ROOT / ".uv" / "prism")
    if not os.path.exists(prism):
        pytest.skip("needs Beam's Prism runner: `make prism`, or PRISM names it")
    own = ("--runner=PrismRunner", f"--prism_location={prism}", "--environment_type=LOOPBACK")
    started, start = [], PrismRunner.run_pipeline

    def run_pipeline(runner, pipeline, options):
        started.append(options.view_as(PrismRunnerOptions).prism_location)
        return start(runner, pipeline, options)

    monkeypatch.setattr(PrismRunner, "run_pipeline", run_pipeline)
    here = examples(tmp_path / "here", {})
    there = examples(tmp_path / "there", {"MaskedExamplesGen": own})
    assert here
    assert there == here
    assert set(started) == {prism}
