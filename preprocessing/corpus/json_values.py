"""JSON values out of a file that is one array, or holds values over several lines: one after the other, never all."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

_BLOCK = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def read(handle: BinaryIO, bound: int) -> Iterator[tuple[int, int, Any]]:
    """(line, from 0, where it begins; size; value) of each element of an array, and of each value that stands in no
    array. Raises ValueError for what is not JSON, and for a value of more than `bound` characters: what follows cannot
    be told from it."""
    text = _Text(handle)
    while text.skip_space():
        if text.here() != "[":
            yield text.value(bound)
            continue
        text.step()
        more = text.skip_space() and text.here() != "]"
        while more:
            yield text.value(bound)
            text.skip_space()
            if more := text.here() == ",":
                text.step()
                text.skip_space()
        if text.here() != "]":
            raise ValueError(f"line {text.line + 1}: not JSON (an array must go on or end here)")
        text.step()


class _Text:
    """What of the file is at hand, and where in it we are."""

    def __init__(self, handle: BinaryIO):
        self._handle, self._decoder = handle, codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self.line = "", 0, 0
        self._ended = False

    def here(self) -> str:
        return self._text[self._at : self._at + 1]

    def step(self) -> None:
        self._at += 1

    def skip_space(self) -> bool:
        """Goes on to what is no white space; whether there is any."""
        while True:
            end = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            self._move(end)
            if end < len(self._text) or not self._read(_BLOCK):
                return end < len(self._text)

    def value(self, bound: int) -> tuple[int, int, Any]:
        line, wanted = self.line, _BLOCK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (json.JSONDecodeError, RecursionError) as error:
                # It may only be cut. What is read grows with it, so that it is not parsed too often.
                if len(self._text) - self._at <= bound and self._read(wanted):
                    wanted *= 2
                    continue
                if len(self._text) - self._at > bound and not self._ended:
                    raise ValueError(
                        f"line {line + 1}: a value over {bound:,} bytes (max_line_bytes), or no JSON"
                    ) from error
                reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
                raise ValueError(f"line {line + 1}: not JSON ({reason})") from error
            if end == len(self._text) and self._read(_BLOCK):
                continue  # a number may go on
            size = end - self._at
            self._move(end)
            return line, size, value

    def _move(self, end: int) -> None:
        self.line += self._text.count("\n", self._at, end)
        self._at = end

    def _read(self, size: int) -> bool:
        """Reads on; whether there was more."""
        data = b"" if self._ended else self._handle.read(size)
        self._ended = not data
        self._text = self._text[self._at :] + self._decoder.decode(data, final=not data)
        self._at = 0
        return bool(data)
