"""What the claim keeps: `serving/<name>/<version>/`, `training/`, of trainings that have not ended, and `checkpoints/`.

The weights that a model was made with are an artifact of its Trainer, of which a container has a copy as long as it
runs. A model that is pushed is to be fine-tuned later, by another pipeline, too, so its card names a copy on the claim.
"""

import pathlib
import shutil

from pipeline.graphs import fingerprint
from pipeline.history import parents, pushed, retention

_KEPT_SECONDS = 7 * 24 * 3600  # in which a model passes its gates, or is not pushed


def serving(mount: str, name: str) -> str:
    """Folder of the models that a pipeline pushes."""
    return f"{mount}/serving/{name}"


def training(mount: str) -> str:
    """Work folder of the Trainers."""
    return f"{mount}/training"


def keep_checkpoint(model: str, mount: pathlib.Path) -> None:
    """Copies the checkpoint that the card of an exported model names, and has the card name the copy. Copies that no
    pushed model was made with, nor began with, are removed after seven days."""
    card = parents.read(model)
    folder = mount / "checkpoints"
    kept = folder / fingerprint.of_text(card["checkpoint"])
    shutil.copytree(card["checkpoint"], kept, dirs_exist_ok=True)  # of the same step, where it is tried again
    parents.write(model, **{**card, "checkpoint": str(kept)})
    versions = [path for pipeline in (mount / "serving").glob("*") for path in pushed.versions(str(pipeline)).values()]
    needed = {parents.read(path).get(name) for path in versions for name in ("checkpoint", "init")}
    for left in retention.broken_off(folder, _KEPT_SECONDS):
        if str(left) not in needed:
            shutil.rmtree(left, ignore_errors=True)
