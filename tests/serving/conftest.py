"""One server and one export for all tests that do not change them."""

import fcntl
import json
import shutil

import pytest


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory):
    """A base path with versions 1 and 2."""
    from tests.serving import served

    base = tmp_path_factory.mktemp("toy")
    served.save(base, 1)
    served.save(base, 2)
    return base


@pytest.fixture(scope="session")
def exported(tmp_path_factory, worker_id):
    """(folder, report) of an export of the small model that was moved after it was checked in a fresh process; that of
    all workers."""
    from serving.export import exporting
    from tests.serving import small_model

    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "exported"
    shared.mkdir(exist_ok=True)
    moved, told = shared / "elsewhere", shared / "report.json"
    with open(shared / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            vocab = small_model.write_vocab(tmp_path_factory.mktemp("vocab"), "words-of-france.txt")
            written = tmp_path_factory.mktemp("exports") / "written"
            report = exporting.export(small_model.encoder(), vocab, written, small_model.EXPORT)
            assert [path.name for path in written.parent.iterdir()] == ["written"]
            shutil.move(written, moved)
            told.write_text(json.dumps(report))
    return moved, json.loads(told.read_text())


@pytest.fixture(scope="session")
def exported_tagger(tmp_path_factory):
    """The same of a small tagger, checked in this process."""
    from serving.export import exporting, golden
    from serving.signatures import TAG, TAG_WORDS
    from tests.serving import small_model

    folder = tmp_path_factory.mktemp("tagger")
    vocab = small_model.write_vocab(folder)
    options = {"signatures": (TAG, TAG_WORDS), "task": small_model.TAGGING}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "_answer_elsewhere", lambda folder: golden.answer(str(folder)))
        report = exporting.export(small_model.tagger(), vocab, folder / "1", small_model.EXPORT, **options)
    return folder / "1", report


@pytest.fixture(scope="session")
def toy_server(toy_folder):
    """Serves both versions of `toy`, version 1 with the label `stable`."""
    from serving.engine.settings import Limits
    from tests.serving import served

    limits = Limits(message_bytes=200_000, answer_bytes=1_000_000, rows=100, variable_rows=4, text_bytes=50_000)
    model = {"policy": "all", "labels": (("stable", 1),)}
    with served.running(served.settings(toy_folder, model=model, limits=limits)) as server:
        yield server
