"""What a model can be fine-tuned for, one object a kind; see `pipeline.finetuning.kinds.kind`."""

from pipeline.finetuning.kinds.classification import CLASSIFICATION
from pipeline.finetuning.kinds.kind import Kind
from pipeline.finetuning.kinds.multi_label import MULTI_LABEL
from pipeline.finetuning.kinds.question_answering import QUESTION_ANSWERING
from pipeline.finetuning.kinds.regression import REGRESSION
from pipeline.finetuning.kinds.similarity import SIMILARITY
from pipeline.finetuning.kinds.tagging import TAGGING

ALL: tuple[Kind, ...] = (CLASSIFICATION, MULTI_LABEL, REGRESSION, SIMILARITY, TAGGING, QUESTION_ANSWERING)


def named(name: str) -> Kind:
    """The one of ALL that is called so."""
    return next(kind for kind in ALL if kind.name == name)
