"""Data goes forward only: who may import whom, between folders and between the rooms of each."""

import ast

import pytest

from tests.data import ROOT

FOLDERS = ("preprocessing", "model", "serving", "pipeline")

# From the ground up. A room (a file or a folder) imports from rooms below its own floor, and from itself.
FLOORS = {
    "preprocessing": (
        {"cuda", "errors", "features", "tags", "tfrecord", "unicode_table"},
        {"characters"},
        {"settings", "storage", "character_kinds"},
        {"beam", "batches", "vocab_file", "languages"},
        {"corpus"},
        {"tokenizer"},
        {"examples"},
        {"vocabulary", "tasks"},
    ),
    "model": ({"settings"}, {"encoder"}, {"checkpoints", "tasks"}, {"training"}),
    "serving": ({"settings", "protocol"}, {"engine", "signatures"}, {"export", "server"}, {"client"}),
    "pipeline": (
        {"values", "terminal", "airflow_dag", "retention", "bounds", "keeping", "leftovers", "speed"},
        {"finetuning"},
        {"settings", "features", "distillation"},
        {"history"},
        {"drift"},
        {"commands", "components", "evaluation"},
        {"cli", "trainer", "task_trainer"},
        {"graphs"},
        {"runs"},
        {"kubeflow"},
        {"local_runner", "kubeflow_runner", "kubeflow_node"},
        {"main_job"},
    ),
}

# What a folder may take from the other folders: all of one, or these rooms of it.
MAY_IMPORT = {
    "preprocessing": set(),
    "model": {
        f"preprocessing.{room}"
        for room in ("cuda", "errors", "features", "tags", "batches", "characters", "storage", "vocab_file")
    },
    "serving": {"model", "preprocessing"},
    "pipeline": {"serving", "model", "preprocessing"},
}
FORBIDDEN = {
    "preprocessing": {"keras", "keras_nlp", "keras_hub", "tfx"},
    "model": {"tfx", "apache_beam"},
    "serving": {"tfx", "apache_beam"},
    "pipeline": set(),
}


def imported_modules(path):
    """Dotted names; of `from a import b` of the project's own both are given as one."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            own = node.module.split(".")[0] in FOLDERS
            yield from (f"{node.module}.{alias.name}" if own else node.module for alias in node.names)


FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
IDS = [str(path.relative_to(ROOT)) for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_folders_import_forward_only(path):
    folder = path.relative_to(ROOT).parts[0]
    modules = set(imported_modules(path))
    roots = {module.split(".")[0] for module in modules}
    assert not roots & FORBIDDEN[folder]
    assert "tests" not in roots
    for module in modules:
        root, *rest = module.split(".")
        if root in FOLDERS and root != folder:
            assert root in MAY_IMPORT[folder] or f"{root}.{rest[0]}" in MAY_IMPORT[folder], module


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_rooms_import_downwards_only(path):
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    room = rest[0]
    if room == "__init__":
        return
    floors = {name: floor for floor, names in enumerate(FLOORS[folder]) for name in names}
    assert room in floors, f"{path}: a new room needs a floor"
    for module in imported_modules(path):
        root, *names = module.split(".")
        if root == folder and names and names[0] != room:
            assert floors[names[0]] < floors[room], f"{path} imports {module}, which is on its own floor or above"


def test_training_knows_no_task():
    paths = list((ROOT / "model" / "training").glob("*.py"))
    assert paths
    for path in paths:
        tasks = {module for module in imported_modules(path) if module.startswith("model.tasks.")}
        assert {module.split(".")[2] for module in tasks} <= {"task"}, path
