"""One step on Kubeflow: the command of every container of the compiled pipeline.

TFX's own entry point does not get on with Kubeflow Pipelines 2: it stops at the first artifact without a type, and
wants a client for S3. This one hands over to it with local paths (see `pipeline.kubeflow.invocation`). Bad input ends
in one line and status 1, a model that is not pushed in one line and status 3, what else goes wrong in a traceback and
status 1.
"""

import argparse
import json
import pathlib
import sys

from pipeline import terminal

terminal.quiet()  # before TensorFlow is imported

from pipeline import values  # noqa: E402
from pipeline.history import trainings  # noqa: E402
from pipeline.history.homes import read_json  # noqa: E402
from pipeline.kubeflow import claim, ending, invocation  # noqa: E402
from pipeline.retention import RetentionSettings  # noqa: E402
from pipeline.runs import lean  # noqa: E402
from pipeline.runs.process import Refused  # noqa: E402
from preprocessing.errors import InputError  # noqa: E402


def main(arguments: list[str]) -> int:
    """Gives the exit status."""
    return ending.status(lambda: run(arguments))


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
    kept = pathlib.Path(ending.told().get("kept", ""))
    outputs = told["outputs"].get("artifacts", {}) if kept.name else {}
    outputs = {key: artifact["uri"] for key, artifact in invocation.each(outputs)}
    claim.lay_beside(kept, outputs)
    given.json_serialized_invocation_args = json.dumps(told)

    lean.without_all_components()
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor

    kubeflow_v2_run_executor._run_executor(given, beam_args)
    output = pathlib.Path(told["outputs"]["outputFile"])
    said = json.loads(output.read_text())
    output.write_text(json.dumps(invocation.restore(said, places)))
    claim.keep_outputs(kept, outputs)
    _end_training(told)
    for model in said.get("artifacts", {}).get("pushed_model", {}).get("artifacts", ()):
        _end_pushing(model["metadata"], told["inputs"])


def _end_training(told: dict) -> None:
    """Of a Trainer: what must outlast this container goes to the claim, and Kubeflow knows of the rest from here on."""
    made = told["outputs"].get("artifacts", {})
    config = told["inputs"].get("parameterValues", {}).get("custom_config")
    if config and "model_run" in made:
        from tfx.utils import path_utils

        asked = json.loads(config)
        work = pathlib.Path(asked["work_folder"])
        (examples,) = told["inputs"]["artifacts"]["examples"]["artifacts"]
        report = read_json(pathlib.Path(examples["uri"], "report.json"))
        for model in made["model"]["artifacts"]:
            exported = path_utils.serving_model_path(model["uri"])
            claim.keep_checkpoint(
                exported, work.parent, settings=asked["settings"], code=asked["fingerprint"], examples=report
            )
        trainings.remove_ended(work, [result["uri"] for result in made["model_run"]["artifacts"]])


def _end_pushing(pushed: dict, inputs: dict) -> None:
    """Of a Pusher: what the claim need not keep any longer goes. Refused where nothing was pushed."""
    rule = values.build(RetentionSettings, ending.told().get("retention", {}), "retention")
    serving = json.loads(inputs["parameterValues"]["push_destination"])["filesystem"]["base_directory"]
    for path in claim.clean(pathlib.Path(serving), rule):
        print(f"removed {path}, which retention does not keep")
    if not pushed["pushed"]:
        blessings = inputs["artifacts"]["model_blessing"]["artifacts"]
        blessed = all(blessing["metadata"].get("blessed") for blessing in blessings)
        why = "did not pass the gate"
        if blessed:
            from tfx.utils import path_utils

            from pipeline.components.pushed import is_rolled_back

            (model,) = inputs["artifacts"]["model"]["artifacts"]
            back = is_rolled_back(path_utils.serving_model_path(model["uri"]), serving)
            why = "was rolled back before" if back else "is of earlier data than the one that is served"
        raise Refused(f"nothing was pushed, since the model {why}; what is served stays")


def _json(text: str) -> dict:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            "this is the command of a container that Kubeflow starts, which puts JSON in the place of {{$}} "
            f"({error}). Received: {text[:60]!r}"
        ) from None


if __name__ == "__main__":
    ending.end(lambda: run(sys.argv[1:]))
