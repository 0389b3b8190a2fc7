"""The noise source: what it promises apart from its distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fedgen.crypto.stream import KeyStream
from fedgen.dpsgd import noise as noise_module
from fedgen.dpsgd.noise import NoiseSource


class Scripted:
    """A stream that repeats given words, to reach numbers nobody would wait for."""

    secure = False

    def __init__(self, *words: int) -> None:
        self.words = np.array(words, np.uint32)

    def fill(self, buffer: memoryview) -> None:
        view = np.frombuffer(buffer, np.uint32)
        view[:] = np.resize(self.words, len(view))

    def bytes(self, n: int) -> bytes:
        return np.resize(self.words, n // 4).tobytes()


def drawn(source: NoiseSource, n: int, std: float = 1.0) -> torch.Tensor:
    out = torch.zeros(n)
    source.add_normal_(out, std)
    return out


def test_only_a_source_of_the_system_is_private():
    assert NoiseSource.secure().private
    assert not NoiseSource.insecure(1).private
    assert NoiseSource(KeyStream.from_os()).private
    with pytest.raises(AttributeError):
        NoiseSource.insecure(1).private = True


def test_insecure_sources_repeat_and_secure_ones_do_not():
    assert torch.equal(drawn(NoiseSource.insecure(3), 1000), drawn(NoiseSource.insecure(3), 1000))
    assert not torch.equal(drawn(NoiseSource.insecure(3), 1000), drawn(NoiseSource.insecure(4), 1000))
    assert not torch.equal(drawn(NoiseSource.secure(), 1000), drawn(NoiseSource.secure(), 1000))


def test_no_noise_is_drawn_twice():
    source = NoiseSource.insecure(3)
    assert len(torch.cat([drawn(source, 1000), drawn(source, 1000)]).unique()) > 1990


def test_no_global_generator_is_read_or_written():
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tobytes()
    source = NoiseSource.insecure(3)
    first = drawn(source, 100)
    source.uniforms(10)
    source.generator()
    source.skellam(10, 3.0)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.random.get_state()[1].tobytes() == numpy_before
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(drawn(NoiseSource.insecure(3), 100), first)


@pytest.mark.parametrize("n", [1, 2, 3, 999, 1000, *(2 * noise_module._BLOCK + k for k in (-1, 0, 1, 3))])
def test_every_item_gets_noise_at_any_length(n):
    out = torch.zeros(n)
    NoiseSource.insecure(n).add_normal_(out, 1.0)
    assert bool((out != 0.0).all())
    assert bool(out.isfinite().all())


def test_fill_overwrites_and_add_adds():
    filled, added = torch.full((999,), float("nan")), torch.full((999,), 10.0)
    NoiseSource.insecure(5).fill_normal_(filled, 2.0)
    NoiseSource.insecure(5).add_normal_(added, 2.0)
    assert torch.allclose(added, filled + 10.0, atol=1e-5)


def test_views_of_a_larger_vector_are_written_in_place():
    whole = torch.zeros(1000)
    NoiseSource.insecure(5).add_normal_(whole[101:500], 1.0)
    assert bool((whole[101:500] != 0).all())
    assert bool((whole[:101] == 0).all())
    assert bool((whole[500:] == 0).all())


def test_zero_std_adds_nothing_and_fills_with_zero():
    source = NoiseSource.insecure(1)
    out = torch.ones(5)
    source.add_normal_(out, 0.0)
    assert out.tolist() == [1.0] * 5
    source.fill_normal_(out, 0.0)
    assert out.tolist() == [0.0] * 5


def test_empty_vectors_are_left_alone():
    NoiseSource.insecure(1).add_normal_(torch.zeros(0), 1.0)


@pytest.mark.parametrize("std", [float("nan"), float("inf"), -1.0, 2.0**-61, 2.0**61])
def test_scales_that_float32_cannot_hold_are_refused(std):
    out = torch.ones(5)
    with pytest.raises(ValueError, match="std"):
        NoiseSource.insecure(1).add_normal_(out, std)
    assert out.tolist() == [1.0] * 5


@pytest.mark.parametrize("std", [2.0**-60, 1e-12, 1e12, 2.0**60])
def test_the_scale_is_exact_over_the_whole_range(std):
    unit, scaled = drawn(NoiseSource.insecure(6), 1000), torch.zeros(1000)
    NoiseSource.insecure(6).fill_normal_(scaled, std)
    assert torch.allclose((scaled.double() / std).float(), unit, rtol=1e-6)


@pytest.mark.parametrize(
    "out",
    [
        torch.zeros(4, 4),
        torch.zeros(8)[::2],
        torch.zeros(4, dtype=torch.float64),
        torch.zeros(4, requires_grad=True),
    ],
    ids=["matrix", "strided", "double", "with-gradient"],
)
def test_other_buffers_are_refused(out):
    with pytest.raises(ValueError, match="contiguous float32 vector"):
        NoiseSource.insecure(1).add_normal_(out, 1.0)


def radius(word: int, more: int) -> float:
    fine = noise_module._fine_log2(np.array([word], np.uint32), np.array([more], np.uint32))
    return math.sqrt(-2.0 * math.log(2.0) * float(fine[0]))


def test_the_tail_reaches_beyond_nine_sigma():
    assert radius(0, 0) == pytest.approx(math.sqrt(2 * 65 * math.log(2)), rel=1e-6)
    assert radius(0, 0) > 9.4
    out = torch.zeros(8)
    NoiseSource(Scripted(0)).add_normal_(out, 1.0)  # an angle of zero: all of the radius in the cosine
    assert out[:4].tolist() == pytest.approx([radius(0, 0)] * 4)
    assert all(0 < x < 1e-8 for x in out[4:].tolist())


def test_the_smallest_normal_of_the_smallest_scale_is_not_zero():
    out = torch.zeros(2)
    NoiseSource(Scripted(2**32 - 1, 0, 2**32 - 1)).add_normal_(
        out, 2.0**-60
    )  # shortest radius, smallest angle
    assert 0 < float(out[1]) < 1e-35


def test_the_centre_has_no_atom():
    # The largest word, whose float32 quotient is exactly one, still leaves 2^32 different radii above zero.
    assert 0 < radius(2**32 - 1, 2**32 - 1) < 1e-9
    assert radius(2**32 - 1, 2**32 - 1) < radius(2**32 - 1, 2**31) < radius(2**32 - 1, 0) < 3e-5


@pytest.mark.parametrize("word", [1, 2**22 - 1, 2**22, 2**31, 2**32 - 2**22 - 1, 2**32 - 2**22, 2**32 - 2])
def test_fine_and_coarse_logarithms_meet(word):
    source = NoiseSource(Scripted(word, 2**31))
    words = np.full(4, word, np.uint32)
    out = np.empty(4, np.float32)
    source._log2_uniforms(words, np.empty(4, np.float32), out)
    edge = not 2**22 <= word < 2**32 - 2**22
    missing = 2**64 - (word << 32 | word) if edge else (2**32 - word) << 32  # 1 - U, in units of 2^-64
    assert out[0] * math.log(2.0) == pytest.approx(math.log1p(-(missing - 0.5 * edge) / 2**64), rel=4e-5)


def test_uniforms_lie_in_the_half_open_interval():
    assert NoiseSource(Scripted(0)).uniforms(3).tolist() == [2.0**-53] * 3
    assert NoiseSource(Scripted(2**32 - 1)).uniforms(3).tolist() == [1.0] * 3
    values = NoiseSource.insecure(1).uniforms(10_000)
    assert values.dtype == np.float64
    assert 0 < values.min() < values.max() <= 1
    assert bool((values * 2**53 == np.floor(values * 2**53)).all())


def test_generators_differ_from_each_other_and_follow_the_seed():
    source = NoiseSource.insecure(1)
    first, second = source.generator(), source.generator()
    assert first.initial_seed() != second.initial_seed()
    assert NoiseSource.insecure(1).generator().initial_seed() == first.initial_seed()
