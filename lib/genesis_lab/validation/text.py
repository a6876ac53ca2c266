"""Which texts are the same, and which nearly: hashes and MinHash signatures, made of each text alone, and groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genesis_lab.texts import same_words

Index = NDArray[np.signedinteger[Any]]
Signatures = NDArray[np.uint16]

THRESHOLD = 0.8
"""Jaccard similarity of character 5-grams from which two texts are near duplicates."""
PERMUTATIONS = 64
_SHINGLE = 5
_TEXTS, _BLOCK = 20_000, 4_000
"""Texts held against a reference at once; texts looked at, or pairs of them compared."""
_ODD, _SHIFT = np.random.default_rng(1997).integers(0, 2**64, size=(PERMUTATIONS, 2), dtype=np.uint64).T
_ODD |= np.uint64(1)


def normalised(texts: Iterable[str | None]) -> pa.StringArray:
    """`genesis_lab.texts.same_words` of each text; None becomes empty."""
    return pa.array([same_words(text or "") for text in texts], pa.string())


def hashed(texts: pa.Array) -> NDArray[np.uint64]:
    """64-bit hash of each text (null as empty), the same in every process."""
    values = np.array(texts.fill_null("").to_pylist(), dtype=object)
    return pd.util.hash_array(values, categorize=False) if len(values) else np.empty(0, np.uint64)


def first_words(words: pa.StringArray) -> NDArray[np.uint64]:
    """Hash of the first three words of each normalised text."""
    return hashed(pc.extract_regex(words, r"^(?P<start>\S+(?: \S+){0,2})").field("start"))


def signatures(words: pa.StringArray) -> Signatures:
    """MinHash of the byte 5-grams of normalised texts (Broder 1997), shape (n, 64); of 16 bits each, so that chance
    agreements don't matter (Li and König 2010). Short texts are padded with spaces.
    """
    padded = pc.utf8_rpad(words, _SHINGLE).cast(pa.large_string())
    result = np.zeros((len(padded), PERMUTATIONS), dtype=np.uint16)
    if not len(padded):
        return result
    offsets = np.frombuffer(padded.buffers()[1], dtype=np.int64)[padded.offset : padded.offset + len(padded) + 1]
    data = np.frombuffer(padded.buffers()[2], dtype=np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64)
    grams = np.zeros(len(data) - _SHINGLE + 1, dtype=np.uint64)
    for i in range(_SHINGLE):
        grams |= data[i : i + len(grams)] << np.uint64(8 * i)
    counts = np.diff(offsets) - _SHINGLE + 1
    firsts = np.cumsum(counts) - counts
    inside = np.arange(counts.sum()) + np.repeat(offsets[:-1] - offsets[0] - firsts, counts)
    mixed = grams[inside]  # SplitMix64's finaliser (Steele, Lea and Flood 2014): neighbouring numbers become unrelated
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    for p in range(PERMUTATIONS):
        drawn = ((mixed * _ODD[p] + _SHIFT[p]) >> np.uint64(32)).astype(np.uint32)
        result[:, p] = np.minimum.reduceat(drawn, firsts) & np.uint32(0xFFFF)
    return result


def near_pairs(signature: Signatures, usable: NDArray[np.bool_], threshold: float = THRESHOLD) -> tuple[Index, Index]:
    """Each text that isn't the first of its group of near-copies, as a pair (first of the group, text): what is linked
    by pairs whose signatures (n, 64) agree in `threshold` of the permutations. What is not `usable` is near nothing.
    """
    rows = np.flatnonzero(usable)
    kind = f"V{2 * PERMUTATIONS}"
    distinct, inverse = np.unique(signature[rows].view(kind).ravel(), return_index=True, return_inverse=True)[1:]
    group = _linked(signature[rows[distinct]], _needed(threshold))[inverse]
    _, leader, inverse = np.unique(group, return_index=True, return_inverse=True)
    second = np.flatnonzero(leader[inverse] != np.arange(len(rows)))
    return rows[leader[inverse[second]]], rows[second]


def copied_from(signature: Signatures, source: Signatures, threshold: float = THRESHOLD) -> Index:
    """For each text the index of the first text of `source` (m, 64) that it is near to, or -1; shape (n,)."""
    m, need, found = len(source), _needed(threshold), np.full(len(signature), -1)
    for start in range(0, len(signature), _TEXTS):
        both = np.concatenate([source, signature[start : start + _TEXTS]])
        member, bucket = _buckets(both, need)
        ours, theirs = (pd.DataFrame({"member": member[of], "bucket": bucket[of]}) for of in (member >= m, member < m))
        pairs = ours.merge(theirs, on="bucket")[["member_x", "member_y"]].drop_duplicates().sort_values("member_y")
        i, j = pairs.to_numpy().T
        near = _near(both, i, j, need)
        place, first = np.unique(i[near], return_index=True)
        found[start + place - m] = j[near][first]
    return found


def clusters(first: Index, second: Index, n: int) -> Index:
    """Connected components of the pairs, numbered by first appearance; shape (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(n, n))
    return np.asarray(pd.factorize(connected_components(graph, directed=False)[1])[0], dtype=np.int64)


