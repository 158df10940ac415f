"""What an exported model answers: raw text in, tensors out. One object a signature; see `serving.signatures.base`.

ALL is what any checkpoint is asked for; each signature says what it needs. Export, warm-up, golden requests and the
tests take what stands here.
"""

from serving.signatures.classification import CLASSIFIERS
from serving.signatures.fill_mask import FILL_MASK
from serving.signatures.hidden_states import ATTENTION, FEATURES, TOKENIZE
from serving.signatures.pretraining import EVALUATE, NEXT_SENTENCE
from serving.signatures.question_answering import ANSWER
from serving.signatures.sentences import EMBEDDING
from serving.signatures.similarity import SIMILARITY
from serving.signatures.tagging import TAG, TAG_WORDS

ALL = (
    EMBEDDING,
    FILL_MASK,
    NEXT_SENTENCE,
    *FEATURES,
    ATTENTION,
    TOKENIZE,
    EVALUATE,
    *CLASSIFIERS,
    SIMILARITY,
    TAG,
    TAG_WORDS,
    ANSWER,
)
