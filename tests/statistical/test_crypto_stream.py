"""The key stream looks uniform and independent; sources that are wrong in known ways do not.

Error rates. Every look at a stream has alpha = 1e-6, two-sided. The law of a count of bits is taken as normal
(at these sizes the exact binomial tail is within 1 % of it), that of bytes as chi-square. A bias of ``SEES``
in every bit goes unseen with chance 5e-7. Seeded streams are fixed; 14 looks draw afresh from the operating
system, so a healthy stream fails here at most 14 times in a million runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from fedgen.crypto.stream import KeyStream

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.statistical
ALPHA = 1e-6
LIMIT = stats.norm.isf(ALPHA / 2)  # 4.89 standard deviations
WORDS = 2**19  # of 32 bits: 2^24 bits, 2 MiB
SEES = (LIMIT + LIMIT) / (2 * np.sqrt(32 * WORDS))  # 0.0012

Words = np.ndarray[tuple[int], np.dtype[np.uint32]]


def words(stream: KeyStream) -> Words:
    out = np.empty(WORDS, dtype=np.uint32)
    stream.fill(out)
    return out


def bits(values: Words) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.unpackbits(values.view(np.uint8))


def balance(values: Words) -> float:
    """Standard deviations of the number of ones from half the bits."""
    flat = bits(values)
    return float((flat.sum(dtype=np.int64) - flat.size / 2) / np.sqrt(flat.size / 4))


def columns(values: Words) -> float:
    """The worst balance of the 32 bit positions, as a two-sided p-value corrected for 32 looks."""
    ones = bits(values).reshape(-1, 32).sum(axis=0, dtype=np.int64)
    worst = np.abs(ones - WORDS / 2).max() / np.sqrt(WORDS / 4)
    return float(min(1.0, 64 * stats.norm.sf(worst)))


def byte_counts(values: Words) -> float:
    """Two-sided p-value of the chi-square of byte frequencies: too even is as wrong as too uneven."""
    counts = np.bincount(values.view(np.uint8), minlength=256)
    law = stats.chi2(255)
    statistic = float(((counts - counts.mean()) ** 2).sum() / counts.mean())
    return float(2 * min(law.sf(statistic), law.cdf(statistic)))


def correlation(one: Words, other: Words) -> float:
    """Standard deviations by which two sources agree in more or fewer bits than half."""
    return balance(one ^ other)


SOURCES: dict[str, Callable[[], KeyStream]] = {
    "os": KeyStream.from_os,
    "seed 0": lambda: KeyStream.insecure(0),
    "seed 1": lambda: KeyStream.insecure(1),
    "label": lambda: KeyStream.insecure(1, label="site-1"),
}
streams = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())


@streams
def test_bits_are_balanced(source: Callable[[], KeyStream]) -> None:
    assert abs(balance(words(source()))) < LIMIT


@streams
def test_every_bit_position_is_balanced(source: Callable[[], KeyStream]) -> None:
    assert columns(words(source())) > ALPHA


@streams
def test_bytes_are_uniform(source: Callable[[], KeyStream]) -> None:
    assert byte_counts(words(source())) > ALPHA


@streams
@pytest.mark.parametrize("lag", [1, 2, 4, 8])
def test_a_word_says_nothing_of_those_after_it(source: Callable[[], KeyStream], lag: int) -> None:
    drawn = words(source())
    assert abs(correlation(drawn[:-lag], drawn[lag:])) < LIMIT


def test_streams_say_nothing_of_each_other() -> None:
    drawn = [words(source()) for source in (*SOURCES.values(), KeyStream.from_os)]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert abs(correlation(one, other)) < LIMIT


def test_no_block_comes_twice() -> None:
    # Counter mode never repeats a block under one key; 2^17 random blocks would with chance 2^-95.
    blocks = words(KeyStream.from_os()).view("V16")
    assert len(set(blocks.tolist())) == len(blocks)


# Negative controls: each test fails on a source that is wrong.


def biased(by: float) -> Words:
    """Bits that are one with chance 1/2 + by."""
    source = np.random.default_rng(1)
    return np.packbits(source.random(32 * WORDS, dtype=np.float32) < 0.5 + by).view(np.uint32)


def test_a_biased_bit_is_seen() -> None:
    assert abs(balance(biased(SEES))) > LIMIT
    assert abs(balance(biased(0.0))) < LIMIT


def test_a_stuck_bit_position_is_seen() -> None:
    # One of 32 positions with a bias of 0.01 shifts the whole by too little to be seen elsewhere.
    drawn = words(KeyStream.insecure(2))
    stuck = np.random.default_rng(2).random(WORDS) < 0.02
    assert columns(drawn) > ALPHA
    assert columns(drawn | stuck.astype(np.uint32)) < ALPHA


def test_text_and_a_mere_counter_are_seen() -> None:
    drawn = words(KeyStream.insecure(3))
    assert byte_counts(drawn & np.uint32(0x7F7F7F7F)) < ALPHA
    assert byte_counts(np.arange(WORDS, dtype=np.uint32)) < ALPHA


def test_a_repeated_word_is_seen() -> None:
    drawn = words(KeyStream.insecure(4))
    repeated = np.where(np.random.default_rng(3).random(WORDS) < 0.02, np.roll(drawn, 1), drawn)
    assert abs(correlation(repeated[:-1], repeated[1:])) > LIMIT


def test_two_copies_of_one_stream_are_seen() -> None:
    assert abs(correlation(words(KeyStream.insecure(5)), words(KeyStream.insecure(5)))) > LIMIT
