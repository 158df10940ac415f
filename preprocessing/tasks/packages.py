"""A set for classification that every installation has: paragraphs of docstrings, and the package that each is from.

The label comes for free. Paragraphs that name the package are left out, and those that stand in two packages.
"""

import collections
import hashlib
import itertools
import pathlib
from collections.abc import Iterator

from preprocessing.corpus import embedded
from preprocessing.storage import write_whole

PACKAGES = ("sklearn", "keras", "scipy", "pandas", "numpy", "matplotlib", "apache_beam")
NAMES = {"sklearn": ("scikit",), "apache_beam": ("beam",), "matplotlib": ("pyplot",)}  # that a package goes by besides
EVAL_SHARE = 0.5  # as many as are learned from: what a pretraining is worth must not drown in chance


def write(folder: pathlib.Path, rows: int) -> tuple[str, str]:
    """Writes train.tsv and eval.tsv, of at most so many rows of each package in all, and gives their paths. Which rows
    are held out is a function of their text alone."""
    found = {package: list(itertools.islice(_paragraphs(package), 4 * rows)) for package in PACKAGES}
    seen = collections.Counter(text for texts in found.values() for text in texts)
    parts: dict[bool, list[tuple[float, str]]] = {False: [], True: []}
    for package, texts in found.items():
        for text in sorted((text for text in texts if seen[text] == 1), key=_place)[:rows]:
            parts[_place(text, b"split") < EVAL_SHARE].append((_place(text), f"{text}\t{package}\n"))
    paths = folder / "train.tsv", folder / "eval.tsv"
    for path, held_out in zip(paths, (False, True), strict=True):
        write_whole("text\tlabel\n" + "".join(line for _, line in sorted(parts[held_out])), path)
    return str(paths[0]), str(paths[1])


def _paragraphs(package: str) -> Iterator[str]:
    """The first of each docstring that does not name the package, in the package's order, each once."""
    names = (package, *NAMES.get(package, ()))
    given = set()
    for _, text in embedded.docstrings(package):
        for paragraph in embedded.prose(text):
            if "\t" not in paragraph and not any(name in paragraph.lower() for name in names):
                if paragraph not in given:
                    given.add(paragraph)
                    yield paragraph
                break


def _place(text: str, of: bytes = b"order") -> float:
    """A number from 0 to 1 that is as good as random."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=of).digest()
    return int.from_bytes(digest, "big") / 2**64
