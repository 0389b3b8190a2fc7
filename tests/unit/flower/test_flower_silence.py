"""Who is silent for too long is ended; who was just started, or answered, has all the time."""

from __future__ import annotations

from fedgen.flower.silence import Silence


def test_one_that_stops_answering_is_silent_too_long_after_its_patience() -> None:
    silence = Silence(10)
    assert not silence.too_long(7, 0, answers=True)
    assert not silence.too_long(7, 10, answers=False)
    assert silence.too_long(7, 10.1, answers=False)


def test_an_answer_in_between_begins_anew() -> None:
    silence = Silence(10)
    for now in range(0, 200, 8):
        assert not silence.too_long(7, now, answers=now % 16 == 0)


def test_one_that_was_just_started_has_all_the_time() -> None:
    silence = Silence(10)
    assert not silence.too_long(7, 0, answers=True)
    assert not silence.too_long(8, 100, answers=False)
    assert not silence.too_long(8, 110, answers=False)
    assert silence.too_long(8, 111, answers=False)


def test_nothing_is_never_silent() -> None:
    silence = Silence(10)
    assert not any(silence.too_long(None, now, answers=False) for now in range(0, 100, 7))
