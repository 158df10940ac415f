"""Which files were read, byte for byte."""

import hashlib
import json
from collections.abc import Iterable, Mapping

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

_BLOCK_BYTES = 1 << 22


class WriteHashes(beam.PTransform):
    """pbegin -> the file `path`: a line of JSON for each of `files` (the names to write by their paths), sorted, with
    `file`, `bytes` and `sha256` (that which `sha256sum` gives). The workers share the files out, and read each once
    more for it."""

    def __init__(self, files: Mapping[str, str], path: str):
        super().__init__()
        self._files, self._path = list(files.items()), path

    def expand(self, pbegin):
        files, path = self._files, self._path
        return (
            pbegin
            | beam.Impulse()
            | "Files" >> beam.FlatMap(lambda _: files).with_output_types(tuple[str, str])
            | beam.Reshuffle()
            | "Hash" >> beam.MapTuple(_hashed)
            | "All" >> beam.combiners.ToList()
            | "Write" >> beam.Map(write, path)
        )


def _hashed(path: str, name: str) -> dict[str, str | int]:
    digest, size = hashlib.sha256(), 0
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return {"file": name, "bytes": size, "sha256": digest.hexdigest()}


def write(entries: Iterable[dict], path: str) -> None:
    """The file gets its name when it is whole; an earlier attempt's is written over."""
    lines = [json.dumps(entry) + "\n" for entry in sorted(entries, key=lambda entry: entry["file"])]
    with FileSystems.create(f"{path}.tmp", compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write("".join(lines).encode())
    if FileSystems.exists(path):
        FileSystems.delete([path])
    FileSystems.rename([f"{path}.tmp"], [path])
