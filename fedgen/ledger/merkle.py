"""A Merkle tree over the entries of a ledger: one root that commits to all of them, and short proofs.

Leaves are the hashes of entries, in order of index. Everything here is a pure function of bytes; who holds a root that
was signed can check, with a few dozen hashes, that an entry is under it or that a longer ledger only added to it.

Source: RFC 6962, section 2.1; the verification of proofs as in RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EMPTY: Final = sha256().digest()  # the root of no leaves
_HASH: Final = 32


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf: SHA-256 of a zero byte and the data."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash over two subtrees: SHA-256 of a one byte and both."""
    return sha256(b"\x01" + left + right).digest()


def push(frontier: list[bytes], size: int, leaf: bytes) -> None:
    """Add one leaf to a tree of ``size`` leaves that is kept as its frontier, in place.

    The frontier holds the roots of the full subtrees, the largest first: as many as ``size`` has one-bits. So a tree
    grows by one leaf in constant time on average, and by at most log2(size) hashes.

    Args:
        frontier: Roots of the full subtrees; empty for an empty tree.
        size: Leaves so far.
        leaf: Hash of the new leaf, from :func:`leaf_hash`.
    """
    frontier.append(leaf)
    while size & 1:
        right = frontier.pop()
        frontier[-1] = node_hash(frontier[-1], right)
        size >>= 1


def root_of(frontier: Sequence[bytes]) -> bytes:
    """Return the root of the tree that a frontier stands for; :data:`EMPTY` if it is empty."""
    if not frontier:
        return EMPTY
    root = frontier[-1]
    for left in reversed(frontier[:-1]):
        root = node_hash(left, root)
    return root


def root(leaves: Iterable[bytes]) -> bytes:
    """Return the root over ``leaves``, each from :func:`leaf_hash`.

    Source: RFC 6962, section 2.1, MTH.
    """
    frontier: list[bytes] = []
    for size, leaf in enumerate(leaves):
        push(frontier, size, leaf)
    return root_of(frontier)


def inclusion_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the hashes that lead from one leaf to the root, from the leaf up; see :func:`check_inclusion`.

    Raises:
        ValueError: There is no such leaf.

    Source: RFC 6962, section 2.1.1, PATH.
    """
    if not 0 <= index < len(leaves):
        raise ValueError(f"index must be from 0 to {len(leaves) - 1}, not {index}")
    proof: list[bytes] = []
    first, last = 0, len(leaves)
    while last - first > 1:
        middle = first + _split(last - first)
        if index < middle:
            proof.append(root(leaves[middle:last]))
            last = middle
        else:
            proof.append(root(leaves[first:middle]))
            first = middle
    return tuple(reversed(proof))


def consistency_proof(leaves: Sequence[bytes], old: int) -> tuple[bytes, ...]:
    """Return the hashes that show that the tree over the first ``old`` leaves is the beginning of this one.

    Edge cases:
        - ``old`` equal to the number of leaves: no hashes are needed.

    Raises:
        ValueError: ``old`` is not from 1 to the number of leaves.

    Source: RFC 6962, section 2.1.2, PROOF.
    """
    if not 1 <= old <= len(leaves):
        raise ValueError(f"old must be from 1 to {len(leaves)}, not {old}")
    proof: list[bytes] = []
    first, last, whole = 0, len(leaves), True
    while old != last:
        middle = first + _split(last - first)
        if old <= middle:
            proof.append(root(leaves[middle:last]))
            last = middle
        else:
            proof.append(root(leaves[first:middle]))
            first, whole = middle, False
    if not whole:
        proof.append(root(leaves[first:last]))
    return tuple(reversed(proof))


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> None:
    """Return if ``proof`` shows that ``leaf`` stands at ``index`` under the root of a tree of ``size`` leaves.

    Args:
        leaf: From :func:`leaf_hash`, 32 bytes.
        index: Zero-based.
        size: Leaves of the tree.
        proof: From :func:`inclusion_proof`.
        expected: The root.

    Raises:
        IntegrityError: It does not (code ``ledger``).

    Source: RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size or not _hashes(proof):
        raise _refuted("inclusion")
    place, last, here = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise _refuted("inclusion")
        if place & 1 or place == last:
            here = node_hash(sibling, here)
            place, last = _climb(place, last)
        else:
            here = node_hash(here, sibling)
        place, last = place >> 1, last >> 1
    if last or here != expected:
        raise _refuted("inclusion")


def check_consistency(old: int, size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Return if ``proof`` shows that a tree of ``size`` leaves begins with the one of ``old`` leaves.

    Args:
        old: Leaves of the earlier tree, at least 1.
        size: Leaves of the later one.
        old_root: Root of the earlier tree.
        new_root: Root of the later one.
        proof: From :func:`consistency_proof`.

    Raises:
        IntegrityError: It does not (code ``ledger``).

    Source: RFC 9162, section 2.1.4.2.
    """
    if not 1 <= old <= size or not _hashes(proof) or (old == size and proof):
        raise _refuted("consistency")
    if old == size:
        if old_root != new_root:
            raise _refuted("consistency")
        return
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        raise _refuted("consistency")
    place, last = old - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise _refuted("consistency")
        if place & 1 or place == last:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
            place, last = _climb(place, last)
        else:
            after = node_hash(after, sibling)
        place, last = place >> 1, last >> 1
    if last or before != old_root or after != new_root:
        raise _refuted("consistency")


def _split(size: int) -> int:
    """Return the largest power of two below ``size``, which is at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def _climb(place: int, last: int) -> tuple[int, int]:
    """Return where a node stands above the levels at which it has no sibling."""
    while not place & 1 and place:
        place, last = place >> 1, last >> 1
    return place, last


def _hashes(proof: Sequence[bytes]) -> bool:
    """Return whether a proof is made of hashes."""
    return all(len(part) == _HASH for part in proof)


def _refuted(kind: str) -> IntegrityError:
    """Return the error of a proof that does not hold."""
    return IntegrityError(f"the proof of {kind} does not hold", code=Code.LEDGER)
