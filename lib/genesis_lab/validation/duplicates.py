"""Which texts are nearly the same: MinHash signatures, one per text and so made anywhere, and their clusters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genesis_lab.validation.view import normalised

THRESHOLD = 0.8
"""Jaccard similarity of character 5-grams from which two texts are near duplicates."""

_SHINGLE = 5
_PERMUTATIONS = 64
_BAND = 4
"""Rows of a band: four 16-bit values make one 64-bit key. 16 bands find a pair at 0.8 with probability 0.9998."""
_NEIGHBOURS = 8
"""Pairs looked at per text and band in a crowded band, nearest first."""


def groups(texts: Sequence[str], threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """Cluster number of each text; near duplicates share one. Use them as groups when splitting a dataset.

    Numbers count up in order of first appearance; every text without words is a cluster of its own.
    """
    words = normalised(pa.array(texts, pa.string()))
    first, second = near_pairs(signatures(words), pc.not_equal(words, "").to_numpy(zero_copy_only=False), threshold)
    return clusters(first, second, len(words))


def signatures(words: pa.StringArray) -> NDArray[np.uint16]:
    """MinHash of the byte 5-grams of normalised texts (Broder 1997), 64 permutations kept to 16 bits each.

    b-bit minwise hashing (Li and König 2010): with b = 16 chance agreements (2^-16) do not matter.

    Returns
    -------
    array of shape (n, 64). Texts shorter than five bytes are padded with spaces.
    """
    padded = pc.utf8_rpad(words, _SHINGLE).cast(pa.large_string())
    result = np.zeros((len(padded), _PERMUTATIONS), dtype=np.uint16)
    if not len(padded):
        return result
    offsets = np.frombuffer(padded.buffers()[1], dtype=np.int64)[padded.offset : padded.offset + len(padded) + 1]
    data = np.frombuffer(padded.buffers()[2], dtype=np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64)
    grams = np.zeros(len(data) - _SHINGLE + 1, dtype=np.uint64)
    for i in range(_SHINGLE):
        grams |= data[i : i + len(grams)] << np.uint64(8 * i)
    counts = np.diff(offsets) - _SHINGLE + 1
    inside = np.repeat(offsets[:-1] - offsets[0], counts)
    firsts = np.cumsum(counts) - counts
    inside += np.arange(len(inside)) - np.repeat(firsts, counts)
    mixed = _mixed(grams[inside])
    for p, (factor, shift) in enumerate(_permutations()):
        hashed = ((mixed * factor + shift) >> np.uint64(32)).astype(np.uint32)
        result[:, p] = np.minimum.reduceat(hashed, firsts) & np.uint32(0xFFFF)
    return result


def near_pairs(
    signature: NDArray[np.uint16], usable: NDArray[np.bool_], threshold: float = THRESHOLD
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (i, j), i < j, of texts whose signatures agree in at least `threshold` of the permutations.

    Locality-sensitive hashing by bands (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4),
    each candidate checked on the full signature. Texts with the same signature are linked through the first of them.

    Parameters
    ----------
    signature : shape (n, 64), as from `signatures`.
    usable : shape (n,), False for texts without words, which are near nothing.
    """
    rows = np.flatnonzero(usable)
    bands = np.ascontiguousarray(signature[rows]).view(np.uint64)
    whole = np.zeros(len(rows), dtype=np.uint64)
    for b in range(bands.shape[1]):
        whole = _mixed(whole ^ bands[:, b])
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    repeats = np.flatnonzero(first[inverse] != np.arange(len(rows)))
    found = [(first[inverse[repeats]], repeats)]
    distinct = np.sort(first)
    keys = bands[distinct]
    for b in range(keys.shape[1]):
        order = np.lexsort((distinct, keys[:, (b + 1) % keys.shape[1]], keys[:, b]))
        column = keys[order, b]
        for step in range(1, _NEIGHBOURS + 1):
            same = np.flatnonzero(column[:-step] == column[step:])
            if not len(same):
                break
            i, j = distinct[order[same]], distinct[order[same + step]]
            near = _agreement(signature, rows[i], rows[j]) >= threshold
            found.append((np.minimum(i, j)[near], np.maximum(i, j)[near]))
    codes = np.unique(np.concatenate([left * len(rows) + right for left, right in found]))
    return rows[codes // max(len(rows), 1)], rows[codes % max(len(rows), 1)]


def clusters(first: NDArray[np.int64], second: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Connected components of the pairs, numbered by first appearance; shape (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    _, appearance, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(appearance))[inverse]


def _agreement(signature: NDArray[np.uint16], i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
    block = 200_000
    parts = [(signature[i[s : s + block]] == signature[j[s : s + block]]).mean(axis=1) for s in range(0, len(i), block)]
    return np.concatenate(parts) if parts else np.empty(0)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): neighbouring numbers become unrelated ones."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=1)
def _permutations() -> tuple[tuple[np.uint64, np.uint64], ...]:
    drawn = np.random.default_rng(1997).integers(0, 2**64, size=(_PERMUTATIONS, 2), dtype=np.uint64)
    return tuple((factor | np.uint64(1), shift) for factor, shift in drawn)
