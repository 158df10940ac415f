"""What was read of each chunk of the input, what was set aside, and whether that is too much."""

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator

from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from preprocessing.beam.runner import NAMESPACE
from preprocessing.corpus.chunks import Chunk, Tally
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings

_SHOWN_BYTES = 1000  # of a line that is set aside
_SHOWN_LINES = 1000  # of those that are set aside of a chunk


@dataclasses.dataclass
class ChunkReport:
    """What was found in a chunk; `bad_lines` are (line in the chunk, reason, beginning), the first ones."""

    chunk: Chunk
    tally: Tally = dataclasses.field(default_factory=Tally)
    bad_lines: list[tuple[int, str, bytes]] = dataclasses.field(default_factory=list)

    def set_aside(self, line: int, reason: str, data: bytes) -> None:
        if len(self.bad_lines) < _SHOWN_LINES:
            self.bad_lines.append((line, reason, data[:_SHOWN_BYTES]))


def check_reports(reports: Iterable[ChunkReport], settings: CorpusSettings, set_aside: str | None) -> Tally:
    """Sums of all chunks' reports, counted in Beam's counters; writes the bad lines to `set_aside`. Raises InputError
    where they are too many, or where there is no document at all."""
    reports = sorted(reports, key=lambda report: report.chunk.index)
    total = Tally(
        *(sum(values) for values in zip(*(dataclasses.astuple(report.tally) for report in reports), strict=True))
    )
    if set_aside and total.bad:
        with FileSystems.create(set_aside) as file:
            file.writelines(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in _bad_lines(reports))
    if total.bad > settings.max_bad_share * total.lines:
        first = next(_bad_lines(reports))
        raise InputError(
            f"{first['file']}:{first['line']}: {first['reason']}; {total.bad:,} of {total.lines:,} lines cannot be "
            f"used, more than the {settings.max_bad_share:.4g} allowed. Correct them or raise --max-bad-share"
        )
    if not total.documents:
        raise InputError(f"no text in {', '.join(settings.input)}: nothing but blank lines")
    for name, count in (("lines", total.lines), ("lines_set_aside", total.bad), ("documents_split", total.split)):
        Metrics.counter(NAMESPACE, name).inc(count)
    return total


def _bad_lines(reports: Iterable[ChunkReport]) -> Iterator[dict[str, str | int]]:
    """What `set_aside` tells of each bad line, from the reports in the order of their chunks."""
    before: dict[str, int] = defaultdict(int)
    for report in reports:
        path, number = report.chunk.path, 0
        for line, reason, data in report.bad_lines:
            number = 1 + before[path] + line
            yield {"file": path, "line": number, "reason": reason, "text": data.decode(errors="backslashreplace")}
        if more := report.tally.bad - len(report.bad_lines):
            yield {
                "file": path,
                "line": number,
                "reason": f"{more:,} more lines after this one, not listed",
                "text": "",
            }
        before[path] += report.tally.newlines
