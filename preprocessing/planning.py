"""Which documents meet in a pool, and how the work is shared out: decided once all documents have been counted.

The plan is written beside the tokens, and a piece of work only names it.
"""

import collections
import dataclasses
import functools
import itertools
import json
import math
import uuid
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from preprocessing import corpus, counter_random, spilling
from preprocessing.beam_runner import NAMESPACE
from preprocessing.errors import InputError
from preprocessing.settings import CorpusSettings, ExampleSettings
from preprocessing.spilling import REPORTS, ROW, SLOTS
from preprocessing.token_store import Pool

# Fixed, since it decides which documents meet in a pool. A pool of 8 M tokens (some 35 MB of English) takes 32 MB.
POOL_TOKENS = 8_000_000

# These only decide how the work is cut.
_PART_TOKENS = 400_000
_MAX_PIECES = 8  # in which one pool is handed out by MakeExamples


@dataclasses.dataclass(frozen=True)
class Plan:
    """`pool_of` [copies][SLOTS]: pool of each slot, -1 where a slot is empty; `parts` [copies][pools]: in how many
    parts each pool is worked off."""

    pool_of: tuple[tuple[int, ...], ...]
    parts: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Work:
    """Parts [first, end) of the `parts` of a pool, under a copy. `plan`: path of what `read_pool` needs."""

    plan: str
    copy: int
    pool: int
    first: int
    end: int
    parts: int


class PlanWork(beam.PTransform):
    """What `spilling.Spill` gives -> (number, Work), or (shard, Work or None) where `shards` is given, with every shard
    at least once; to be grouped."""

    def __init__(
        self,
        settings: ExampleSettings,
        folder: str,
        shards: int | None = None,
        corpus_settings: CorpusSettings | None = None,
        set_aside: str | None = None,
    ):
        super().__init__()
        self._arguments = settings, folder, shards, corpus_settings, set_aside

    def expand(self, spilled):
        return (
            spilled
            | "Buckets" >> beam.GroupByKey()
            | "CountSlots" >> beam.Map(_count_slots).with_output_types(tuple[int, tuple])
            | "All" >> beam.GroupByKey()
            | "Plan" >> beam.FlatMap(_plan, *self._arguments).with_output_types(tuple[int, Work | None])
        )


def _count_slots(grouped: tuple[int, Iterable]) -> tuple[int, tuple]:
    """(0, (rows (slot, documents, tokens) of each slot, files, reports)), each document counted once."""
    bucket, values = grouped[0], list(grouped[1])
    if bucket == REPORTS:
        return 0, ([], [], values)
    rows = np.frombuffer(b"".join(packed for _, packed in values), ROW)
    _, first = np.unique(rows["id"], return_index=True)
    found = rows[first]
    counts = {
        "duplicates": len(rows) - len(found),
        "documents": np.count_nonzero(found["tokens"]),
        "documents_empty": np.count_nonzero(found["tokens"] == 0),
        "sentences": found["sentences"].sum(),
        "tokens": found["tokens"].sum(dtype=np.int64),
        "unknown_tokens": found["unknown"].sum(dtype=np.int64),
    }
    for name, count in counts.items():
        Metrics.counter(NAMESPACE, name).inc(int(count))
    found = found[found["tokens"] > 0]
    documents = np.bincount(found["slot"], minlength=SLOTS)
    tokens = np.bincount(found["slot"], found["tokens"], SLOTS).astype(np.int64)
    slots = [(slot, int(documents[slot]), int(tokens[slot])) for slot in np.flatnonzero(documents).tolist()]
    return 0, (slots, [path for path, _ in values], [])


def _plan(grouped, settings, folder, shards, corpus_settings, set_aside):
    slots, paths, reports = (list(itertools.chain.from_iterable(parts)) for parts in zip(*grouped[1], strict=True))
    if corpus_settings:
        corpus.check_reports(reports, corpus_settings, set_aside)
    plan = make_plan(slots, settings, shards)
    name = FileSystems.join(folder, f"plan-{uuid.uuid4().hex}")
    with FileSystems.create(name) as file:
        file.write(json.dumps({"paths": sorted(set(paths)), "pool_of": plan.pool_of}).encode())
    if shards:
        yield from ((shard, None) for shard in range(shards))
    yield from _cut(plan, name, shards)


def make_plan(slots: Iterable[tuple[int, int, int]], settings: ExampleSettings, shards: int | None = None) -> Plan:
    """Deals slots (slot, documents, tokens) into pools of some POOL_TOKENS and at least two documents, in an order of
    its own for each copy, so that the other documents a document meets change from copy to copy."""
    slots = sorted(slots)
    documents = sum(count for _, count, _ in slots)
    if not documents:
        raise InputError("no document has a token: check the input and the vocabulary")
    if documents < 2 and settings.pairs == "next-sentence":
        raise InputError(
            "no next sentence to draw: next-sentence pairs need two documents or more. Received: 1. "
            "Separate documents by blank lines, or choose --pairs none or sentence-order"
        )
    tokens = sum(count for _, _, count in slots)
    wanted = max(1, round(tokens / POOL_TOKENS))
    pool_of, pool_tokens = [], []
    for copy in range(settings.dupe_factor):
        keys = counter_random.bits(counter_random.named_key(settings.seed, copy, "pools"), [slot for slot, *_ in slots])
        of = [-1] * SLOTS
        held = [[0, 0]]  # documents, tokens
        for at in np.argsort(keys, kind="stable"):
            slot, count, size = slots[at]
            if held[-1][0] >= 2 and held[-1][1] >= tokens / wanted:
                held.append([0, 0])
            of[slot] = len(held) - 1
            held[-1][0] += count
            held[-1][1] += size
        if len(held) > 1 and held[-1][0] < 2:
            of = [min(pool, len(held) - 2) for pool in of]
            held[-2:] = [[held[-2][0] + held[-1][0], held[-2][1] + held[-1][1]]]
        pool_of.append(tuple(of))
        pool_tokens.append([size for _, size in held])
    least = math.ceil((shards or 1) / sum(map(len, pool_tokens)))
    parts = tuple(tuple(max(least, math.ceil(size / _PART_TOKENS)) for size in sizes) for sizes in pool_tokens)
    return Plan(tuple(pool_of), parts)


def _cut(plan: Plan, name: str, shards: int | None):
    """(number, Work), or (shard, Work): consecutive parts of the whole go to one shard."""
    total = sum(map(sum, plan.parts))
    before = number = 0
    for copy, pools in enumerate(plan.parts):
        for pool, parts in enumerate(pools):
            if shards is None:
                pieces = min(parts, _MAX_PIECES)
                bounds = [piece * parts // pieces for piece in range(pieces + 1)]
                for first, end in itertools.pairwise(bounds):
                    yield number, Work(name, copy, pool, first, end, parts)
                    number += 1
                continue
            by_shard = collections.defaultdict(list)
            for part in range(parts):
                by_shard[(before + part) * shards // total].append(part)
            for shard, own in by_shard.items():
                yield shard, Work(name, copy, pool, own[0], own[-1] + 1, parts)
            before += parts


@functools.lru_cache(maxsize=2)
def _read_plan(name: str) -> tuple[list[str], np.ndarray]:
    """(files, pool of each slot [copies, SLOTS])"""
    with FileSystems.open(name) as file:
        plan = json.loads(file.read())
    return plan["paths"], np.array(plan["pool_of"])


def read_pool(work: Work) -> Pool:
    """The documents among which the examples of the work are drawn."""
    paths, pool_of = _read_plan(work.plan)
    return spilling.read_slots(paths, np.flatnonzero(pool_of[work.copy] == work.pool))
