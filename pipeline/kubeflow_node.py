"""One step on Kubeflow: the command of every container of the compiled pipeline.

TFX's own entry point does not get on with Kubeflow Pipelines 2: it stops at the first artifact without a type, and
wants a client for S3. This one hands over to it with local paths (see `pipeline.kubeflow.invocation`). Bad input ends
in one line and status 1, what else goes wrong in a traceback and status 1.
"""

import argparse
import json
import os
import pathlib
import sys
import traceback

from pipeline import terminal

terminal.quiet()  # before TensorFlow is imported

from pipeline.history import trainings  # noqa: E402
from pipeline.kubeflow import claim, invocation  # noqa: E402
from pipeline.runs import lean  # noqa: E402
from pipeline.runs.run import input_error  # noqa: E402
from preprocessing.errors import InputError  # noqa: E402


def main(arguments: list[str]) -> int:
    """Gives the exit status."""
    try:
        run(arguments)
    except Exception as error:
        cause = input_error(error)
        if cause is None or os.environ.get("BERT_DEBUG"):
            traceback.print_exc()
        if cause is not None:
            print(f"bert: error: {cause}", file=sys.stderr)
        return 1
    return 0


def run(arguments: list[str]) -> None:
    """The arguments are those of TFX's entry point, Beam's at the end. Raises what the step raises."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--executor_class_path", required=True)
    parser.add_argument("--json_serialized_invocation_args", required=True)
    parser.add_argument("--json_serialized_inputs_spec_args", required=True)
    parser.add_argument("--volumes", default="/", help="Folder in which Kubeflow's launcher has its copies")
    given, beam_args = parser.parse_known_args(arguments)
    told = _json(given.json_serialized_invocation_args)
    spec = _json(given.json_serialized_inputs_spec_args)
    places = invocation.prepare(told, spec, beam_args, given.volumes)
    given.json_serialized_invocation_args = json.dumps(told)

    lean.without_all_components()
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    kubeflow_v2_run_executor._run_executor(given, beam_args)
    output = pathlib.Path(told["outputs"]["outputFile"])
    output.write_text(json.dumps(invocation.restore(json.loads(output.read_text()), places)))
    _end_training(told)


def _end_training(told: dict) -> None:
    """Of a Trainer: what must outlast this container goes to the claim, and Kubeflow knows of the rest from here on."""
    made = told["outputs"].get("artifacts", {})
    config = told["inputs"].get("parameterValues", {}).get("custom_config")
    if config and "model_run" in made:
        from tfx.utils import path_utils

        work = pathlib.Path(json.loads(config)["work_folder"])
        for model in made["model"]["artifacts"]:
            claim.keep_checkpoint(path_utils.serving_model_path(model["uri"]), work.parent)
        trainings.remove_ended(work, [result["uri"] for result in made["model_run"]["artifacts"]])


def _json(text: str) -> dict:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            "this is the command of a container that Kubeflow starts, which puts JSON in the place of {{$}} "
            f"({error}). Received: {text[:60]!r}"
        ) from None


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # TensorFlow's threads abort now and then at the end of a process, after success
