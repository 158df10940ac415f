import hashlib
from types import SimpleNamespace

from pipeline import split


def documents(count):
    return [SimpleNamespace(id=hashlib.blake2b(str(i).encode(), digest_size=16).digest()) for i in range(count)]


def test_the_share_is_kept_and_depends_on_the_content_alone():
    held_out = [split.partition(document, 2, 0.1) for document in documents(20_000)]
    assert abs(sum(held_out) / 20_000 - 0.1) < 0.01
    assert held_out == [split.partition(document, 2, 0.1) for document in documents(20_000)]


def test_a_larger_share_keeps_what_was_held_out():
    for document in documents(1000):
        assert split.partition(document, 2, 0.1) <= split.partition(document, 2, 0.3)
