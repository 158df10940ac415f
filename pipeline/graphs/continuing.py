"""What a run over spans of data takes over from the model pushed before."""

import dataclasses
import os

from pipeline.history import parents
from pipeline.settings import PipelineSettings
from preprocessing import storage
from preprocessing.corpus import spans
from preprocessing.errors import require


def with_parent(settings: PipelineSettings, serving: str) -> PipelineSettings:
    """Settings that name the newest span, so that a run is the same whoever said which that is, and the vocabulary and,
    for a warm start, the weights of the model pushed last of earlier spans, where there is one and they name none of
    their own. Raises InputError where its weights are gone."""
    if not spans.are_in(settings.corpus):
        return settings
    newest = spans.window(settings.corpus)[-1].number
    settings = settings.replace(corpus=dataclasses.replace(settings.corpus, newest_span=newest))
    parent = parents.find(serving, newest)
    if parent is None:
        return settings
    if settings.spans.keep_vocabulary and settings.vocabulary.file is None:
        settings = settings.replace(vocabulary=dataclasses.replace(settings.vocabulary, file=parent.vocabulary))
    if settings.spans.warm_start and settings.init is None:
        there = storage.is_remote(parent.checkpoint) or os.path.exists(parent.checkpoint)
        rule = f"spans.warm_start: the checkpoint of version {parent.version} must be there, or set it to false"
        require(there, rule, parent.checkpoint)
        settings = settings.replace(init=parent.checkpoint)
    return settings
