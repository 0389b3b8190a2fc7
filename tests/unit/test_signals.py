"""Signals are heard for the length of a block, and then by whoever heard them before."""

from __future__ import annotations

import os
import signal

import pytest

from fedgen._signals import ENDING, heard


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_calls_what_stops_and_whoever_heard_it_before_hears_it_again(number: signal.Signals) -> None:
    calls: list[str] = []
    original = signal.signal(number, lambda *_: calls.append("before"))
    try:
        with heard(lambda: calls.append("stop")):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        with pytest.raises(OSError, match="disk"), heard(lambda: calls.append("stop again")):
            raise OSError("disk")
        os.kill(os.getpid(), number)
    finally:
        signal.signal(number, original)
    assert calls == ["stop", "before", "before"]


def test_only_the_signals_that_are_named_are_heard() -> None:
    calls: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with heard(lambda: calls.append("stop"), (signal.SIGHUP,)):
        assert signal.getsignal(signal.SIGTERM) == before
        os.kill(os.getpid(), signal.SIGHUP)
    assert calls == ["stop"]
