"""Data goes forward only: who may import whom."""

import ast

import pytest

from tests.data import ROOT

FOLDERS = ("preprocessing", "model", "serving", "pipeline")
FORBIDDEN = {
    "preprocessing": {"keras", "keras_nlp", "keras_hub", "tfx", "model", "serving", "pipeline"},
    "model": {"tfx", "apache_beam", "serving", "pipeline"},
    "serving": {"tfx", "apache_beam", "pipeline"},
    "pipeline": set(),
}
MODEL_MAY_IMPORT = {
    f"preprocessing.{name}" for name in ("features", "batches", "errors", "storage", "characters", "vocab_file")
}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if node.module in FOLDERS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_forward_only(path):
    folder = path.relative_to(ROOT).parts[0]
    modules = set(imported_modules(path))
    roots = {module.split(".")[0] for module in modules}
    assert not roots & FORBIDDEN[folder]
    assert "tests" not in roots
    if folder == "model":
        assert {module for module in modules if module.startswith("preprocessing")} <= MODEL_MAY_IMPORT


def test_training_names_no_task():
    """It is handed one: model/tasks/task.py says what that is."""
    for path in (*(ROOT / "model").glob("training*.py"), ROOT / "model" / "evaluation.py"):
        tasks = {module for module in imported_modules(path) if module.startswith("model.tasks")}
        assert tasks <= {"model.tasks.task"}, path
