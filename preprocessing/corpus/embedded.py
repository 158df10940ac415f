"""The embedded corpus: English prose that every installation already has.

The Python language topics and the docstrings of the installed packages, read by parsing their source; nothing is
imported. Code, tables and headings are left out as far as simple rules can tell.
"""

import ast
import contextlib
import gc
import importlib.util
import pathlib
import re
import string
import textwrap
from collections.abc import Iterator

# In the order in which they are read until there is enough; together some 8 MB of prose.
PACKAGES = (
    "pydoc_data",
    "sklearn",
    "keras",
    "scipy",
    "pandas",
    "numpy",
    "apache_beam",
    "matplotlib",
    "keras_hub",
    "tfx",
    "tensorflow",
)
MIN_PARAGRAPH = 60  # characters
MIN_PARAGRAPHS = 3
MIN_PROSE_SHARE = 0.85  # of letters, blanks and ordinary punctuation in a paragraph

_NOT_PROSE = re.compile(r"^\s*(>>>|\.\.|[|+`~:@#*=]|[-=~^*#]{3,}|\[\d+\])")
_DROP_PROSE = dict.fromkeys(map(ord, string.ascii_letters + " ,.;'’()-"))
_DEFINITION = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def documents(max_bytes: int) -> Iterator[tuple[str, list[str]]]:
    """Yields (origin, paragraphs) in a fixed order until `max_bytes` of UTF-8 text have been given."""
    given = 0
    for package in PACKAGES:
        for origin, text in docstrings(package):
            paragraphs = prose(text)
            if len(paragraphs) < MIN_PARAGRAPHS:
                continue
            given += sum(len(paragraph.encode()) + 1 for paragraph in paragraphs) + 1
            if given > max_bytes:
                return
            yield origin, paragraphs


def write(path: pathlib.Path, max_bytes: int) -> int:
    """Writes the corpus as plain text, one paragraph a line and a blank line between documents; gives the number of
    documents."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for _, paragraphs in documents(max_bytes):
            file.write("\n".join(paragraphs) + "\n\n")
            count += 1
    return count


def prose(text: str) -> list[str]:
    """The paragraphs of a docstring that read as prose, each on one line."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", textwrap.dedent(text)):
        lines = block.splitlines()
        if not lines or any(_NOT_PROSE.match(line) for line in lines):
            continue
        paragraph = " ".join(" ".join(lines).split())
        other = len(paragraph.translate(_DROP_PROSE))
        if len(paragraph) >= MIN_PARAGRAPH and other <= (1 - MIN_PROSE_SHARE) * len(paragraph):
            paragraphs.append(paragraph)
    return paragraphs


def docstrings(package: str) -> Iterator[tuple[str, str]]:
    """Yields (origin, text) in a fixed order; nothing of a package that is not installed."""
    spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        return
    root = pathlib.Path(spec.submodule_search_locations[0])
    with _uncollected():
        for path in sorted(root.rglob("*.py")):
            if not ({"tests", "test", "testing"} & set(path.parts) or path.name.endswith("_test.py")):
                yield from _of_file(path, root)


def _of_file(path: pathlib.Path, root: pathlib.Path) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in _definitions(tree):
        text = ast.get_docstring(node)
        if text:
            yield f"{path.relative_to(root.parent)}:{getattr(node, 'lineno', 1)}", text
    if root.name == "pydoc_data":  # one dict of topics
        for table in ast.walk(tree):
            if isinstance(table, ast.Dict):
                for key, value in zip(table.keys, table.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                        yield f"{path.name}:{key.value!s}", str(value.value)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without collecting garbage, of which trees have none: each time it goes through all that the process has loaded,
    beside TensorFlow for longer than the parsing takes."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _definitions(tree: ast.Module) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    stack: list = [tree]
    while stack:
        node = stack.pop()
        yield node
        stack += reversed([child for child in node.body if isinstance(child, _DEFINITION)])
