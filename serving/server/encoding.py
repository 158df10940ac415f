"""gzip on the wire: bodies of requests, and large answers for clients that take them so."""

import re
import zlib
from collections.abc import Iterable, Iterator

from serving.protocol.errors import Code, RequestError

LARGE = 64 * 1024  # bytes of an answer that is worth it
STEP = 256 * 1024  # bytes at once, in a few milliseconds of the event loop
_GZIP = 31  # zlib's number for it


class Gunzip:
    """Opens a body piece by piece. Its members may lie one behind the other (RFC 1952)."""

    def __init__(self):
        self._member = zlib.decompressobj(_GZIP)

    def opened(self, data: bytes) -> Iterator[bytes]:
        """What `data` holds, in steps, so that the caller can stop before it is too much. Raises RequestError."""
        try:
            while True:
                if data and self._member.eof:
                    self._member = zlib.decompressobj(_GZIP)
                step = self._member.decompress(data, STEP)
                yield step
                data = self._member.unconsumed_tail or self._member.unused_data
                if not data and len(step) < STEP:
                    return
        except zlib.error as error:
            raise RequestError(
                Code.INVALID_ARGUMENT, f"Content-Encoding says gzip, but the body is not ({error})"
            ) from None

    def end(self) -> None:
        """Raises RequestError where something is still to come."""
        if not self._member.eof:
            raise RequestError(Code.INVALID_ARGUMENT, "Content-Encoding says gzip, but the body is not whole")


def is_gzip(content_encoding: str) -> bool:
    """Whether a body is compressed. Raises RequestError for other encodings."""
    encodings = [name for name in re.split(r"[\s,]+", content_encoding.lower()) if name not in ("", "identity")]
    if encodings not in ([], ["gzip"], ["x-gzip"]):
        raise RequestError(
            Code.INVALID_ARGUMENT, f"Content-Encoding must be gzip or identity. Received: {content_encoding[:100]!r}"
        )
    return bool(encodings)


def takes_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip, by its `Accept-Encoding` (RFC 9110, 12.5.3)."""
    wanted = {}
    for choice in accept_encoding.lower().split(","):
        name, *parameters = (part.strip() for part in choice.split(";"))
        wanted[name] = not any(re.fullmatch(r"q\s*=\s*0(\.0*)?", parameter) for parameter in parameters)
    return wanted.get("gzip", wanted.get("*", False))


def gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The compressed pieces, some of them empty: each call is short."""
    compressor = zlib.compressobj(1, wbits=_GZIP)
    for piece in pieces:
        for start in range(0, len(piece), STEP):
            yield compressor.compress(piece[start : start + STEP])
    yield compressor.flush()
