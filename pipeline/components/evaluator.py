"""TFX's Evaluator, for a baseline that may say "none"."""

import os

import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import path_utils

# TFX 1.21 puts it there as it imports all of its components, which `pipeline.runs.lean` spares.
if not hasattr(tfma, "EvalConfig"):
    tfma.EvalConfig = config_pb2.EvalConfig

from tfx.components.evaluator import component as evaluator
from tfx.components.evaluator import executor as evaluator_executor


class Executor(evaluator_executor.Executor):
    """Without a baseline, bounds on a change do not hold."""

    def Do(self, input_dict, output_dict, exec_properties):
        baseline = artifact_utils.get_single_uri(input_dict[standard_component_specs.BASELINE_MODEL_KEY])
        if not fileio.exists(os.path.join(path_utils.serving_model_path(baseline), "saved_model.pb")):
            input_dict = {**input_dict, standard_component_specs.BASELINE_MODEL_KEY: []}
        super().Do(input_dict, output_dict, exec_properties)


class Evaluator(evaluator.Evaluator):
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
