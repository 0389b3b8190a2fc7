"""Shares over the field of 2^255 - 19."""

from __future__ import annotations

import itertools

import pytest

from fedgen.crypto.stream import KeyStream
from fedgen.errors import IntegrityError
from fedgen.secagg import shamir

STREAM = KeyStream.insecure(2)


def test_any_threshold_of_shares_gives_the_secret_and_fewer_do_not() -> None:
    points = [1, 2, 5, 9, 77]
    secret = shamir.element(STREAM)
    shares = dict(zip(points, shamir.split(secret, 3, points, STREAM), strict=True))
    for size in range(1, 6):
        for chosen in itertools.combinations(points, size):
            found = shamir.combine(shamir.weights(chosen), [shares[point] for point in chosen])
            assert (found == secret) == (size >= 3)


def test_fewer_shares_fit_every_secret() -> None:
    """Perfect secrecy, exactly: for two of three shares, each secret has one third share that completes it."""
    points = [1, 2, 3]
    first, second, _ = shamir.split(7, 3, points, STREAM)
    lagrange = shamir.weights(points)
    for secret in (0, 1, shamir.PRIME - 1, 12345):
        third = (secret - shamir.combine(lagrange[:2], [first, second])) * pow(lagrange[2], -1, shamir.PRIME)
        assert shamir.combine(lagrange, [first, second, third % shamir.PRIME]) == secret


def test_shares_of_one_secret_differ_each_time() -> None:
    assert shamir.split(1, 2, [1, 2, 3], STREAM) != shamir.split(1, 2, [1, 2, 3], STREAM)


def test_bytes_and_elements_are_inverse_and_one_element_has_one_form() -> None:
    for value in (0, 1, shamir.PRIME - 1, shamir.element(STREAM)):
        assert shamir.from_bytes(shamir.to_bytes(value)) == value
    for bad in (shamir.PRIME.to_bytes(32, "little"), b"\xff" * 32, bytes(31), bytes(33)):
        with pytest.raises(IntegrityError):
            shamir.from_bytes(bad)


@pytest.mark.parametrize(
    ("secret", "threshold", "points"),
    [
        (-1, 1, [1]),
        (shamir.PRIME, 1, [1]),
        (0, 0, [1]),
        (0, 2, [1]),
        (0, 1, [0]),
        (0, 1, [1, 1]),
        (0, 1, [shamir.PRIME]),
    ],
)
def test_what_cannot_be_shared_is_refused(secret: int, threshold: int, points: list[int]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        shamir.split(secret, threshold, points, STREAM)


def test_elements_come_below_the_prime_even_where_the_stream_gives_more() -> None:
    class Scripted:
        given = iter([b"\xff" * 32, shamir.PRIME.to_bytes(32, "little"), (5).to_bytes(32, "little")])

        def bytes(self, n: int) -> bytes:
            return next(self.given)

    assert shamir.element(Scripted()) == 5
