"""What a fine-tuning has cost, so that ways of tuning can be compared."""

import collections
import dataclasses
import json
import pathlib
import resource
import statistics


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one seed's run.

    Attributes:
        trained, weights: how many weights were trained, of how many there are.
        update_seconds: of one update, the median over the run; without the first ones, which TensorFlow prepares in.
        checkpoint_bytes: what a run that was killed goes on from: all weights, and moments of those that are trained.
        peak_memory: bytes of this process at most, with all that it has done so far.
    """

    trained: int
    weights: int
    update_seconds: float
    checkpoint_bytes: int
    peak_memory: int

    @classmethod
    def of(cls, run: pathlib.Path, trained: int, weights: int, batch_size: int) -> "Cost":
        """`run`: its folder, as `model.training.train` leaves it."""
        rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
        rates = [row["examples_per_second"] for row in rows if row["kind"] == "training"]
        sizes: collections.Counter[str] = collections.Counter()
        for path in (run / "checkpoints").iterdir():
            sizes[path.stem] += path.stat().st_size  # ckpt-STEP, of its index and data
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = batch_size / statistics.median(rates[1:] or rates)
        return cls(trained, weights, seconds, max(sizes.values()), kilobytes * 1024)

    def __str__(self) -> str:
        return (
            f"{self.trained:,} of {self.weights:,} weights trained, {self.update_seconds:.3g} s an update, "
            f"{self.checkpoint_bytes / 1e6:,.1f} MB a checkpoint to go on from, "
            f"{self.peak_memory / 1e9:.2f} GB of memory at most"
        )
