"""What every graph is built from: a step's part of the settings, its code, the gate over statistics, the push."""

import dataclasses
import json
import types
from collections.abc import Mapping, Sequence

from tfx.components.example_validator.component import ExampleValidator
from tfx.dsl.components.base.base_beam_component import BaseBeamComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.proto import pusher_pb2
from tfx.types import BaseChannel

from pipeline.components import gates
from pipeline.components.gates import ServingCheck
from pipeline.components.pusher import Pusher
from pipeline.finetuning.settings import FinetuningSettings
from pipeline.graphs import fingerprint
from pipeline.settings import PipelineSettings
from preprocessing.errors import require


def code_of(*modules: types.ModuleType) -> str:
    """Fingerprint of what a step runs: of these modules and what they import within the project."""
    return fingerprint.of_code(*(module.__name__ for module in modules))


def part(settings: PipelineSettings | FinetuningSettings, *names: str) -> str:
    """The settings that one step depends on, so that a change re-runs no other."""
    values = dataclasses.asdict(settings)
    return json.dumps({name: values[name] for name in names}, sort_keys=True)


def validator(prefix: str, statistics: BaseNode, schema: BaseChannel) -> BaseNode:
    """What writes anomalies down; gates stop at them."""
    node = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema)
    return node.with_id(f"{prefix}Validator")


def add_beam_args(nodes: Sequence[BaseNode], args: Mapping[str, Sequence[str]]) -> None:
    """Gives steps Beam options of their own, which count before the pipeline's."""
    beam = {node.id: node for node in nodes if isinstance(node, BaseBeamComponent)}
    for name, own in args.items():
        require(name in beam, f"step_beam_args are for {', '.join(beam)}", name)
        beam[name].with_beam_pipeline_args(list(own))


def pushing(trainer: BaseNode, evaluator: BaseNode, serving: str) -> tuple[BaseNode, BaseNode]:
    """What checks that an exported model answers, and what pushes it to `serving` if the evaluator blesses it."""
    model = trainer.outputs["model"]
    check = ServingCheck(model=model, code=code_of(gates))
    pusher = Pusher(
        model=model,
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=check.outputs["blessing"],
        push_destination=pusher_pb2.PushDestination(filesystem={"base_directory": serving}),
    )
    return check, pusher
