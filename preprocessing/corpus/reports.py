"""What was read of each chunk of the input, what was set aside, and whether that is too much."""

import dataclasses
import itertools
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
    """What was found in a chunk; `bad_lines` are (line in the chunk, reason, beginning), the first ones; `notes` tell
    what else of the file was left out."""

    chunk: Chunk
    tally: Tally = dataclasses.field(default_factory=Tally)
    bad_lines: list[tuple[int, str, bytes]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

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
    notes = [
        {"file": report.chunk.path, "line": 0, "reason": note, "text": ""}
        for report in reports
        for note in report.notes
    ]
    if set_aside and (total.bad or notes):
        with FileSystems.create(set_aside) as file:
            rows = itertools.chain(_bad_lines(reports), notes)
            file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    _check_shares(total, reports, settings)
    counts = {
        "lines": total.lines,
        "lines_set_aside": total.bad,
        "bytes": total.bytes,
        "bytes_set_aside": total.bad_bytes,
        "lines_without_text": total.nulls,
        "carriage_returns_in_lines": total.returns,
        "files_read_in_part": len(notes),
        "documents_split": total.split,
    }
    for name, count in counts.items():
        Metrics.counter(NAMESPACE, name).inc(count)
    return total


def _check_shares(total: Tally, reports: list[ChunkReport], settings: CorpusSettings) -> None:
    """Raises InputError where what cannot be used is too much, of the lines or of their bytes, or all."""
    for bad, of, unit in ((total.bad, total.lines, "lines"), (total.bad_bytes, total.bytes, "bytes")):
        if bad > settings.max_bad_share * of:
            first = next(_bad_lines(reports))
            # Where nothing is left, allowing more does not help.
            way_out = "Correct them or raise --max-bad-share" if total.documents else _way_out(str(first["reason"]))
            raise InputError(
                f"{first['file']}:{first['line']}: {first['reason']}; {bad:,} of {of:,} {unit} cannot be "
                f"used, more than the {settings.max_bad_share:.4g} allowed. {way_out}"
            )
    if not total.documents:
        nulls = f" and {total.nulls:,} records whose text is null" if total.nulls else ""
        raise InputError(f"no text in {', '.join(settings.input)}: nothing but blank lines{nulls}")


def _way_out(reason: str) -> str:
    """What to do where nothing at all can be used, for the first reason: allowing more would not help."""
    if reason.startswith("no text in"):
        return "No text is left: name the field with --text-field"
    if reason.startswith("not UTF-8"):
        return "No text is left: convert it to UTF-8, with iconv for one"
    return "No text is left: correct it, or name its format with --format"


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
