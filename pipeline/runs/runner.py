"""Runs the nodes of a pipeline one after the other, as TFX's LocalDagRunner does, and records what each did."""

import time

from tfx.orchestration.local.local_dag_runner import LocalDagRunner

from pipeline.runs import compiled, launching, steps
from pipeline.runs.record import Artifacts, Record


class Runner(LocalDagRunner):
    """`run(pipeline)`, as `tfx` calls it; `tfx pipeline create` puts something else in the place of that method."""

    def __init__(self, record: Record):
        super().__init__()
        self._record = record

    def run_with_ir(self, pipeline, run_options=None):
        compiled.bind(pipeline, self._record.run_id)
        store = compiled.store(pipeline)
        self._record.start()
        for number, name in enumerate(compiled.names(pipeline), 1):
            self._record.begin(name)
            steps.show_begin(number, len(pipeline.nodes), name)
            began, state = time.monotonic(), "failed"
            artifacts: Artifacts = {}
            try:
                state, artifacts = launching.launch(pipeline, name, store)
                launching.remove_ended(self._record.folder.parent / "training", artifacts)
            finally:
                self._record.end(state, time.monotonic() - began, artifacts)
            steps.show_end(state, time.monotonic() - began)
