"""What the data of a run must keep to, or the run stops before it trains."""

import dataclasses

from preprocessing.errors import require


@dataclasses.dataclass(frozen=True)
class DataBounds:
    """All from 0 to 1; 1 lets everything pass.

    The first six are of the newest span beside the span before it (and of served text beside that of training):
    distances as TensorFlow Data Validation has them. L-infinity is the most by which the share of any one value moved;
    the Jensen-Shannon divergence is 0 for equal distributions and 1 for those that share nothing.
    """

    language: float = 0.2  # L-infinity, of the language that a document seems to be in (`preprocessing.languages`)
    characters: float = 0.1  # L-infinity, of the kinds of characters (`preprocessing.character_kinds`)
    words: float = 0.3  # Jensen-Shannon, of the number of words of a document
    tokens: float = 0.1  # L-infinity, of the tokens of the examples
    duplicates: float = 0.2  # by which the share of documents that stood there before may grow
    shrinkage: float = 0.8  # share of the documents that may be missing, as of a file that was cut off

    # The rest is of the examples of any run.
    masked: float = 0.1  # by which the share of [MASK] where something is predicted may differ from the 80 % written
    one_label: float = 0.95  # share of the pairs that may have one and the same label
    unknown: float = 0.1  # share of [UNK] among the tokens

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(0 <= value <= 1, f"bounds.{field.name} must be from 0 to 1", value)
