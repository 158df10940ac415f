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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from preprocessing.beam.runner import NAMESPACE
from preprocessing.corpus import reports as corpu_reports
from preprocessing.errors import InputError, require
from preprocessing.examples import counter_random, regrouping, spilling, token_store
from preprocessing.examples.spilling import REPORTS, ROW, SLOTS
from preprocessing.examples.token_store import Pool
from preprocessing.settings import CorpusSettings, ExampleSettings

# Fixed, since they decide which documents meet in a pool. A pool of 8 M tokens (some 35 MB of English) takes 32 MB.
POOL_TOKENS = 8_000_000
MAX_SPLITS = 64  # of a slot, where all slots together hold more than a pool each

# These only decide how the work is cut.
_PART_TOKENS = 400_000
_MAX_PIECES = 8  # in which one pool is handed out by MakeExamples

_COUNTED = np.dtype([("slot", "<u4"), ("documents", "<i8"), ("tokens", "<i8")])  # slots split MAX_SPLITS times


@dataclasses.dataclass(frozen=True)
class Plan:
    """`pool_of` [copies][SLOTS * splits]: pool of each slot, -1 where a slot is empty; `parts` [copies][pools]: in how
    many parts each pool is worked off."""

    pool_of: tuple[tuple[int, ...], ...]
    parts: tuple[tuple[int, ...], ...]
    splits: int = 1


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
        self._folder, self._shards = folder, shards

    def expand(self, spilled):
        return (
            spilled
            | "Buckets" >> beam.GroupByKey()
            | "CountSlots" >> beam.Map(_count_slots).with_output_types(tuple[int, tuple])
            | "All" >> beam.GroupByKey()
            | "Plan" >> beam.FlatMap(_plan, *self._arguments).with_output_types(tuple[int, str])
            | "Groups" >> beam.GroupByKey()
            | "Regroup" >> beam.FlatMap(_regroup, self._folder).with_output_types(tuple[int, tuple])
            | "Regrouped" >> beam.GroupByKey()
            | "Cut" >> beam.FlatMap(_share_out, self._folder, self._shards).with_output_types(tuple[int, Work | None])
        )


def _count_slots(grouped: tuple[int, Iterable]) -> tuple[int, tuple]:
    """(0, (packed `_COUNTED`s, files, reports)), each document counted once."""
    bucket, values = grouped[0], list(grouped[1])
    if bucket == REPORTS:
        return 0, (b"", [], values)
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
    slots, documents = np.unique(spilling.slot_of(found["id"], MAX_SPLITS), return_inverse=True)
    counted = np.zeros(len(slots), _COUNTED)
    counted["slot"], counted["documents"] = slots, np.bincount(documents, minlength=len(slots))
    np.add.at(counted["tokens"], documents, found["tokens"])
    return 0, (counted.tobytes(), [path for path, _ in values], [])


def _plan(grouped, settings, folder, shards, corpus_settings, set_aside):
    """(group of slots, name of the plan); (-1, name) where the files need not be regrouped."""
    counted, paths, reports = zip(*grouped[1], strict=True)
    if corpus_settings:
        corpu_reports.check_reports(itertools.chain.from_iterable(reports), corpus_settings, set_aside)
    slots, splits = divide(np.frombuffer(b"".join(counted), _COUNTED))
    plan = make_plan(slots, settings, shards, splits)
    files = sorted(set(itertools.chain.from_iterable(paths)))
    name = _write(folder, dataclasses.asdict(plan) | {"paths": files, "groups": None})
    regroups = splits > 1 or len(files) > regrouping.MANY_FILES
    yield from ((group, name) for group in (range(regrouping.GROUPS) if regroups else [-1]))


def divide(counted: np.ndarray) -> tuple[list[tuple[int, int, int]], int]:
    """((slot, documents, tokens) of each slot that holds any, how often the slots are split): as seldom as leaves
    no slot larger than a pool, as far as their mean goes. Raises InputError for more tokens than that can be done for.
    """
    total, splits = int(counted["tokens"].sum()), 1
    while total > splits * SLOTS * POOL_TOKENS:
        splits *= 2
    require(
        splits <= MAX_SPLITS,
        f"one run makes examples of up to {MAX_SPLITS * SLOTS * POOL_TOKENS:,} tokens; divide the input among several",
        total,
    )
    # A power of two divides the other: what stands in a slot split most is known for one that is split less.
    slots = counted["slot"] // MAX_SPLITS * splits + counted["slot"] % MAX_SPLITS % splits
    found, of = np.unique(slots, return_inverse=True)
    sums = np.zeros((2, len(found)), np.int64)
    np.add.at(sums[0], of, counted["documents"])
    np.add.at(sums[1], of, counted["tokens"])
    return list(zip(found.tolist(), *sums.tolist(), strict=True)), splits


def make_plan(
    slots: Iterable[tuple[int, int, int]], settings: ExampleSettings, shards: int | None = None, splits: int = 1
) -> Plan:
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
        of = [-1] * (SLOTS * splits)
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
    return Plan(tuple(pool_of), parts, splits)


def _regroup(numbered, folder):
    """(group, names of the plan) -> (0, (plan, group, file))"""
    group, (name,) = numbered[0], list(numbered[1])
    if group < 0:
        yield 0, (name, group, "")
    else:
        plan = _read_plan(name)
        for path in regrouping.regroup(plan["paths"], group, plan["splits"], folder):
            yield 0, (name, group, path)


def _share_out(grouped, folder, shards):
    """(number, Work), or (shard, Work or None)."""
    written = sorted(grouped[1])
    name = written[0][0]
    plan = _read_plan(name)
    if written[0][1] >= 0:
        files: list[list[str]] = [[] for _ in range(regrouping.GROUPS)]
        for _, group, path in written:
            files[group].append(path)
        name = _write(folder, plan | {"pool_of": plan["pool_of"].tolist(), "groups": files})
    if shards:
        yield from ((shard, None) for shard in range(shards))
    yield from _cut(plan["parts"], name, shards)


def _cut(parts_of: Sequence[Sequence[int]], name: str, shards: int | None):
    """(number, Work), or (shard, Work): consecutive parts of the whole go to one shard."""
    total = sum(map(sum, parts_of))
    before = number = 0
    for copy, pools in enumerate(parts_of):
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


def _write(folder: str, plan: Mapping) -> str:
    name = FileSystems.join(folder, f"plan-{uuid.uuid4().hex}")
    with FileSystems.create(name) as file:
        file.write(json.dumps(plan).encode())
    return name


@functools.lru_cache(maxsize=2)
def _read_plan(name: str) -> dict[str, Any]:
    """A Plan's fields, `pool_of` as an array; the token files (`paths`), and those of each group, where there are any
    (`groups`)."""
    with FileSystems.open(name) as file:
        plan = json.loads(file.read())
    return plan | {"pool_of": np.array(plan["pool_of"])}


def read_pool(work: Work) -> Pool:
    """The documents among which the examples of the work are drawn."""
    plan = _read_plan(work.plan)
    slots = np.flatnonzero(plan["pool_of"][work.copy] == work.pool)
    if plan["groups"]:
        parts = regrouping.read(plan["groups"], slots, plan["splits"])
    else:
        parts = itertools.chain.from_iterable(spilling.read_slots(path, slots) for path in plan["paths"])
    return Pool(token_store.concatenate(list(parts)))
