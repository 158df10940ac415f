"""Several machines that train together: the same command on each, `python -m pipeline.runs.node --node Trainer`, with
TF_CONFIG as TensorFlow knows it. The chief runs the node; this is what the others do.

A worker writes nothing, and the store does not know it. It waits until the chief has begun, trains with it on the same
examples, and ends when the chief has ended, so that none of them takes the other for lost.
"""

import json
import os
import pathlib
import time

from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.orchestration import data_types_utils
from tfx.orchestration.portable import inputs_utils
from tfx.proto.orchestration import pipeline_pb2

from pipeline import trainer
from pipeline.runs import compiled, launching, process
from preprocessing.errors import require

_POLL_SECONDS = 0.5


def work(pipeline: pipeline_pb2.Pipeline, name: str, store: compiled.Store) -> str:
    """Gives how the node ended, as the chief's does. Raises Failed where the chief has failed."""
    state = _wait(pipeline, name, store, joins=True)
    if state == "running":
        _train(pipeline, name, store)
        state = _wait(pipeline, name, store, joins=False)
    if state == "failed":
        raise process.Failed(f"{name}: the chief has failed, whose log says why")
    return state


def _wait(pipeline: pipeline_pb2.Pipeline, name: str, store: compiled.Store, joins: bool) -> str:
    """Until the chief has begun to train, where this one is to join it, or has ended. Before, a try that failed may be
    what the store knows of it."""
    first = None
    while True:
        with store as handle:
            execution = launching.executions(pipeline, handle.store).get(name)
        found = launching.state_of(execution), execution and execution.last_update_time_since_epoch
        first = first or found
        begun = False
        if execution is not None and found[0] == "running":
            begun = os.path.isdir(compiled.output_folders(pipeline, name, execution.id)[0])
        ended = found[0] in ("ran", "cached") or (found[0] == "failed" and not (joins and found == first))
        if ended or (joins and begun):
            return found[0]
        time.sleep(_POLL_SECONDS)


def _train(pipeline: pipeline_pb2.Pipeline, name: str, store: compiled.Store) -> None:
    (node,) = (node.pipeline_node for node in pipeline.nodes if node.pipeline_node.node_info.id == name)
    given = data_types_utils.build_parsed_value_dict(
        inputs_utils.resolve_parameters_with_schema(node_parameters=node.parameters)
    )
    with store as handle:
        (inputs,) = inputs_utils.resolve_input_artifacts(pipeline_node=node, metadata_handle=handle)
    require(given["run_fn"] == f"{trainer.__name__}.run_fn", "several machines pretrain only", given["run_fn"])
    examples = pathlib.Path(inputs["examples"][0].uri)
    arguments = FnArgs(
        train_files=[str(examples / "Split-train" / "*")], custom_config=json.loads(given["custom_config"])
    )
    trainer.run_fn(arguments)
