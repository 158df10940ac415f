"""A home folder as `pipeline.runs.run` leaves it: where its parts lie, and whether a run is at work there."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator

from pipeline.history import pushed
from preprocessing import storage
from preprocessing.errors import InputError


class StoreError(OSError):
    """The store of ML Metadata cannot be had as things are, which another time may mend."""

    status = 75


@dataclasses.dataclass(frozen=True)
class Home:
    """`metadata.sqlite`, `artifacts/`, `training/`, `serving/<name>/<version>/`, `reports/`, `settings.json`."""

    folder: pathlib.Path

    @classmethod
    def open(cls, folder: str | pathlib.Path, *, claim: bool = False) -> "Home":
        """Raises InputError where no run has been, and for a claim of Kubeflow where that will not do."""
        found = cls(pathlib.Path(folder).absolute())
        if found.is_claim() and not claim:
            raise InputError(
                f"{folder}: a home is a folder in which the pipeline ran. Received: only what was pushed, as on a "
                "claim of Kubeflow: it knows the runs, and each one removes there what retention does not keep; "
                "`bert lineage`, `bert promote` and `bert rollback` take a claim, too"
            )
        if not (found.has_store() or found.reports.is_dir() or found.is_claim()):
            raise InputError(
                f"{folder}: a home is a folder in which the pipeline ran. Received: no metadata.sqlite there; "
                "name it with --home or BERT_HOME"
            )
        return found

    def is_claim(self) -> bool:
        """Whether models were pushed here by Kubeflow, which has the metadata of its runs (see `pipeline.kubeflow`)."""
        return not (self.has_store() or self.reports.is_dir()) and bool(self.servings())

    def has_store(self) -> bool:
        """Whether ML Metadata knows of this home, in its file or in a database."""
        return (self.folder / "metadata.sqlite").is_file() or (self.folder / "metadata.url").is_file()

    @property
    def reports(self) -> pathlib.Path:
        return self.folder / "reports"

    @property
    def artifacts(self) -> pathlib.Path:
        return self.folder / "artifacts"

    @property
    def training(self) -> pathlib.Path:
        return self.folder / "training"

    @property
    def models_config(self) -> pathlib.Path:
        """What servers are told of versions and labels, where there is one."""
        return self.folder / "serving" / "models.config"

    def name(self) -> str:
        """Of the pipeline that ran here last."""
        try:
            return json.loads((self.folder / "settings.json").read_text())["name"]
        except (OSError, ValueError, KeyError, TypeError):
            return "bert"

    def serving(self, name: str | None = None) -> str:
        """The folder that holds the pushed versions. Raises InputError where nothing was pushed."""
        folder = self.folder / "serving" / (name or self.name())
        if not folder.is_dir():
            others = sorted(path.name for path in folder.parent.glob("*/"))
            raise InputError(
                f"{folder}: no model was pushed there. Received: {', '.join(others) or 'nothing'} beside it"
            )
        return str(folder)

    def servings(self) -> list[str]:
        """The folders of pushed versions, of all pipelines that ran here."""
        return sorted(str(path.parent) for path in self.folder.glob(f"serving/*/{pushed.RECORD}"))

    def lock(self, step: str | None = None) -> pathlib.Path:
        """Held by a whole run alone and by steps together, or by that step of any run."""
        return self.folder / (f".lock.{step}" if step else ".lock")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the home's lock as a run does. Raises InputError where a run is at work there."""
        try:
            file = storage.hold(str(self.lock()))[0]
        except BlockingIOError:
            raise InputError(f"{self.folder}: a run is at work there. Wait for its end") from None
        with file:
            yield

    def at_work(self, step: str | None = None) -> bool:
        """Whether a run holds the home's lock, or that step of one its own."""
        lock = self.lock(step)
        if not lock.exists():
            return False
        try:
            storage.hold(str(lock))[0].close()
        except BlockingIOError:
            return True
        return False


def read_json(path: pathlib.Path) -> dict:
    """A JSON object of the home's own; empty where it is not there, or torn by something else than a run."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
