"""What stands beside a fine-tuned model in the pipeline: how it is evaluated, and what it is compared with."""

import dataclasses
import json
import os

from tfx.dsl.io import fileio

from pipeline.finetuning import kinds
from pipeline.finetuning.kinds.kind import Kind

FILE = os.path.join("assets.extra", "finetuning.json")


@dataclasses.dataclass(frozen=True)
class Description:
    """Of an exported model.

    Attributes:
        task: the name of its kind.
        signature: that answers its rows.
        labels: in the order of their numbers, if it has such.
        eval_rows: a hash of the rows that were held out.
        floor: the kind's first figure that is to be beaten: of an untrained encoder, or of always saying the commonest
            answer.
    """

    task: str
    signature: str
    labels: list[str]
    eval_rows: str
    floor: float

    @property
    def kind(self) -> Kind:
        return kinds.named(self.task)

    def is_comparable(self, other: "Description") -> bool:
        """Whether figures of both say which is better: of the same labels, on the same rows."""
        return (self.task, self.labels, self.eval_rows) == (other.task, other.labels, other.eval_rows)

    def write(self, model: str) -> None:
        with fileio.open(os.path.join(model, FILE), "w") as file:
            file.write(json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=2) + "\n")


def exists(model: str) -> bool:
    return fileio.exists(os.path.join(model, FILE))


def read(model: str) -> Description:
    with fileio.open(os.path.join(model, FILE)) as file:
        return Description(**json.loads(file.read()))
