"""What leaves a site looks like nothing: uniform, and independent of its vector, of other sites, turns and transcripts.

alpha is 1e-6 for each test, fixed seeds. Power: a bit, a byte value or a share of equal words that is off by the
constants below is seen with probability above 1 - 1e-6; a test computes that from the distributions. Every test has a
control that fails.
"""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from scipy import stats
from support.secagg import Recovery, World, terms_for

from fedgen.secagg import masks, wire

pytestmark = pytest.mark.statistical

ALPHA = 1e-6
WORDS = 2**21
BIT = 0.004  # a bit is set with a chance of 0.504
BYTE = 0.10  # a byte value is a tenth too frequent
SHARED = 0.0013  # of the words of two vectors are the same


def byte_p(words: np.ndarray) -> float:
    """Chi-square of byte values against uniform."""
    return float(stats.chisquare(np.bincount(words.view(np.uint8), minlength=256)).pvalue)


def bit_p(words: np.ndarray) -> float:
    """The least p of the 32 bits of a word, two-sided, times 32."""
    ones = [int(np.count_nonzero(words & np.uint32(1 << bit))) for bit in range(32)]
    return min(1.0, 32 * min(float(stats.binomtest(count, len(words), 0.5).pvalue) for count in ones))


def agreement_p(one: np.ndarray, other: np.ndarray) -> float:
    """Two-sided p of how many bits agree; half of them do if the two are independent and uniform."""
    same = 32 * len(one) - int(np.bitwise_count(one ^ other).sum())
    return float(stats.norm.sf(abs(same - 16 * len(one)) / np.sqrt(8 * len(one))) * 2)


def folded(seed: bytes, n: int) -> np.ndarray:
    """A mask as it should not be: from 32 bits of seed, the largest residue never drawn, here on 24 bits."""
    return (
        np.random.RandomState(int.from_bytes(seed[:4], "little")).randint(0, 2**24 - 1, n).astype(np.uint32)
    )


def sent(world: World, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return what each site sends in a turn in which all hold the same values."""
    out = {}
    for name, start in world.begin().items():
        frame = world.answer(name, start, values)
        out[name] = np.frombuffer(wire.Masked.decode(frame, world.terms).values, np.uint32)
    return out


def worlds(recovery: Recovery) -> World:
    return World(terms_for(3, dimension=WORDS, recovery=recovery))


@pytest.mark.parametrize("recovery", list(Recovery))
@pytest.mark.parametrize("value", [0, 1, 2**31])
def test_a_masked_vector_is_uniform_whatever_it_hides(recovery: Recovery, value: int) -> None:
    for words in sent(worlds(recovery), np.full(WORDS, value, np.uint32)).values():
        assert byte_p(words) > ALPHA
        assert bit_p(words) > ALPHA


def test_masked_vectors_of_sites_and_turns_are_independent() -> None:
    world = worlds(Recovery.UNMASK)
    zeros = np.zeros(WORDS, np.uint32)
    vectors = [words for _ in range(2) for words in sent(world, zeros).values()]
    for one, other in itertools.combinations(vectors, 2):
        assert agreement_p(one, other) > ALPHA
        assert agreement_p(one[1:], other[:-1]) > ALPHA


def test_without_their_own_masks_only_all_of_them_together_say_anything() -> None:
    """With one message a turn, every proper subset of sites sums to noise; the whole, to the sum."""
    vectors = list(sent(worlds(Recovery.RESTART), np.zeros(WORDS, np.uint32)).values())
    for size in (1, 2):
        for chosen in itertools.combinations(vectors, size):
            assert byte_p(sum(chosen)) > ALPHA
    assert not sum(vectors).any()


def test_masks_differ_by_every_part_of_the_transcript_and_by_pair_and_turn() -> None:
    pair, other = hashlib.sha256(b"pair").digest(), hashlib.sha256(b"other").digest()
    keys = [
        masks.mask_key(masks.turn_secret(secret, turn), transcript)
        for secret in (pair, other)
        for turn in (1, 2)
        for transcript in (bytes(32), b"\1" + bytes(31))
    ]
    keys += [masks.self_key(pair, bytes(32)), masks.turn_secret(pair, 1)]
    keys += [masks.share_key(pair, 1, 0, 1), masks.share_key(pair, 1, 1, 0), masks.share_key(pair, 2, 0, 1)]
    assert len(set(keys)) == len(keys)
    streams = []
    for key in keys:
        words = np.zeros(2**16, np.uint32)
        masks.add_streams(words, [key], [])
        streams.append(words)
    count = len(streams) * (len(streams) - 1) // 2
    assert min(agreement_p(a, b) for a, b in itertools.combinations(streams, 2)) > ALPHA / count


def test_control_the_tests_see_masks_that_are_not_uniform() -> None:
    assert byte_p(folded(b"seed", WORDS)) < ALPHA
    assert bit_p(folded(b"seed", WORDS)) < ALPHA
    rng = np.random.default_rng(1)
    uniform = rng.integers(0, 2**32, WORDS, np.uint32)
    assert min(byte_p(uniform), bit_p(uniform)) > ALPHA
    biased = uniform | (rng.random(WORDS) < 2 * BIT).astype(np.uint32)
    assert bit_p(biased) < ALPHA
    frequent = uniform.copy()
    view = frequent.view(np.uint8)
    view[rng.random(len(view)) < BYTE / 256] = 7
    assert byte_p(frequent) < ALPHA


def test_the_power_is_what_is_stated() -> None:
    bits = stats.norm.isf(ALPHA / 64)
    assert stats.norm.sf(bits - 2 * BIT * np.sqrt(WORDS)) > 1 - ALPHA
    critical = stats.chi2.isf(ALPHA, 255)
    assert stats.ncx2.sf(critical, 255, BYTE**2 * 4 * WORDS / 256) > 1 - ALPHA
    shared = stats.norm.isf(ALPHA / 2)
    assert stats.norm.sf(shared - SHARED * 16 * WORDS / np.sqrt(8 * WORDS)) > 1 - ALPHA


def test_control_the_tests_see_masks_that_are_not_independent() -> None:
    rng = np.random.default_rng(2)
    one, other = (rng.integers(0, 2**32, WORDS, np.uint32) for _ in range(2))
    assert agreement_p(one, other) > ALPHA
    shared = np.where(rng.random(WORDS) < SHARED, one, other)
    assert agreement_p(one, shared) < ALPHA
