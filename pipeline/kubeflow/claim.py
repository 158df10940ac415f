"""What the claim keeps: `serving/<name>/<version>/`, `training/`, of trainings that have not ended, and `checkpoints/`.

The weights that a model was made with are an artifact of its Trainer, of which a container has a copy as long as it
runs. A model that is pushed is to be fine-tuned later, by another pipeline, too, so its card names a copy on the claim.
It also says what else the Trainer was given: on the claim no metadata tells where a version comes from.
"""

import pathlib
import shutil
from typing import Any

from pipeline.graphs import fingerprint
from pipeline.history import parents, pushed, retention
from pipeline.retention import RetentionSettings

_DAY = 24 * 3600
_KEPT_DAYS = 7  # in which a model passes its gates, or is not pushed


def serving(mount: str, name: str) -> str:
    """Folder of the models that a pipeline pushes."""
    return f"{mount}/serving/{name}"


def training(mount: str) -> str:
    """Work folder of the Trainers."""
    return f"{mount}/training"


def keep_checkpoint(model: str, mount: pathlib.Path, **told: Any) -> None:
    """Copies the checkpoint that the card of an exported model names, and has the card name the copy, and say what else
    is told."""
    card = parents.read(model)
    kept = mount / "checkpoints" / fingerprint.of_text(card["checkpoint"])
    shutil.copytree(card["checkpoint"], kept, dirs_exist_ok=True)  # of the same step, where it is tried again
    (kept / parents.CARD).parent.mkdir(exist_ok=True)
    parents.write(str(kept), init=card.get("init"))  # outlives the model
    parents.write(model, **{**card, **told, "checkpoint": str(kept)})


def clean(folder: pathlib.Path, rule: RetentionSettings) -> list[str]:
    """Removes pushed models of a pipeline, in `folder`, that its rule does not keep; of all pipelines checkpoints that
    no pushed model was made with or descends from, after seven days; and trainings that were broken off. Gives their
    paths."""
    mount, gone = folder.parents[1], []
    stays = retention.kept_versions(str(folder), rule)
    for number, path in pushed.versions(str(folder)).items():
        if number not in stays:
            retention.take_away(path)
            gone.append(path)
    left = [path for pipeline in (mount / "serving").glob("*") for path in pushed.versions(str(pipeline)).values()]
    needed: set[str] = set()
    while left:
        card = parents.read(left.pop())
        named = (card.get("checkpoint"), card.get("init"))
        new = {path for path in named if path and path not in needed}
        needed |= new
        left += new
    old = retention.broken_off(mount / "checkpoints", _KEPT_DAYS * _DAY)
    broken_off = retention.broken_off(mount / "training", rule.training_days * _DAY)
    for folder_left in (*(folder for folder in old if str(folder) not in needed), *broken_off):
        shutil.rmtree(folder_left, ignore_errors=True)
        gone.append(str(folder_left))
    return gone
