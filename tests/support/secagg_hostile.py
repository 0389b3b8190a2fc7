"""What a hostile server of secure aggregation does with all it has seen: frames of its own making."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedgen.errors import Code, FedgenError, IntegrityError, Refused
from fedgen.secagg import wire

if TYPE_CHECKING:
    from support.secagg import World

RNG = np.random.default_rng(5)


def refused(code: Code, call, *arguments) -> FedgenError:
    with pytest.raises((IntegrityError, Refused)) as error:
        call(*arguments)
    assert error.value.code is code, error.value
    return error.value


def masked_turn(world: World, *, drop=()) -> dict[str, np.ndarray]:
    """Let a turn come to where all but some have given their vectors."""
    vectors = {}
    for name, start in world.begin().items():
        if name not in drop:
            vectors[name] = world.vector(RNG)
            world.server.add(name, world.answer(name, start, vectors[name]))
    return vectors


def inputs(world: World) -> dict[int, bytes]:
    """Return the signatures a server has collected in this turn."""
    return dict(world.server._state.inputs)


def unmask_all(world: World) -> bytes:
    """Return the question of an honest turn in which nobody dropped."""
    signed = inputs(world)
    return frame_unmask(world, tuple(sorted(signed)), signed)


def frame_unmask(world: World, survivors, signatures) -> bytes:
    turn = world.server._turn
    rows = tuple(sorted(signatures.items()))
    return wire.Unmask(setup=1, turn=turn, survivors=tuple(survivors), signatures=rows).encode()


def frame_propose(world: World, survivors) -> bytes:
    signed = inputs(world)
    rows = tuple((site, signed[site]) for site in survivors)
    return wire.Propose(setup=1, turn=world.server._turn, signatures=rows).encode()


def name_of(world: World, index: int) -> str:
    return world.terms.name(index)
