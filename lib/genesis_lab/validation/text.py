"""Which texts are the same, and which nearly: hashes and MinHash signatures, one per text and so made anywhere, and their groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genesis_lab.texts import same_words

THRESHOLD = 0.8
"""Jaccard similarity of character 5-grams from which two texts are near duplicates."""

_SHINGLE = 5
_PERMUTATIONS = 64
_SMALL = 1_000
"""Members of a bucket up to which it is compared pair by pair; larger ones are searched group by group."""
_BLOCK = 200_000
"""Pairs compared at once."""


def groups(texts: Sequence[str], threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """Cluster number of each text; near duplicates share one. Use them as groups when splitting a dataset.

    Numbers count up in order of first appearance; every text without words is a cluster of its own.
    """
    words = normalised(texts)
    first, second = near_pairs(signatures(words), pc.not_equal(words, "").to_numpy(zero_copy_only=False), threshold)
    return clusters(first, second, len(words))


def normalised(texts: Iterable[str | None]) -> pa.StringArray:
    """`genesis_lab.texts.same_words` of each text; None becomes empty."""
    return pa.array([same_words(text or "") for text in texts], pa.string())


def hashed(texts: pa.Array) -> NDArray[np.uint64]:
    """64-bit hash of each text (null as empty), the same in every process."""
    from pandas.util import hash_array

    values = np.array(texts.fill_null("").to_pylist(), dtype=object)
    return hash_array(values, categorize=False) if len(values) else np.empty(0, np.uint64)


def first_words(words: pa.StringArray) -> NDArray[np.uint64]:
    """Hash of the first three words of each normalised text."""
    return hashed(pc.extract_regex(words, r"^(?P<start>\S+(?: \S+){0,2})").field("start"))


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
    """Each text that isn't the first of its group of near-copies, as a pair (first of the group, text).

    A group holds all that is linked by pairs whose signatures agree in at least `threshold` of the permutations,
    however many there are. Texts that are linked already aren't compared again, so a crowd costs little.

    Parameters
    ----------
    signature : shape (n, 64), as from `signatures`.
    usable : shape (n,), False for texts without words, which are near nothing.
    """
    rows = np.flatnonzero(usable)
    _, distinct, inverse = np.unique(
        np.ascontiguousarray(signature[rows]).view(f"V{2 * _PERMUTATIONS}").ravel(),
        return_index=True,
        return_inverse=True,
    )
    group = _linked(signature[rows[distinct]], _needed(threshold))[inverse]
    _, leader, inverse = np.unique(group, return_index=True, return_inverse=True)
    second = np.flatnonzero(leader[inverse] != np.arange(len(rows)))
    return rows[leader[inverse[second]]], rows[second]


def copied_from(
    signature: NDArray[np.uint16], source: NDArray[np.uint16], threshold: float = THRESHOLD
) -> NDArray[np.int64]:
    """For each text the index of the first text of `source` that it is near to, or -1; shape (n,).

    Parameters
    ----------
    signature, source : shapes (n, 64) and (m, 64), as from `signatures`.
    """
    m, need = len(source), _needed(threshold)
    both = np.concatenate([source, signature])
    member, bucket = _buckets(both, need)
    sources = np.bincount(bucket[member < m], minlength=bucket[-1] + 1 if len(bucket) else 0)
    starts = np.searchsorted(bucket, np.arange(len(sources)))  # the sources of a bucket come first in it
    nearest = np.full(len(both), m, dtype=np.int64)
    ours = np.flatnonzero((member >= m) & (sources[bucket] > 0))
    pairs = np.cumsum(sources[bucket[ours]])
    for some in np.split(ours, np.searchsorted(pairs, np.arange(_BLOCK, pairs[-1] if len(pairs) else 0, _BLOCK))):
        counts = sources[bucket[some]]
        step = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        i, j = np.repeat(member[some], counts), member[np.repeat(starts[bucket[some]], counts) + step]
        near = _near(both, i, j, need)
        np.minimum.at(nearest, i[near], j[near])
    return np.where(nearest[m:] < m, nearest[m:], -1)


def _needed(threshold: float) -> int:
    """Permutations in which two near texts agree at least."""
    return int(np.ceil(threshold * _PERMUTATIONS - 1e-9))


def _buckets(signature: NDArray[np.uint16], need: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Texts that may be near by bucket: members, sorted in each bucket, and bucket numbers, the rarest values first.

    Prefix filtering (Chaudhuri, Ganti and Kaushik 2006): of two sets of 64 values that share `need`, the ``65 - need``
    rarest ones of each share one. What many texts have in common, a template's frame, so never brings them together.
    """
    lanes = np.arange(_PERMUTATIONS, dtype=np.uint64)
    times = np.stack([np.bincount(lane, minlength=1 << 16) for lane in signature.T]).astype(np.uint64)
    keys = []
    for block in np.array_split(signature, len(signature) // 50_000 + 1):
        every = (times[lanes, block] << np.uint64(22)) | (lanes << np.uint64(16)) | block
        keys.append(np.partition(every, _PERMUTATIONS - need, axis=1)[:, : _PERMUTATIONS - need + 1])
    key = np.concatenate(keys).ravel()
    member = np.repeat(np.arange(len(signature)), _PERMUTATIONS - need + 1)
    shared = key >= np.uint64(2 << 22)
    key, member = key[shared], member[shared]
    order = np.argsort(key, kind="stable")
    return member[order], np.cumsum(np.diff(key[order], prepend=key[order][:1]) != 0)


def _linked(signature: NDArray[np.uint16], need: int) -> NDArray[np.int64]:
    """A number for each text, the same for texts that are linked; no two signatures are the same."""
    label = np.arange(len(signature))

    def link(i: NDArray[np.int64], j: NDArray[np.int64]) -> None:
        nonlocal label
        apart = label[i] != label[j]
        i, j = i[apart], j[apart]
        near = _near(signature, i, j, need)
        if near.any():
            label = clusters(label[i[near]], label[j[near]], len(label))[label]

    def unfinished(member: NDArray[np.int64], bucket: NDArray[np.int64], fewest: int) -> NDArray[np.bool_]:
        """Where buckets have at least `fewest` members, of more than one group."""
        starts = np.flatnonzero(np.diff(bucket, prepend=-1))
        least, most = (each.reduceat(label[member], starts) for each in (np.minimum, np.maximum))
        sizes = np.diff(starts, append=len(member))
        return np.repeat((least != most) & (sizes >= fewest), sizes)

    member, bucket = _buckets(signature, need)
    for step in range(1, _SMALL):
        if step & (step - 1) == 0 and len(member):  # now and then, what is finished is left out
            open_ = unfinished(member, bucket, step + 1)
            member, bucket = member[open_], bucket[open_]
        same = np.flatnonzero(bucket[:-step] == bucket[step:]) if step < len(bucket) else ()
        if not len(same):
            return label
        for some in np.array_split(same, len(same) // _BLOCK + 1):
            link(member[some], member[some + step])
        if step == 64:  # by now most of a crowd is linked; of a large one, only what is left is compared with the rest
            sizes = np.bincount(bucket)[bucket]
            for crowd in np.split(member[sizes > _SMALL], np.flatnonzero(np.diff(bucket[sizes > _SMALL])) + 1):
                while len(crowd):
                    own = label[crowd] == label[crowd[0]]
                    front, crowd = crowd[own], crowd[~own]
                    while len(front) and len(crowd):
                        block, front = np.split(front, [max(1, _BLOCK // len(crowd))])
                        link(np.repeat(block, len(crowd)), np.tile(crowd, len(block)))
                        joined = label[crowd] == label[block[0]]
                        front, crowd = np.concatenate([front, crowd[joined]]), crowd[~joined]
            member, bucket = member[sizes <= _SMALL], bucket[sizes <= _SMALL]
    return label


def clusters(first: NDArray[np.int64], second: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Connected components of the pairs, numbered by first appearance; shape (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    _, appearance, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(appearance))[inverse]


def _near(signature: NDArray[np.uint16], i: NDArray[np.int64], j: NDArray[np.int64], need: int) -> NDArray[np.bool_]:
    parts = [
        np.count_nonzero(signature[i[s : s + _BLOCK]] == signature[j[s : s + _BLOCK]], axis=1) >= need
        for s in range(0, len(i), _BLOCK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): neighbouring numbers become unrelated ones."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=1)
def _permutations() -> tuple[tuple[np.uint64, np.uint64], ...]:
    drawn = np.random.default_rng(1997).integers(0, 2**64, size=(_PERMUTATIONS, 2), dtype=np.uint64)
    return tuple((factor | np.uint64(1), shift) for factor, shift in drawn)
