"""The encoder (Devlin et al. 2018, section 3) and its heads."""

from model.encoder.bert import BertEncoder

__all__ = ["BertEncoder"]
