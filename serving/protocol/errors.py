"""Why a request is refused: one exception for both protocols, with the codes that gRPC and TensorFlow share."""

import enum


class Code(enum.Enum):
    """(gRPC's number, the HTTP status that TensorFlow Serving answers with)."""

    CANCELLED = (1, 499)
    UNKNOWN = (2, 500)
    INVALID_ARGUMENT = (3, 400)
    DEADLINE_EXCEEDED = (4, 504)
    NOT_FOUND = (5, 404)
    PERMISSION_DENIED = (7, 403)
    RESOURCE_EXHAUSTED = (8, 429)
    FAILED_PRECONDITION = (9, 400)
    OUT_OF_RANGE = (11, 400)
    UNIMPLEMENTED = (12, 501)
    INTERNAL = (13, 500)
    UNAVAILABLE = (14, 503)

    @property
    def number(self) -> int:
        return self.value[0]

    @property
    def http_status(self) -> int:
        return self.value[1]


_BY_NUMBER = {code.number: code for code in Code}


MESSAGE_BYTES = 2000


class RequestError(Exception):
    """A request that cannot be answered; the message is for its sender, and short enough for gRPC's trailers, whatever
    was received."""

    def __init__(self, code: Code, message: str):
        message = message.encode("utf-8", "replace")[:MESSAGE_BYTES].decode("utf-8", "ignore")
        super().__init__(message)
        self.code = code
        self.message = message

    @classmethod
    def from_tensorflow(cls, error) -> "RequestError":
        """Of a `tf.errors.OpError`: what the operation said, without the stack before and the node names behind it."""
        said = str(error.message).split("\n\t [[", 1)[0].strip().rsplit("\n", 1)[-1]
        return cls(_BY_NUMBER.get(error.error_code, Code.INTERNAL), said[:1000])
