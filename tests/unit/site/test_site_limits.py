"""Rates and times at a site's door."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from fedgen.site.limits import Limits, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(0.5, 50),
    burst=st.integers(1, 50),
    waits=st.lists(st.floats(0, 3), min_size=1, max_size=200),
)
def test_never_more_than_burst_and_rate_pass(rate: float, burst: int, waits: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock)
    passed = []
    for wait in waits:
        clock.now += wait
        if bucket.take():
            passed.append(clock.now)
    for first, start in enumerate(passed):
        for count, end in enumerate(passed[first:], start=1):
            assert count <= burst + rate * (end - start) + 1e-6


def test_a_quiet_time_gives_the_burst_back_and_no_more() -> None:
    clock = Clock()
    bucket = TokenBucket(2.0, 3, clock)
    assert [bucket.take() for _ in range(5)] == [True, True, True, False, False]
    clock.now += 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    clock.now += 3600
    assert [bucket.take() for _ in range(5)] == [True, True, True, False, False]


def test_threads_share_one_bucket() -> None:
    bucket = TokenBucket(1e-9, 50)
    passed: list[bool] = []
    threads = [
        threading.Thread(target=lambda: passed.extend(bucket.take() for _ in range(50))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(passed) == 50


def test_a_longer_request_gets_more_time() -> None:
    limits = Limits(body_s=10, bytes_per_s=2**20)
    assert limits.seconds_for(0, limits.body_s) == 10
    assert limits.seconds_for(5 * 2**20, limits.body_s) == 15
