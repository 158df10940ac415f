"""What both protocols do with a request once they have read it: find the model, check bounds, wait for the answer."""

from collections.abc import Callable, Collection, Mapping

import numpy as np

from serving.engine.batching import Batcher
from serving.engine.loaded_model import LoadedSignature, asked_for
from serving.engine.models import Models
from serving.engine.settings import Limits
from serving.protocol.errors import Code, RequestError

Answered = Callable[[LoadedSignature, Mapping[str, np.ndarray], Collection[str]], None]


class Inference:
    """Answers requests. Attributes: `models`, `limits`. `answered` is told of each that was: signature, inputs, and the
    names of the outputs that were asked for, if any were named."""

    def __init__(self, models: Models, batcher: Batcher, limits: Limits, answered: Answered = lambda *request: None):
        self.models = models
        self.limits = limits
        self._batcher = batcher
        self._answered = answered

    def signature(
        self, model: str, version: int | None = None, label: str | None = None, name: str = ""
    ) -> LoadedSignature:
        """Raises RequestError."""
        return self.models.find(model, version, label).signature(name)

    async def run(
        self, signature: LoadedSignature, inputs: Mapping[str, np.ndarray], wanted: Collection[str] = ()
    ) -> dict[str, np.ndarray]:
        """The outputs that are wanted (all if none is named). Raises RequestError for inputs that are not the
        signature's, for outputs that it does not have, and beyond the bounds."""
        names = asked_for(signature.outputs, wanted)
        rows = signature.checked(inputs)
        limit = self.limits.rows if signature.fixed_size else self.limits.variable_rows
        if rows > limit:
            raise RequestError(
                Code.INVALID_ARGUMENT, f"a request to {signature.name} may have {limit} rows. Received: {rows}"
            )
        for name, array in inputs.items():
            if array.dtype == object:
                longest = max(map(len, array.flat), default=0)
                if longest > self.limits.text_bytes:
                    raise RequestError(
                        Code.INVALID_ARGUMENT,
                        f"a text in {name} may have {self.limits.text_bytes} bytes. Received: {longest}",
                    )
        outputs = await self._batcher.run(signature, inputs, rows)
        outputs = {name: outputs[name] for name in names}
        size = sum(map(_bytes, outputs.values()))
        if size > self.limits.answer_bytes:
            raise RequestError(
                Code.INVALID_ARGUMENT,
                f"the answer would have {size} bytes of the {self.limits.answer_bytes} allowed; send fewer texts",
            )
        self._answered(signature, inputs, wanted)
        return outputs


def _bytes(array):
    return array.nbytes + (sum(map(len, array.flat)) if array.dtype == object else 0)
