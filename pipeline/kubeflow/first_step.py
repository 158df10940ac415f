"""`python -m pipeline.kubeflow.first_step`: what there is today, as parameters of the steps that depend on it.

Of a pretraining: what the corpus, and the code that reads it, are known by; of data in spans which is the newest, and
what the run takes over from the model pushed last. Of a fine-tuning: what the rows are known by, and with what its
training begins: the checkpoint that is named, or that of the model pushed last. The pipeline is made here as a run on
one machine makes it, and gives the parameters that its steps have.
"""

import argparse
import pathlib
from typing import Any

from pipeline import settings as pipeline_settings
from pipeline import terminal
from pipeline.finetuning.settings import FinetuningSettings
from pipeline.kubeflow import ending
from pipeline.runs import lean


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--settings", required=True, help="PipelineSettings or FinetuningSettings, as JSON")
    parser.add_argument("--mount", required=True, help="Where the claim is")
    parser.add_argument("--give", required=True, nargs=3, action="append", metavar=("STEP", "PARAMETER", "FILE"))
    given = parser.parse_args()
    settings = pipeline_settings.from_json(given.settings)
    lean.without_all_components()
    from pipeline.graphs import finetuning, pretraining
    from pipeline.kubeflow import claim

    graph: Any = finetuning if isinstance(settings, FinetuningSettings) else pretraining
    pipeline = graph.create_pipeline(
        settings,
        root="",
        metadata=None,
        serving=claim.serving(given.mount, settings.name),
        work=claim.training(given.mount),
    )
    nodes = {node.id: node for node in pipeline.components}
    for step, parameter, file in given.give:
        output = pathlib.Path(file)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(nodes[step].exec_properties[parameter])


if __name__ == "__main__":
    terminal.quiet()
    ending.end(main)
