"""Which layers a text's vector is made of, and how one vector is made of its tokens'."""

import dataclasses
import re
from typing import Literal, get_args

from preprocessing.errors import InputError, require
from serving.settings import Pooling

How = Literal["sum", "mean", "concat"]
LAST = "last"
GRAMMAR = "LAYER, or LAYERS:sum, LAYERS:mean, LAYERS:concat; a LAYER is last or a number, 0 the embeddings, negative "
GRAMMAR += "ones counted from the last; LAYERS are all, last4 (any number) or FROM..TO"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Layers, token by token added up, averaged or put end to end (the last layer first, as google's
    `extract_features.py` lists them), and then pooled.

    Attributes:
        layers: numbers, ascending: 0 the embeddings, 1 the first layer.
        how: what is done with several.
        pooling: of the tokens, [CLS] and [SEP] included. "pooler" is made of the last layer alone.
        unit_length: whether vectors are divided by their length.
    """

    layers: tuple[int, ...]
    how: How | None
    pooling: Pooling
    unit_length: bool = False

    @classmethod
    def read(cls, layers: str, pooling: Pooling, unit_length: bool, last: int) -> "Choice":
        """Of what a user types, for an encoder of `last` layers. Raises InputError for what it does not have."""
        which, colon, how = layers.partition(":")
        from_end = re.fullmatch(r"last(\d+)", which)
        span = re.fullmatch(r"(-?\d+)(?:\.\.(-?\d+))?", which)
        if which == LAST:
            first, end = last, last
        elif which == "all":
            first, end = 1, last
        elif from_end:
            first, end = last + 1 - int(from_end[1]), last
        elif span:
            first, end = (int(number) + (last + 1) * number.startswith("-") for number in (span[1], span[2] or span[1]))
        else:
            raise InputError(f"--layers must be {GRAMMAR}. Received: {layers!r}")
        rule = f"--layers must be of the model's: 0, the embeddings, to {last}, the last"
        require(0 <= first <= end <= last, rule, layers)
        if (several := end > first) or colon:
            require(how in get_args(How), f"several layers need {', '.join(get_args(How))} after a colon", layers)
        chosen = cls(tuple(range(first, end + 1)), how if several else None, pooling, unit_length)  # type: ignore[arg-type]
        if pooling == "pooler":
            require(chosen.layers == (last,), "the pooler is made of the last layer alone; --layers last", layers)
        return chosen

    @property
    def said(self) -> str:
        """The layers, as they can be typed."""
        span = f"{self.layers[0]}..{self.layers[-1]}:{self.how}"
        return span if self.how else str(self.layers[0])

    def __str__(self) -> str:
        unit = ", divided by its length" if self.unit_length else ""
        return f"layers {self.said}, pooling {self.pooling}{unit}"

    def width(self, hidden: int) -> int:
        """Numbers of a vector."""
        return hidden * (len(self.layers) if self.how == "concat" else 1)


def every(last: int, pooler: bool, unit_length: bool) -> list[Choice]:
    """Those that are compared: each layer alone, and of several what Devlin et al. (2018, table 7) compare; by each
    pooling."""
    four = f"last{min(4, last)}"
    several = (*map(str, range(last + 1)), f"{four}:sum", f"{four}:concat", "all:sum")
    poolings: tuple[Pooling, ...] = ("cls", "mean", "max")
    found = [Choice.read(layers, pooling, unit_length, last) for layers in several for pooling in poolings]
    return list(dict.fromkeys(found + [Choice.read(LAST, "pooler", unit_length, last)] * pooler))
