"""Random numbers as a function of a key and a counter, vectorised: no state, so no order of calls to depend on.

The function is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): the
finaliser applied to `key + counter * golden gamma`. All arithmetic is modulo 2**64.
"""

import hashlib

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = (np.uint64(shift) for shift in (30, 27, 31, 11))


def bits(keys: npt.ArrayLike, counters: npt.ArrayLike) -> Keys:
    """64 random bits for each key and counter (uint64, broadcast)."""
    with np.errstate(over="ignore"):
        z = np.asarray(counters, np.uint64) * _GAMMA
        z = np.atleast_1d(z + np.asarray(keys, np.uint64))
        z ^= z >> _S30
        z *= _M1
        z ^= z >> _S27
        z *= _M2
        z ^= z >> _S31
    return z


def uniform(keys: npt.ArrayLike, counters: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Uniform in [0, 1), with 53 random bits."""
    return (bits(keys, counters) >> _S11) * np.float64(2.0**-53)


def below(draws: npt.NDArray[np.float64], bound: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Integers in [0, bound) from uniform draws."""
    return (draws * np.asarray(bound)).astype(np.int64)


def named_key(*parts: object) -> np.uint64:
    """A key from anything that prints the same everywhere (seed, copy, purpose)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return np.frombuffer(digest, "<u8")[0]


def document_keys(ids: npt.NDArray[np.void], seed: int, copy: int, purpose: str = "") -> Keys:
    """A key for each document id (16 bytes each) under a seed and a copy."""
    halves = np.ascontiguousarray(ids).view("<u8").reshape(-1, 2)
    return bits(bits(halves[:, 0] ^ named_key(seed, copy, purpose), 1) ^ halves[:, 1], 2)