def _needed(threshold: float) -> int:
    """Permutations in which two near texts agree at least."""
    return int(np.ceil(threshold * PERMUTATIONS - 1e-9))


def _buckets(signature: Signatures, need: int) -> tuple[Index, Index]:
    """Texts that may be near by bucket: members, sorted in each bucket, and bucket numbers, the rarest values first.

    Prefix filtering (Chaudhuri, Ganti and Kaushik 2006): of two sets of 64 values that share `need`, the ``65 - need``
    rarest ones of each share one. What many texts have in common, a template's frame, so never brings them together.
    """
    lanes = np.arange(PERMUTATIONS, dtype=np.uint64)
    times = np.stack([np.bincount(lane, minlength=1 << 16).astype(np.uint32) for lane in signature.T])
    kept = PERMUTATIONS - need + 1
    key = np.empty((len(signature), kept), dtype=np.uint64)
    for start in range(0, len(signature), _BLOCK):
        block = signature[start : start + _BLOCK]
        every = (times[lanes, block].astype(np.uint64) << np.uint64(22)) | (lanes << np.uint64(16)) | block
        key[start : start + _BLOCK] = np.partition(every, kept - 1, axis=1)[:, :kept]
    shared = np.flatnonzero(key >= np.uint64(2 << 22))
    key, member = key.ravel()[shared], (shared // kept).astype(np.int32)
    order = np.argsort(key, kind="stable")
    key = key[order]
    return member[order], np.cumsum(np.diff(key, prepend=key[:1]) != 0, dtype=np.int32)


def _linked(signature: Signatures, need: int) -> Index:
    """A number for each text, the same for texts that are linked: the first of each bucket is held against the rest of
    it and leaves, until in every bucket all are linked.
    """
    label = np.arange(len(signature))
    member, bucket = _buckets(signature, need)
    while len(member):
        starts = np.flatnonzero(np.diff(bucket, prepend=-1))
        sizes = np.diff(starts, append=len(member))
        leader = np.repeat(member[starts], sizes)
        apart = label[leader] != label[member]
        i, j = leader[apart], member[apart]
        near = _near(signature, i, j, need)
        if near.any():
            label = clusters(label[i[near]], label[j[near]], len(label))[label]
        least, most = (each.reduceat(label[member], starts) for each in (np.minimum, np.maximum))
        left = np.repeat(least != most, sizes)
        left[starts] = False
        member, bucket = member[left], bucket[left]
    return label


def _near(signature: Signatures, i: Index, j: Index, need: int) -> NDArray[np.bool_]:
    near = np.zeros(len(i), dtype=bool)
    for s in range(0, len(i), _BLOCK):
        some = slice(s, s + _BLOCK)
        near[some] = np.count_nonzero(signature[i[some]] == signature[j[some]], axis=1) >= need
    return near
