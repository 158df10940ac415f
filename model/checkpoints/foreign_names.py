"""What stands around a model's own names in files of arrays: prefixes of wrappers, and the state of training."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from preprocessing.errors import InputError

AVERAGE = "/ExponentialMovingAverage"
_AVERAGES = ("exponentialmovingaverage", "moving_average", "moving_avg", "ema", "average")


def prefix_of(place: object, names: Iterable[str], landmark: str, root: str = "") -> str:
    """What stands before the model's own names, such as `module.`: all before `landmark`, a name that every model has
    once, and before the `root` that some files have in front of it. Raises InputError for several models."""
    found = {name.removesuffix(landmark) for name in names if name.endswith(landmark)}
    # The landmark and the root begin where a part of a name begins, not in the midst of one.
    found = {prefix for prefix in found if not prefix or prefix[-1] in "./"}
    prefixes = sorted({prefix.removesuffix(root) if f".{prefix}".endswith(f".{root}") else prefix for prefix in found})
    if len(prefixes) > 1:
        raise InputError(
            f"{place}: must hold one model. Received: {len(prefixes)}, whose names begin with "
            f"{', '.join(map(repr, prefixes))}; ignore the others by pattern, '{prefixes[-1]}*' for example"
        )
    return prefixes[0] if prefixes else ""


def told_prefix(place: object, prefix: str) -> list[str]:
    return [f"{place}: the prefix {prefix!r} is taken off the names of its arrays"] if prefix else []


def weights_among(
    place: object, shapes: Mapping[str, Sequence[int]], known: Collection[str]
) -> tuple[dict[str, str], list[str]]:
    """The weights in a TF1 checkpoint, name there -> name without what is no part of it, and what is to be told.

    All else is the state of training, of whatever optimizer: a single number under no `known` name, or a name that
    goes on behind (or stands around) that of another array, as `bert/pooler/dense/kernel/adam_m` does.
    """
    weights, averages = {}, False
    for name, shape in shapes.items():
        if math.prod(shape) == 1 and name not in known:
            continue
        owner = _owner(name, shapes)
        if owner is None:
            weights[name] = name.removesuffix(AVERAGE)
        elif name.rsplit("/", 1)[1].lower() in _AVERAGES:
            averages = True
    told = []
    if any(name.endswith(AVERAGE) for name in weights):
        told.append(f"{place}: has moving averages of weights, not the weights themselves; they are taken")
    elif averages:
        told.append(f"{place}: moving averages are passed over; the weights themselves are taken")
    return weights, told


def _owner(name: str, names: Collection[str]) -> str | None:
    """The array whose name is a proper part of this one's: its beginning, or two parts or more of it anywhere."""
    parts = name.split("/")
    for first in range(len(parts)):
        for end in range(first + 1 if first == 0 else first + 2, len(parts) + 1):
            part = "/".join(parts[first:end])
            if part != name and part in names:
                return part
    return None
