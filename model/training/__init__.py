"""Examples in, a trained encoder out."""

from model.training.run import TrainingResult, check_words, train

__all__ = ["TrainingResult", "check_words", "train"]
