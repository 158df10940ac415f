"""Text -> token ids, the same in Python, Beam, tf.data and the SavedModel."""

from preprocessing.tokenizer.wordpiece import BertTokenizer, Spans

__all__ = ["BertTokenizer", "Spans"]
