"""What tags say of words that are parts of entities: `B-PER`, `I-PER`, `O` and their relatives.

A tag of an entity is a sign, a hyphen and a type; `O` is of no entity. Three schemes are known:

    IOB2    B begins an entity, I goes on with it
    IOB1    I does both; B begins one where the word before belongs to another entity of the same type
    BIOES   E ends an entity, S is one of a single word (BILOU: L and U)

One reading serves them all, the repair of tags that break their scheme too: a word goes on with the entity of the word
before where its sign is I or E, that word's is B or I, and both have one type; any other tag but `O` begins an entity.
So conlleval reads tags, and seqeval unless it is told to be strict.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

OUTSIDE = "O"
Scheme = Literal["IOB2", "IOB1", "BIOES"]
_TAG = re.compile(r"([BIELSU])-(.+)", re.DOTALL)
_SIGNS = {"L": "E", "U": "S"}  # of BILOU


class Entity(NamedTuple):
    """Words [start, end)."""

    type: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True)
class Reading:
    """What each of some tags is, by its number, as the reading needs it: its type by its place in `types` (-1 for `O`),
    whether it goes on with an entity, whether one may go on behind it, and whether IOB2 begins entities with it."""

    types: tuple[str, ...]
    type_of: tuple[int, ...]
    goes_on: tuple[bool, ...]
    is_open: tuple[bool, ...]
    begins: tuple[bool, ...]


def of_entities(tags: Iterable[str]) -> bool:
    """Whether the tags are those of entities, with one at least besides `O`."""
    others = set(tags) - {OUTSIDE}
    return bool(others) and all(map(_TAG.fullmatch, others))


def reading(tags: Sequence[str]) -> Reading | None:
    """Of different tags; None where they are not of entities."""
    if not of_entities(tags):
        return None
    signs, types = zip(*map(_parts, tags), strict=True)
    names = tuple(sorted({name for name in types if name}))
    return Reading(
        names,
        tuple(names.index(name) if name else -1 for name in types),
        tuple(sign in "IE" for sign in signs),
        tuple(sign in "BI" for sign in signs),
        tuple(sign == "B" for sign in signs),
    )


def entities(tags: Sequence[str]) -> list[Entity]:
    """Those of a sentence, in order."""
    found: list[Entity] = []
    before = OUTSIDE
    for place, tag in enumerate(tags):
        if _goes_on(before, tag):
            found[-1] = found[-1]._replace(end=place + 1)
        elif tag != OUTSIDE:
            found.append(Entity(_parts(tag)[1], place, place + 1))
        before = tag
    return found


def strict(tags: Sequence[str], scheme: Scheme = "IOB2") -> list[Entity]:
    """Only those whose tags keep the scheme, as seqeval's `mode="strict"`."""
    found = entities(tags)
    kept = written(found, len(tags), scheme)
    return [one for one in found if kept[one.start : one.end] == _plain(tags[one.start : one.end])]


def written(found: Iterable[Entity], words: int, scheme: Scheme = "IOB2") -> list[str]:
    """The tags of so many words in a scheme."""
    tags, last = [OUTSIDE] * words, None
    for one in found:
        signs = ["B", *"I" * (one.end - one.start - 1)]
        if scheme == "BIOES":
            signs[-1] = "E" if len(signs) > 1 else "S"
        elif scheme == "IOB1" and (last is None or (last.type, last.end) != (one.type, one.start)):
            signs[0] = "I"
        tags[one.start : one.end] = [f"{sign}-{one.type}" for sign in signs]
        last = one
    return tags


class Found:
    """Finds the scheme of many sentences. Attributes: `tags`, all that were seen; `faults`, how many sentences break
    each scheme."""

    def __init__(self) -> None:
        self.tags: set[str] = set()
        self.faults: dict[Scheme, int] = dict.fromkeys(get_args(Scheme), 0)

    def add(self, tags: Sequence[str]) -> dict[Scheme, int]:
        """The first word of the sentence that breaks each scheme."""
        self.tags.update(tags)
        broken: dict[Scheme, int] = {}
        if of_entities(tags):
            found, plain = entities(tags), _plain(tags)
            for scheme in self.faults:
                pairs = zip(written(found, len(tags), scheme), plain, strict=True)
                place = next((place for place, (expected, tag) in enumerate(pairs) if expected != tag), None)
                if place is not None:
                    broken[scheme] = place
                    self.faults[scheme] += 1
        return broken

    @property
    def scheme(self) -> Scheme | None:
        """None where the tags are not of entities."""
        if not of_entities(self.tags):
            return None
        if any(_parts(tag)[0] in "ES" for tag in self.tags if tag != OUTSIDE):
            return "BIOES"
        return "IOB1" if self.faults["IOB1"] < self.faults["IOB2"] else "IOB2"


def _goes_on(before: str, tag: str) -> bool:
    if OUTSIDE in (before, tag):
        return False
    (sign_before, type_before), (sign, kind) = _parts(before), _parts(tag)
    return sign in "IE" and sign_before in "BI" and kind == type_before


@functools.lru_cache(maxsize=4096)
def _parts(tag: str) -> tuple[str, str]:
    """(sign, type); a tag that is not of an entity is of none."""
    match = _TAG.fullmatch(tag)
    return (_SIGNS.get(match[1], match[1]), match[2]) if match else (OUTSIDE, "")


def _plain(tags: Sequence[str]) -> list[str]:
    """With the signs of BIOES instead of BILOU's."""
    return ["-".join(_parts(tag)) if tag[:1] in _SIGNS else tag for tag in tags]
