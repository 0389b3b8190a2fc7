"""SHA-256 as hex, and its comparison."""

from __future__ import annotations

import numpy as np
import pytest

from fedgen.crypto.digest import same_digest, sha256_hex

# FIPS 180-4 examples: the empty message and "abc".
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_known_answers() -> None:
    assert sha256_hex(b"") == EMPTY
    assert sha256_hex(b"abc") == ABC


def test_views_and_arrays_are_hashed_as_their_bytes() -> None:
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    assert sha256_hex(array) == sha256_hex(array.tobytes()) == sha256_hex(memoryview(array.tobytes()))
    assert sha256_hex(np.zeros((0, 3))) == EMPTY


def test_a_buffer_with_gaps_has_no_digest() -> None:
    with pytest.raises(TypeError, match="C-contiguous"):
        sha256_hex(np.arange(6, dtype=np.uint8)[::2])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(ABC, ABC, True), (ABC, EMPTY, False), (ABC, ABC[:-1], False), ("", "", True), (ABC, "é" * 64, False)],
)
def test_same_digest(one: str, other: str, same: bool) -> None:  # noqa: FBT001 - a table of cases
    assert same_digest(one, other) is same


def test_same_digest_survives_a_lone_surrogate() -> None:
    assert not same_digest(ABC, "\ud800")
