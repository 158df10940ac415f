"""Fingerprints, by which a step knows whether a cached result still holds."""

import ast
import functools
import hashlib
import importlib.metadata
import pathlib
from collections.abc import Iterator

import pipeline
from preprocessing.corpus import inputs

_ONLY_SHOWN = {"pipeline.terminal"}  # what a person sees changes no result


@functools.cache
def of_code(*names: str, root: pathlib.Path | None = None) -> str:
    """Hash of the Python sources of modules of this project and of all that they import within it, at the top or in a
    function: what a step runs, and nothing else.

    Args:
      names: of modules: where the step begins.
      root: folder that holds the project's packages; None: where they are imported from.
    """
    digest = hashlib.sha256()
    for name, path in sorted(sources(*names, root=root).items()):
        digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def sources(*names: str, root: pathlib.Path | None = None) -> dict[str, pathlib.Path]:
    """Files by module: those named, and what they import within the project, the packages around them included."""
    root = root or _root()
    found: dict[str, pathlib.Path] = {}
    left = list(names)
    while left:
        name = left.pop()
        path = _file(name, root)
        if name in found or name in _ONLY_SHOWN or path is None:
            if path is None and name in names:
                raise ValueError(f"no module {name}")
            continue
        found[name] = path
        left.extend(name.rpartition(".")[:1] if "." in name else ())
        left.extend(_imports(path.read_bytes()))
    return found


def _root() -> pathlib.Path:
    return pathlib.Path(pipeline.__file__).parents[1]


def _file(name: str, root: pathlib.Path) -> pathlib.Path | None:
    path = root.joinpath(*name.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


@functools.cache  # by content: most modules are part of several steps
def _imports(source: bytes) -> tuple[str, ...]:
    return tuple(_imported(ast.parse(source)))


def _imported(node: ast.AST) -> Iterator[str]:
    """What may be modules; what stands under `if TYPE_CHECKING` is none of what runs."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        for other in node.orelse:
            yield from _imported(other)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imported(child)


def of_input(code: str, patterns: tuple[str, ...]) -> str:
    """Of the module that reads the corpus, and of the corpus: files, or for none the embedded one."""
    return f"{of_code(code)}-{of_files(patterns) if patterns else of_packages()}"


def of_files(patterns: tuple[str, ...]) -> str:
    """Hash of the names, sizes and times of the files that patterns stand for, on any filesystem Beam reads; empty for
    none."""
    digest = hashlib.sha256()
    for file in inputs.files(patterns):
        digest.update(f"{file.path}\0{file.size_in_bytes}\0{file.last_updated_in_seconds}\0".encode())
    return digest.hexdigest()[:16]


def of_packages() -> str:
    """Hash of the names and versions of all that is installed: the embedded corpus is made of it."""
    installed = importlib.metadata.distributions()
    return of_text(*sorted(f"{package.metadata['Name']}=={package.version}" for package in installed))


def of_text(*texts: str) -> str:
    """Hash of some strings."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
