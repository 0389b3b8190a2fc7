"""Laws of the tree, for every size: an independent reading of RFC 6962 is the judge."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgen.errors import IntegrityError
from fedgen.ledger.checkpoint import Checkpoint
from fedgen.ledger.merkle import (
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    push,
    root,
    root_of,
)

LEAVES = [leaf_hash(number.to_bytes(2, "big")) for number in range(300)]
SIZE = st.integers(1, 300)


def by_the_rfc(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = max(power for power in (1 << bit for bit in range(12)) if power < len(leaves))
    return sha256(b"\x01" + by_the_rfc(leaves[:k]) + by_the_rfc(leaves[k:])).digest()


@given(SIZE)
def test_the_root_is_the_one_of_the_rfc(size: int) -> None:
    assert root(LEAVES[:size]) == by_the_rfc(LEAVES[:size])


@given(SIZE)
def test_a_frontier_holds_one_hash_for_each_one_bit_and_knows_the_root(size: int) -> None:
    frontier: list[bytes] = []
    for index in range(size):
        push(frontier, index, LEAVES[index])
    assert len(frontier) == size.bit_count()
    assert root_of(frontier) == root(LEAVES[:size])


@given(SIZE, st.data())
def test_every_leaf_has_a_proof_and_no_other_leaf_has_it(size: int, data: st.DataObject) -> None:
    index, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    proof, whole = inclusion_proof(LEAVES[:size], index), root(LEAVES[:size])
    assert len(proof) <= (size - 1).bit_length()
    check_inclusion(LEAVES[index], index, size, proof, whole)
    if other != index:
        for leaf, place in ((LEAVES[other], index), (LEAVES[index], other)):
            with pytest.raises(IntegrityError):
                check_inclusion(leaf, place, size, proof, whole)


@given(SIZE, st.data())
def test_every_beginning_has_a_proof_and_no_other_tree_has_it(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    proof, before, after = consistency_proof(LEAVES[:size], old), root(LEAVES[:old]), root(LEAVES[:size])
    check_consistency(old, size, before, after, proof)
    changed = data.draw(st.integers(0, old - 1))
    forked = [*LEAVES[:changed], leaf_hash(b"forged"), *LEAVES[changed + 1 : size]]
    with pytest.raises(IntegrityError):
        check_consistency(old, size, root(forked[:old]), after, proof)
    with pytest.raises(IntegrityError):
        check_consistency(old, size, before, root(forked), consistency_proof(forked, old))


NAME = st.text(
    st.characters(blacklist_categories=("C", "Z"), blacklist_characters="+"), min_size=1, max_size=20
)
TEXT = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=20)
SIGNATURES = st.lists(st.tuples(NAME, st.binary(min_size=1, max_size=80)), min_size=1, max_size=4).map(tuple)


@given(TEXT, st.integers(0, 2**53), st.binary(min_size=32, max_size=32), SIGNATURES)
def test_a_checkpoint_survives_its_text(
    origin: str, size: int, digest: bytes, signatures: tuple[tuple[str, bytes], ...]
) -> None:
    made = Checkpoint(origin, size, digest, signatures)
    assert Checkpoint.from_text(made.to_text()) == made


@given(st.text(max_size=200))
def test_reading_a_checkpoint_never_crashes(text: str) -> None:
    with pytest.raises(IntegrityError):
        Checkpoint.from_text(text)
