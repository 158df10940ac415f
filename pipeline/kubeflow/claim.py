"""What the claim keeps: `serving/<name>/<version>/`, `training/`, of trainings that have not ended, `checkpoints/`, and
of data in spans `kept/<name>/<step>/`: what steps made in the last runs, which lies beside each other elsewhere.

The weights that a model was made with are an artifact of its Trainer, of which a container has a copy as long as it
runs. A model that is pushed is to be fine-tuned later, by another pipeline, too, so its card names a copy on the claim.
It also says what else the Trainer was given: on the claim no metadata tells where a version comes from.
"""

import pathlib
import shutil
import time
from collections.abc import Mapping
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


def kept(mount: str, name: str, step: str) -> str:
    """Folder of what a step of a pipeline over spans made in its last runs."""
    return f"{mount}/kept/{name}/{step}"


def lay_beside(folder: pathlib.Path, outputs: Mapping[str, str]) -> None:
    """Links what a step has made before, `folder/<key>-<number>`, beside the outputs that it will make, by their keys:
    there it looks for it."""
    for key, uri in outputs.items():
        for path in folder.glob(f"{key}-*"):
            beside = pathlib.Path(uri).parent / path.name
            beside.parent.mkdir(parents=True, exist_ok=True)
            beside.symlink_to(path)


def keep_outputs(folder: pathlib.Path, outputs: Mapping[str, str]) -> None:
    """Copies what a step has made there, for its next runs, and removes all but the last two of each key: the last one
    has the whole window, and another run may be reading the one before."""
    for key, uri in outputs.items():
        number = time.time_ns()
        partial = folder / f".{key}-{number}"
        shutil.copytree(uri, partial)
        partial.rename(folder / f"{key}-{number}")
        broken_off = [path for path in retention.broken_off(folder, _DAY) if path.name.startswith(".")]
        for path in (*sorted(folder.glob(f"{key}-*"))[:-2], *broken_off):
            shutil.rmtree(path, ignore_errors=True)


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
