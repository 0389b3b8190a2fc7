"""Laws of erasure: what is revoked only adds up, a set is what was put in, and a lineage is what was trained."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fedgen.policy.lineage import Stretch, Use, first_touch, may_have_used, name_of, pack, stretches, unpack
from fedgen.policy.remedy import Kind, Made, Remedy, remedy_for

ROUNDS = st.integers(1, 12)
PEOPLE = st.sets(st.integers(1, 40), max_size=12)
MADE = st.builds(Made, st.sampled_from(list(Kind)), st.integers(0, 12), st.booleans(), st.booleans())


def _reach(made: Made, used: list[set[int]], revoked: set[int], kept: set[int]) -> int:
    """Return how far the class reaches that these revocations give an artefact."""
    every = {("run", number) for number in range(1, len(used) + 1)}
    touched = {("run", number) for number, people in enumerate(used, 1) if people & revoked}
    first = first_touch((Stretch("run", 1, made.round),) if made.round else (), touched, every)
    return remedy_for(made, first, kept).reach


@given(MADE, st.lists(PEOPLE, min_size=12, max_size=12), PEOPLE, PEOPLE, st.sets(st.integers(0, 12)))
def test_more_revocations_never_give_a_milder_class(
    made: Made, used: list[set[int]], revoked: set[int], more: set[int], kept: set[int]
) -> None:
    assert _reach(made, used, revoked | more, kept) >= _reach(made, used, revoked, kept)


@given(MADE, st.none() | ROUNDS, ROUNDS, st.sets(st.integers(0, 12)))
def test_an_earlier_first_use_never_gives_a_milder_class(
    made: Made, late: int | None, early: int, kept: set[int]
) -> None:
    first = early if late is None else min(early, late)
    assert remedy_for(made, first, kept).reach >= remedy_for(made, late, kept).reach


@given(MADE, st.none() | ROUNDS, st.sets(st.integers(0, 12)), st.integers(0, 12))
def test_a_checkpoint_less_never_gives_a_milder_class(
    made: Made, first: int | None, kept: set[int], gone: int
) -> None:
    assert remedy_for(made, first, kept - {gone}).reach >= remedy_for(made, first, kept).reach


@given(MADE, st.none() | ROUNDS, st.sets(st.integers(0, 12)))
def test_only_what_was_shown_anonymous_or_never_saw_the_person_needs_nothing(
    made: Made, first: int | None, kept: set[int]
) -> None:
    nothing = remedy_for(made, first, kept) is Remedy.NONE_NEEDED
    unseen = made.lineage_known and (first is None or made.round < first)
    assert nothing == (made.anonymous or unseen)


@given(st.sets(st.integers(0, 5000)))
def test_a_set_comes_back_as_it_was_put_in(numbers: set[int]) -> None:
    bits = pack(sorted(numbers, reverse=True))
    assert set(unpack(bits).tolist()) == numbers
    assert name_of(pack(list(numbers))) == name_of(bits)
    assert not bits or bits[-1] != 0


@given(PEOPLE, st.integers(1, 60), st.integers(0, 60), st.booleans())
def test_who_was_in_is_never_said_to_be_out(
    people: set[int],
    number: int,
    upto: int,
    strangers: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    bits = pack(sorted(people))
    use = Use("s", "r", 1, 1, name_of(bits), max([upto, *people]), strangers)
    said = may_have_used(use, bits, number)
    if number in people:
        assert said
    elif number <= use.upto:
        assert not said


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 12)), max_size=6))
def test_a_lineage_is_the_rounds_that_were_really_trained(story: list[tuple[int, int]]) -> None:
    """Train some rounds, go back to some earlier one, and so on; each run remembers what it did."""
    model: list[tuple[str, int]] = []  # the oracle: the run of each round in the model
    runs, back_to = ["run-0"], []
    for rounds, back in story:
        model += [(runs[-1], len(model) + step) for step in range(1, rounds + 1)]
        back_to.append(min(back, len(model)))
        del model[back_to[-1] :]
        runs.append(f"run-{len(runs)}")
    model += [(runs[-1], len(model) + step) for step in (1, 2)]
    found = stretches(runs, back_to, len(model))
    assert [(it.run, number) for it in found for number in range(it.first, it.last + 1)] == model
