"""What an input stands for: as for a shell, and nothing is passed over without a word."""

import os
import pathlib

import pytest
from apache_beam.io.filesystem import FileMetadata, MatchResult

from preprocessing.corpus import inputs, paths
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Text among what stands beside text in the world."""
    names = (
        "a.txt", "b.txt", "sub/c.txt", "sub/deep/d", ".git/config", ".hidden.txt", ".ipynb_checkpoints/a.txt",
        "_SUCCESS", "_common_metadata", "_temporary/0/part", "__MACOSX/._a.txt", "a.txt~", "#a.txt#", "a.txt.bak",
        "a.txt.swp", "Thumbs.db",
    )  # fmt: skip
    for name in names:
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(found, folder):
    return [os.path.relpath(file.path, folder / "x") for file in found.files]


TEXT = ["a.txt", "b.txt", "sub/c.txt", "sub/deep/d"]


@pytest.mark.parametrize("input_", ["x", "x/", "x/*", "./x", "x/**"])
def test_a_folder_and_a_glob_of_it(folder, input_):
    found = paths.find([input_])
    assert names(found, folder) == TEXT
    passed = {os.path.relpath(path, folder / "x") for path, _ in found.passed_over}
    assert {"_SUCCESS", "_common_metadata", "__MACOSX", "a.txt~", "#a.txt#", "a.txt.bak", "a.txt.swp", "Thumbs.db"} <= {
        path.split("/")[0] for path in passed
    }


def test_what_is_passed_over_is_told_with_its_reason(folder):
    reasons = {os.path.relpath(path, "x"): reason for path, reason in paths.find(["x"]).passed_over}
    assert reasons[".git"] == reasons[".ipynb_checkpoints"] == reasons[".hidden.txt"] == "hidden"
    assert "Hadoop" in reasons["_temporary"]
    assert "a backup" in reasons["a.txt~"]
    assert "macOS" in reasons["__MACOSX"]
    report = inputs.survey(CorpusSettings(("x",))).report()
    assert report["files"] == 4
    assert report["passed_over"]["hidden"] == {
        "count": 3,
        "first": ["x/.git", "x/.hidden.txt", "x/.ipynb_checkpoints"],
    }


@pytest.mark.parametrize(
    ("input_", "wanted"),
    [
        ("x/.git", [".git/config"]),
        ("x/.h*", [".hidden.txt"]),
        ("x/_common_metadata", ["_common_metadata"]),
        ("x/_c*", ["_common_metadata"]),
        ("x/*.bak", ["a.txt.bak"]),
        ("x/*~", ["a.txt~"]),
        ("x/*/c.txt", ["sub/c.txt"]),
        ("x/[ab].txt", ["a.txt", "b.txt"]),
        ("x/?.txt", ["a.txt", "b.txt"]),
        ("x/sub", ["sub/c.txt", "sub/deep/d"]),
        ("x/{a,sub/c}.txt", ["a.txt", "sub/c.txt"]),
        ("x/{a,b}.txt, x/sub/{c.txt,deep}", TEXT),
        ("x/a.txt,x/b.txt", ["a.txt", "b.txt"]),
        ("~/x/a.txt", ["a.txt"]),
        ("~/x/{a,b}.txt", ["a.txt", "b.txt"]),
    ],
)
def test_named_and_spelled_as_for_a_shell(folder, monkeypatch, input_, wanted):
    monkeypatch.setenv("HOME", str(folder))
    assert names(paths.find([input_]), folder) == wanted


@pytest.mark.parametrize("spelled", ["file://{}", "file://localhost{}", "file:{}"])
def test_an_address_of_a_file(folder, spelled):
    (folder / "x" / "with blank.txt").write_text("text")
    path = str(folder / "x" / "with%20blank.txt")
    assert names(paths.find([spelled.format(path)]), folder) == ["with blank.txt"]


@pytest.mark.parametrize("name", ["home [1] x", "a*b", "q'\"q", "ü 中 ё", "c,d", "{e,f}", "?", "~", "x" * 200])
def test_names_that_read_like_globs(folder, name):
    place = folder / name
    place.mkdir()
    (place / "[1].txt").write_text("text")
    (place / "1.txt").write_text("text")
    for input_, wanted in ((place, 2), (place / "*.txt", 2), (place / "[1].txt", 1), (f"{place}/*", 2)):
        assert len(paths.find([str(input_)]).files) == wanted, input_


def test_links(folder):
    (folder / "x" / "to_sub").symlink_to("sub")
    (folder / "x" / "sub" / "up").symlink_to("..")
    (folder / "x" / "gone").symlink_to("nowhere")
    found = paths.find(["x"])
    assert "to_sub/c.txt" in names(found, folder)
    reasons = dict(found.passed_over)
    assert reasons["x/gone"] == "a link to nothing"
    assert reasons["x/sub/up"] == "a link to a folder that it is in"


@pytest.mark.parametrize(
    ("input_", "message"),
    [
        ("nowhere", r"^no file matches 'nowhere': check the path, and quote a glob$"),
        ("x/a.txt,x/nowhere", r"^no file matches 'x/nowhere', of 'x/a.txt,x/nowhere': check"),
        ("x/{a,n}.txt", r"^no file matches 'x/n.txt', of 'x/\{a,n\}.txt': check"),
        (
            "only",
            r"^no file matches 'only': what is there is passed over unless named: only/_SUCCESS \(its name begins",
        ),
        ("empty", r"^no file matches 'empty': check"),
    ],
)
def test_nothing_there(folder, input_, message):
    (folder / "empty").mkdir()
    (folder / "only").mkdir()
    (folder / "only" / "_SUCCESS").touch()
    with pytest.raises(InputError, match=message):
        paths.find([input_])


def test_elsewhere_as_here(monkeypatch):
    """On a filesystem of Beam's: a glob takes folders like files, and what is no text is passed over."""
    there = {f"gs://b/x/{name}": 5 for name in ("a.txt", "sub/c.txt", "sub/", "_SUCCESS", ".git/config", "sub/_tmp/p")}

    def match(patterns):
        import re

        for pattern in patterns:
            expression = "".join(
                {"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in re.split(r"(\*+)", pattern)
            )
            yield MatchResult(
                pattern,
                [FileMetadata(path, size, 0.0) for path, size in there.items() if re.fullmatch(expression, path)],
            )

    monkeypatch.setattr(paths.FileSystems, "match", lambda patterns: list(match(patterns)))
    monkeypatch.setattr(paths.FileSystems, "join", lambda *parts: "/".join(part.rstrip("/") for part in parts))
    for input_ in ("gs://b/x", "gs://b/x/*"):
        found = paths.find([input_])
        assert [file.path for file in found.files] == ["gs://b/x/a.txt", "gs://b/x/sub/c.txt"]
        assert [pathlib.PurePath(path).name for path, _ in found.passed_over] == ["config", "_SUCCESS", "p"]
