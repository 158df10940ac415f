import os
import pathlib
import shutil

import pytest

import pipeline
from model.training import optimizer
from pipeline import settings, terminal
from pipeline.evaluation import pretraining as evaluation
from pipeline.graphs import fingerprint
from preprocessing.corpus import embedded
from preprocessing.examples import masking
from serving.export import exporting
from serving.server import embedded as server_embedded
from serving.server import grpc_api, rest_api


def test_files_that_change_have_another_fingerprint(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    pattern = (str(tmp_path / "*.txt"),)
    before = fingerprint.of_files(pattern)
    assert fingerprint.of_files(pattern) == before
    path.write_text("longer")
    changed = fingerprint.of_files(pattern)
    os.utime(path, (1, 1))
    touched = fingerprint.of_files(pattern)
    (tmp_path / "b.txt").write_text("two")
    assert len({before, changed, touched, fingerprint.of_files(pattern), fingerprint.of_files(())}) == 5


def test_a_folder_stands_for_its_files(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    before = fingerprint.of_files((str(tmp_path),))
    (tmp_path / "a.txt").write_text("longer")
    assert fingerprint.of_files((str(tmp_path),)) != before


STEPS = {
    "corpus": ("pipeline.components.documents",),
    "vocabulary": ("pipeline.components.vocabulary",),
    "examples": ("pipeline.components.examples",),
    "trainer": ("pipeline.trainer",),
    "evaluator": ("pipeline.evaluation.pretraining", "pipeline.components.evaluator"),
    "baseline": ("pipeline.components.baseline",),
    "gates": ("pipeline.components.gates",),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    for package in ("pipeline", "preprocessing", "model", "serving"):
        source = pathlib.Path(pipeline.__file__).parents[1] / package
        shutil.copytree(source, root / package, ignore=shutil.ignore_patterns("__pycache__", "page"))
    return root


def keys(root) -> dict[str, str]:
    fingerprint.of_code.cache_clear()
    return {step: fingerprint.of_code(*names, root=root) for step, names in STEPS.items()}


def changed(root, module: str) -> set[str]:
    """The steps that run again, of themselves, when this module is edited."""
    before = keys(root)
    path = root.joinpath(*module.split(".")).with_suffix(".py")
    kept = path.read_text()
    path.write_text(f"{kept}\n# edited\n")
    try:
        after = keys(root)
    finally:
        path.write_text(kept)
    return {step for step in STEPS if before[step] != after[step]}


def test_the_code_of_a_step_is_the_same_wherever_it_lies(project):
    assert keys(project) == keys(None)


@pytest.mark.parametrize(
    ("module", "steps"),
    [
        (rest_api, set()),
        (grpc_api, set()),
        (server_embedded, set()),
        (terminal, set()),
        (masking, {"examples"}),
        (evaluation, {"evaluator"}),
        (settings, set()),
        (exporting, {"trainer", "gates"}),
        (optimizer, {"trainer"}),
        (embedded, {"corpus", "vocabulary", "examples", "trainer", "baseline"}),
    ],
)
def test_an_edit_runs_again_what_it_changes(project, module, steps):
    assert changed(project, module.__name__) == steps


def test_what_is_imported_in_a_function_counts_and_what_is_for_types_alone_does_not(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "__init__.py").touch()
    (tmp_path / "a" / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a.types\ndef f():\n    from a import c\n"
    )
    for name in ("c", "types", "d"):
        (tmp_path / "a" / f"{name}.py").touch()
    assert set(fingerprint.sources("a.b", root=tmp_path)) == {"a", "a.b", "a.c"}
    with pytest.raises(ValueError, match=r"no module a\.none"):
        fingerprint.sources("a.none", root=tmp_path)
