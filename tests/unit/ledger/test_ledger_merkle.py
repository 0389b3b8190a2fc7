"""The tree against the published test values of Certificate Transparency, and its proofs against forgery."""

import pytest

from fedgen.errors import Code, IntegrityError
from fedgen.ledger.merkle import (
    EMPTY,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
)

# Inputs and roots of the reference tests of RFC 6962 (github.com/google/certificate-transparency, merkle_tree_test).
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(bytes.fromhex(text)) for text in INPUTS]


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_the_published_ones(size: int) -> None:
    assert root(LEAVES[:size]).hex() == ROOTS[size]


def test_the_tree_of_the_rfcs_own_drawing_has_its_paths() -> None:
    a, b, c, d, e, f, j = LEAVES[:7]  # RFC 6962, section 2.1.3: seven leaves d0 to d6
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, l_ = node_hash(g, h), node_hash(i, j)
    assert inclusion_proof(LEAVES[:7], 0) == (b, h, l_)
    assert inclusion_proof(LEAVES[:7], 3) == (c, g, l_)
    assert inclusion_proof(LEAVES[:7], 4) == (f, j, k)
    assert inclusion_proof(LEAVES[:7], 6) == (i, k)
    assert consistency_proof(LEAVES[:7], 3) == (c, d, g, l_)
    assert consistency_proof(LEAVES[:7], 4) == (l_,)
    assert consistency_proof(LEAVES[:7], 6) == (i, j, k)


def test_leaves_and_nodes_are_hashed_apart() -> None:
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != node_hash(LEAVES[0], LEAVES[1])
    assert root([]) == EMPTY


@pytest.mark.parametrize("index", [-1, 8])
def test_there_is_no_proof_of_a_leaf_that_is_not_there(index: int) -> None:
    with pytest.raises(ValueError, match="index must be"):
        inclusion_proof(LEAVES, index)


@pytest.mark.parametrize("old", [-1, 0, 9])
def test_there_is_no_proof_from_a_tree_that_never_was(old: int) -> None:
    with pytest.raises(ValueError, match="old must be"):
        consistency_proof(LEAVES, old)


def refuted(call: object, *arguments: object) -> bool:
    """Whether a check says no, with the code of a ledger."""
    with pytest.raises(IntegrityError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.code is Code.LEDGER


def test_an_inclusion_proof_holds_for_one_leaf_place_size_and_root_only() -> None:
    whole, proof = root(LEAVES), inclusion_proof(LEAVES, 5)
    check_inclusion(LEAVES[5], 5, 8, proof, whole)
    assert refuted(check_inclusion, LEAVES[4], 5, 8, proof, whole)
    assert refuted(check_inclusion, LEAVES[5], 4, 8, proof, whole)
    assert refuted(check_inclusion, LEAVES[5], 5, 16, proof, whole)
    assert refuted(check_inclusion, LEAVES[5], 8, 8, proof, whole)
    assert refuted(check_inclusion, LEAVES[5], -1, 8, proof, whole)
    assert refuted(check_inclusion, LEAVES[5], 5, 8, proof, bytes(32))
    assert refuted(check_inclusion, LEAVES[5], 5, 8, proof[:-1], whole)
    assert refuted(check_inclusion, LEAVES[5], 5, 8, (*proof, proof[0]), whole)
    assert refuted(check_inclusion, LEAVES[5], 5, 8, (proof[0][:31], *proof[1:]), whole)


@pytest.mark.parametrize("old", [3, 4])
def test_a_consistency_proof_holds_for_two_trees_only(old: int) -> None:
    before, after, proof = root(LEAVES[:old]), root(LEAVES[:7]), consistency_proof(LEAVES[:7], old)
    check_consistency(old, 7, before, after, proof)
    assert refuted(check_consistency, old, 7, after, after, proof)
    assert refuted(check_consistency, old, 7, before, before, proof)
    assert refuted(check_consistency, old + 2, 7, before, after, proof)
    assert refuted(check_consistency, old, 8, before, after, proof[:-1])
    assert refuted(check_consistency, old, 7, before, after, (*proof, proof[0]))
    assert refuted(check_consistency, 0, 7, EMPTY, after, ())
    assert refuted(check_consistency, 8, 7, after, before, ())
    assert refuted(check_consistency, old, 7, before, after, ())
    assert refuted(check_consistency, 7, 7, after, before, ())
    assert refuted(check_consistency, 7, 7, after, after, proof)
    check_consistency(7, 7, after, after, ())
