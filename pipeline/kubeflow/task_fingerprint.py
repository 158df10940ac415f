"""`python -m pipeline.kubeflow.task_fingerprint`: what the rows of a fine-tuning are known by today, and with what its
training begins: the checkpoint that is named, or that of the model pushed last, and what that is known by.

Both are parameters of steps of the pipeline, which is made here as a run on one machine makes it.
"""

import argparse
import json
import pathlib

from pipeline import terminal, values
from pipeline.finetuning.settings import FinetuningSettings
from pipeline.kubeflow import ending
from pipeline.runs import lean

GIVES = {"input_fingerprint": "TaskExamplesGen", "custom_config": "Trainer"}  # parameters, and the steps that have them


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--settings", required=True, help="FinetuningSettings, as JSON")
    parser.add_argument("--mount", required=True, help="Where the claim is")
    for name in GIVES:
        parser.add_argument(f"--{name}", required=True, help=f"File for the parameter of {GIVES[name]}")
    arguments = parser.parse_args()
    settings = values.build(FinetuningSettings, json.loads(arguments.settings), "settings")
    lean.without_all_components()
    from pipeline.graphs import finetuning
    from pipeline.kubeflow import claim

    pipeline = finetuning.create_pipeline(
        settings,
        root="",
        metadata=None,
        serving=claim.serving(arguments.mount, settings.name),
        work=claim.training(arguments.mount),
    )
    nodes = {node.id: node for node in pipeline.components}
    for name, step in GIVES.items():
        output = pathlib.Path(getattr(arguments, name))
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(nodes[step].exec_properties[name])


if __name__ == "__main__":
    terminal.quiet()
    ending.end(main)
