"""Large corpora: token files are read a bounded number of times, and no pool grows with the corpus."""

import collections

import numpy as np
import pytest

from preprocessing.errors import InputError
from preprocessing.examples import planning, regrouping, spilling
from preprocessing.settings import ExampleSettings
from tests.preprocessing.examples.test_writing import digest, examples, make_documents, one_file, vocab

__all__ = ["vocab"]


@pytest.fixture
def many_files(monkeypatch):
    """Token files of some five documents, regrouped where there are more than one."""
    monkeypatch.setattr(spilling, "_TEXT_BATCH_BYTES", 100)
    monkeypatch.setattr(spilling, "_SPILL_TOKENS", 500)
    monkeypatch.setattr(regrouping, "MANY_FILES", 1)
    monkeypatch.setattr(regrouping, "_FILE_TOKENS", 1_000)


def test_same_bytes_from_regrouped_files(tmp_path, vocab, request):
    path = one_file(tmp_path, make_documents(120))
    wanted = digest(examples([path], vocab, dupe_factor=2, max_seq_length=64)[0])
    request.getfixturevalue("many_files")
    assert digest(examples([path], vocab, dupe_factor=2, max_seq_length=64)[0]) == wanted


def test_a_pool_reads_few_files_and_every_document_stands_in_one(tmp_path, vocab, many_files, monkeypatch):
    """Slots that are larger than a pool are split; a pool's size and readings depend on the pool alone."""
    monkeypatch.setattr(planning, "POOL_TOKENS", 9)
    texts = make_documents(600)
    opened, pools = [], collections.defaultdict(list)
    read_slots, read_pool = spilling.read_slots, planning.read_pool

    def reading(path, *arguments):
        opened.append(path)
        return read_slots(path, *arguments)

    def pool_of(work):
        opened.clear()
        pool = read_pool(work)
        if not work.first:
            pools[work.copy].append((len(set(opened)), pool))
        return pool

    monkeypatch.setattr(spilling, "read_slots", reading)
    monkeypatch.setattr(planning, "read_pool", pool_of)
    found, counters = examples([one_file(tmp_path, texts)], vocab, dupe_factor=2, max_seq_length=64)
    assert len(found) > 1200
    assert counters["tokens"] > 2 * 9 * spilling.SLOTS  # so that slots are split
    for of_copy in pools.values():
        ids = np.concatenate([pool.ids for _, pool in of_copy])
        assert len(ids) == len(np.unique(ids)) == counters["documents"]
        assert max(files for files, _ in of_copy) <= 8  # of a hundred
        assert max(len(pool) for _, pool in of_copy) <= 6
        assert min(len(pool) for _, pool in of_copy) >= 2


def counted(tokens):
    rows = np.zeros(len(tokens), planning._COUNTED)
    rows["slot"] = np.arange(len(tokens))
    rows["documents"], rows["tokens"] = 100, tokens
    return rows


@pytest.mark.parametrize(
    ("tokens", "splits"), [(1_000, 1), (8_000_000, 1), (8_000_064, 2), (40_000_000, 8), (512_000_000, 64)]
)
def test_slots_are_split_where_they_exceed_a_pool(tokens, splits):
    slots = spilling.SLOTS * planning.MAX_SPLITS
    found, divided = planning.divide(counted([tokens // planning.MAX_SPLITS] * slots))
    assert divided == splits
    assert len(found) == spilling.SLOTS * divided
    assert sum(documents for _, documents, _ in found) == 100 * slots
    plan = planning.make_plan(found, ExampleSettings(dupe_factor=1), splits=divided)
    assert len(plan.pool_of[0]) == spilling.SLOTS * divided
    held = collections.Counter()
    for slot, _, size in found:
        held[plan.pool_of[0][slot]] += size
    assert max(held.values()) <= 2.01 * planning.POOL_TOKENS


def test_more_tokens_than_can_be_split_are_refused_by_number():
    with pytest.raises(InputError, match=r"up to 524,288,000,000 tokens; divide the input .* Received: 600000000000$"):
        planning.divide(counted([600_000_000_000]))


def test_a_split_slot_divides_the_slot():
    ids = np.frombuffer(np.random.default_rng(0).bytes(16 * 5000), spilling.ID_TYPE)
    slots = spilling.slot_of(ids)
    for splits in (2, 64):
        fine = spilling.slot_of(ids, splits)
        assert np.array_equal(fine // splits, slots)
        assert np.array_equal(fine % splits, spilling.slot_of(ids, 64) % 64 % splits)
