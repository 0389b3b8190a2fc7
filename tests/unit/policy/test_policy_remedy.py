"""Every class is reached, and by what."""

from __future__ import annotations

import pytest

from fedgen.policy.remedy import Kind, Made, Remedy, furthest, last_before, remedy_for

KEPT = (2, 4, 6, 8)


@pytest.mark.parametrize(
    ("made", "first_use", "wanted"),
    [
        (Made(Kind.CHECKPOINT, 8), None, Remedy.NONE_NEEDED),
        (Made(Kind.CHECKPOINT, 4), 5, Remedy.NONE_NEEDED),
        (Made(Kind.CHECKPOINT, 5), 5, Remedy.ROLLBACK),
        (Made(Kind.CHECKPOINT, 8), 3, Remedy.ROLLBACK),
        (Made(Kind.CHECKPOINT, 8), 2, Remedy.RETRAIN),
        (Made(Kind.CHECKPOINT, 8), 1, Remedy.RETRAIN),
        (Made(Kind.RELEASE, 8), 8, Remedy.WITHDRAW_RELEASE),
        (Made(Kind.RELEASE, 8), 1, Remedy.WITHDRAW_RELEASE),
        (Made(Kind.RELEASE, 4), 5, Remedy.NONE_NEEDED),
        (Made(Kind.OTHER, 8), 5, Remedy.UNSUPPORTED),
        (Made(Kind.CHECKPOINT, 8, lineage_known=False), None, Remedy.UNSUPPORTED),
        (Made(Kind.RELEASE, 8, lineage_known=False), 5, Remedy.UNSUPPORTED),
        (Made(Kind.RELEASE, 8, anonymous=True), 1, Remedy.NONE_NEEDED),
        (Made(Kind.CHECKPOINT, 8, lineage_known=False, anonymous=True), 1, Remedy.NONE_NEEDED),
    ],
)
def test_each_class(made: Made, first_use: int | None, wanted: Remedy) -> None:
    assert remedy_for(made, first_use, KEPT) is wanted


def test_a_model_before_the_first_round_is_no_checkpoint_to_go_back_to() -> None:
    assert remedy_for(Made(Kind.CHECKPOINT, 3), 1, (0, 3)) is Remedy.RETRAIN
    assert last_before(1, (0, 3)) == 0


def test_the_last_checkpoint_before() -> None:
    assert last_before(7, KEPT) == 6
    assert last_before(6, KEPT) == 4
    assert last_before(2, KEPT) == 0
    assert last_before(5, ()) == 0


def test_the_words_are_those_of_the_specification_in_their_order() -> None:
    assert [str(remedy) for remedy in Remedy] == [
        "none_needed",
        "rollback",
        "retrain",
        "withdraw_release",
        "unsupported",
    ]
    assert [remedy.reach for remedy in Remedy] == [0, 1, 2, 3, 4]
    assert furthest([]) is Remedy.NONE_NEEDED
    assert furthest([Remedy.RETRAIN, Remedy.ROLLBACK]) is Remedy.RETRAIN
