"""TFX's Pusher, which numbers versions ever higher and pushes nothing that was rolled back or is outdated."""

import os

from tfx.components.pusher import component as pusher
from tfx.components.pusher import executor as pusher_executor
from tfx.dsl.components.base import executor_spec
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import io_utils, proto_utils

from pipeline.components import pushed


class Executor(pusher_executor.Executor):
    """See `pushed.push`."""

    def Do(self, input_dict, output_dict, exec_properties):
        self._log_startup(input_dict, output_dict, exec_properties)
        result = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        folder = None
        if self.CheckBlessing(input_dict):
            model = self.GetModelPath(input_dict)
            folder = pushed.push(model, destination.filesystem.base_directory)
        if folder is None:
            self._MarkNotPushed(result)
            return
        io_utils.copy_dir(model, result.uri)
        self._MarkPushed(result, pushed_destination=folder, pushed_version=os.path.basename(folder))


class Pusher(pusher.Pusher):
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
