"""Labels of versions, kept in the file that servers read: TensorFlow Serving's `models.config`.

The file names the versions to load: those that have a label, for each label the one that had it before (so that going
back is one change that a server takes at once), and the newest that was not rolled back. A server lets a label move
only to a version that it has loaded.
"""

import os
import pathlib
from typing import Any

from pipeline.history import pushed
from preprocessing import storage
from preprocessing.errors import InputError
from serving.server import config_files


def file_of(serving: str) -> pathlib.Path:
    """The file beside the folders of versions."""
    return pathlib.Path(serving).parent / "models.config"


def of(file: pathlib.Path, name: str) -> dict[str, int]:
    """Versions by label; empty where there is no such file or model in it."""
    entry = _entry(config_files.read_message(str(file)), name) if file.is_file() else None
    return dict(entry.version_labels) if entry is not None else {}


def to_load(file: pathlib.Path, name: str) -> list[int]:
    """The versions that the file names, with a label or to be loaded."""
    entry = _entry(config_files.read_message(str(file)), name) if file.is_file() else None
    return [] if entry is None else [*entry.version_labels.values(), *entry.model_version_policy.specific.versions]


def promote(file: pathlib.Path, serving: str, version: str, label: str) -> bool:
    """Gives a version the label; one that was rolled back no longer is. False where the servers of this file have first
    to load that version, which it now tells them. Raises InputError for a version that is not there."""
    with pushed.changing(serving) as record:
        if int(version) not in pushed.versions(serving):
            raise InputError(f"{os.path.join(serving, version)}: a version that is served must be there whole")
        config = config_files.read_message(str(file)) if file.is_file() else config_files.message()
        entry = _entry(config, os.path.basename(serving))
        served = (
            entry is None or not _is_specific(entry) or int(version) in entry.model_version_policy.specific.versions
        )
        if entry is None:
            entry = config.model_config_list.config.add(
                name=os.path.basename(serving), base_path=os.path.abspath(serving), model_platform="tensorflow"
            )
        model = record["versions"].get(version, {}).get("model")
        record["refused"] = [other for other in record["refused"] if record["versions"][other]["model"] != model]
        if served:
            entry.version_labels[label] = int(version)
            record["labels"][label] = [other for other in record["labels"].get(label, []) if other != version] + [
                version
            ]
        _choose_versions(entry, record, serving, *([] if served else [int(version)]))
        storage.write_whole(config_files.text(config), file)
    return served


def roll_back(file: pathlib.Path, serving: str, label: str) -> tuple[str, str]:
    """(version that had the label, version that has it now), the one that had it before and is still there. The first
    one's model is not pushed again, nor compared with. Raises InputError where there is none to go back to."""
    name = os.path.basename(serving)
    with pushed.changing(serving) as record:
        current = of(file, name).get(label)
        if current is None:
            raise InputError(
                f"{file}: {name} must have a label to take back; `bert promote` gives one. Received: {label}"
            )
        back = rolled_back_numbers(record) | {str(current)}
        earlier = [
            old for old in record["labels"].get(label, []) if old not in back and int(old) in pushed.versions(serving)
        ]
        if not earlier:
            raise InputError(
                f"{serving}: an earlier version that had label {label!r} must be there to go back to; give it by "
                f"`bert promote VERSION --label {label}`. Received: only {current}"
            )
        config = config_files.read_message(str(file))
        entry = _entry(config, name)
        entry.version_labels[label] = int(earlier[-1])
        record["labels"][label] = earlier
        record["refused"] = sorted({*record["refused"], str(current)} & set(record["versions"]))
        _choose_versions(entry, record, serving)
        storage.write_whole(config_files.text(config), file)
    return str(current), earlier[-1]


def take_up_newest(serving: str, record: dict[str, Any]) -> None:
    """Has the servers of the file beside the versions, where there is one, load what was pushed now."""
    file = file_of(serving)
    if storage.is_remote(serving) or not file.is_file():
        return
    config = config_files.read_message(str(file))
    entry = _entry(config, os.path.basename(serving))
    if entry is not None and _is_specific(entry):
        _choose_versions(entry, record, serving)
        storage.write_whole(config_files.text(config), file)


def rolled_back_numbers(record: dict[str, Any]) -> set[str]:
    """Of all versions that have a model which was rolled back."""
    models = pushed.rolled_back(record)
    return {number for number, entry in record["versions"].items() if entry["model"] in models}


def _entry(config, name: str):
    return next((entry for entry in config.model_config_list.config if entry.name == name), None)


def _is_specific(entry) -> bool:
    return entry.model_version_policy.HasField("specific")


def _choose_versions(entry, record: dict[str, Any], serving: str, *more: int) -> None:
    """Sets the versions to load, where the file does not say that all are."""
    if entry.model_version_policy.HasField("all"):
        return
    there, back = pushed.versions(serving), rolled_back_numbers(record)
    newest = max((number for number in there if str(number) not in back), default=None)
    wanted = {*entry.version_labels.values(), *more, *([newest] if newest else [])}
    for history in record["labels"].values():
        wanted |= {int(number) for number in history[-2:] if int(number) in there and number not in back}
    entry.model_version_policy.specific.versions[:] = sorted(wanted)
