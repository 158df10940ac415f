"""What a home keeps of any pipeline."""

import dataclasses

from preprocessing.errors import require


@dataclasses.dataclass(frozen=True)
class RetentionSettings:
    """What `bert clean` leaves."""

    runs: int = 10  # the newest, whose artifacts all stay
    versions: int = 5  # the newest pushed ones that were not rolled back, beside those that have or had a label
    parents: int | None = None  # checkpoints of models that a kept version was warm-started from, in turn; None: all
    training_days: int = 7  # a training that was broken off, since it was last written to

    def __post_init__(self):
        require(self.runs >= 1, "retention.runs must be positive: the next run begins with the newest's", self.runs)
        require(self.versions >= 1, "retention.versions must be positive: the newest is compared with", self.versions)
        require(self.parents is None or self.parents >= 0, "retention.parents must not be negative", self.parents)
        require(self.training_days >= 0, "retention.training_days must not be negative", self.training_days)
