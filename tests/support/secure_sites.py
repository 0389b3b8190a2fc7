"""Real sites under distributed trust, and a coordinator's end that may be honest or not, all in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from support.federation import Desk, Holder, make_site, small_study
from support.secagg_driven import Shelf

from fedgen.config.plan import plan_of
from fedgen.coordinator.secure_round import PlainRounds, SecureRounds
from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code
from fedgen.messages import Confirmed, Joined, Refusal, Stepped
from fedgen.secagg import wire
from fedgen.secagg.server import Aggregate
from fedgen.secagg.wire import Kind
from fedgen.site.standing import StandingFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import numpy as np

    from fedgen.config.distributed import DistributedPlan
    from fedgen.coordinator.secure_round import Void
    from fedgen.secagg.terms import Terms

Seen = list[tuple[str, wire.Kind, Code | None]]


class Federation:
    """A few real sites of one study, each with its own rows, key, ledger and folder.

    Args:
        folder: Where they keep what they keep.
        sites: How many.
        parts: What one site is made of instead, by name; ``rules`` as in :func:`support.federation.make_site`.
        secagg: The study's section.
        join: Whether every site is invited, and joins.
        sections: Further sections of the study.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sites: int = 4,
        parts: Mapping[str, dict[str, Any]] | None = None,
        secagg: dict[str, Any] | None = None,
        join: bool = True,
        **sections: Any,
    ) -> None:
        privacy = {"trust": "distributed", **sections.pop("privacy", {})}
        study = small_study(
            sites=sites, privacy=privacy, secagg={"dropouts": 1, **(secagg or {})}, **sections
        )
        self.folder, self.desk = folder, Desk(study)
        self.names = [entry.name for entry in study.roster]
        self.keys = {name: SigningKey.generate() for name in self.names}
        self.parts = parts or {}
        self.holders: dict[str, Holder] = {}
        for name in self.names:
            self.restart(name)
        self.seen: Seen = []
        self.sent: dict[tuple[str, wire.Kind], bytes] = {}
        self.said: dict[tuple[str, wire.Kind], bytes] = {}
        self.now = (1, 1)
        self.swap: Callable[[str, bytes], bytes | None] = lambda _name, frame: frame
        if join:
            self.join()

    @property
    def plan(self) -> DistributedPlan:
        plan: Any = plan_of(self.desk.study)
        return plan

    @property
    def terms(self) -> Terms:
        roster = {name: key.public for name, key in self.keys.items()}
        return self.plan.terms(self.desk.study.study_hash, self.desk.run, roster)

    def restart(self, name: str, **parts: Any) -> Holder:
        """Make a site anew over what it keeps, as a new process would."""
        home = self.folder / name
        made = {
            "peers": lambda: {each: key.public for each, key in self.keys.items()},
            "standing": lambda run: StandingFile(home / f"standing-{run[:16]}.json", run),
            **self.parts.get(name, {}),
            **parts,
        }
        self.holders[name] = make_site(home, self.desk, name=name, identity=self.keys[name], **made)
        return self.holders[name]

    def join(self) -> None:
        for name in self.names:
            message, _ = self.answer(name, self.desk.join())
            assert isinstance(message, Joined), (name, message)

    def answer(self, name: str, request: bytes) -> tuple[Any, memoryview]:
        """Return what a site answers, opened as its coordinator would."""
        return self.desk.opened(self.holders[name].site.handle(request), self.keys[name])

    def code(self, name: str, request: bytes) -> Code:
        message, body = self.answer(name, request)
        assert isinstance(message, Refusal), message
        assert len(body) == 0
        return message.code

    # ---- the coordinator's end ----------------------------------------------------------------------------------

    def letter(self, name: str, frame: bytes) -> bytes:
        """Return a frame under the cover an honest coordinator gives it."""
        if wire.kind_of(frame) is wire.Kind.START:
            return self.desk.turn(name, frame, *self.now)
        return self.desk.step(name, frame, *self.now)

    def ask(self, frames: Mapping[str, bytes], _step: str) -> Iterator[tuple[str, bytes]]:
        for name, frame in frames.items():
            given = self.swap(name, frame)
            if given is None:
                continue
            kind = wire.kind_of(frame)
            self.sent[name, kind] = given
            message, body = self.answer(name, self.letter(name, given))
            code = None if isinstance(message, Stepped) else message.code
            self.seen.append((name, kind, code))
            if code is None:
                self.said[name, kind] = bytes(body)
                yield name, bytes(body)

    def confirm(self, names: tuple[str, ...]) -> list[str]:
        """Return the sites that say their vectors may be added."""
        frame = self.desk.confirm(*self.now)
        return [name for name in names if isinstance(self.answer(name, frame)[0], Confirmed)]

    def rounds(self, *, store: Shelf | None = None, **more: Any) -> SecureRounds | PlainRounds:
        def note(name: str, code: Code) -> None:
            self.seen.append((name, wire.Kind.CLEAR, code))

        if not self.plan.masked:
            return PlainRounds(self.terms, self.ask, note=note, **more)
        return SecureRounds(self.terms, self.ask, store=store or Shelf(), note=note, **more)

    def run(self, rounds: SecureRounds | PlainRounds, number: int = 1, attempt: int = 1) -> Aggregate | Void:
        """One attempt, with the weights that every test of this kind starts from."""
        self.now = number, attempt
        return rounds.round(number, attempt, self.weights)

    @property
    def weights(self) -> str:
        return sha256_hex(self.desk.weights().astype("<f4").tobytes())

    def codes(self, name: str) -> list[Code]:
        """Return every code one site answered with."""
        return [code for site, _, code in self.seen if site == name and code is not None]

    # ---- what came of it ----------------------------------------------------------------------------------------

    def charged(self, name: str) -> list[tuple[int, int]]:
        return [(entry.round, entry.attempt) for entry in self.holders[name].entries("reserved")]

    def settled(self, name: str) -> int:
        return len(self.holders[name].entries("settled"))

    def refused(self, name: str) -> list[tuple[int, int, str]]:
        return [(it.round, it.attempt, it.code) for it in self.holders[name].entries("refused")]

    def start(self, name: str, **changes: Any) -> bytes:
        """Return the frame that began a site's last turn, with some fields of it changed."""
        frame = wire.Start.decode(self.sent[name, wire.Kind.START], self.terms)
        return replace(frame, **changes).encode()

    def decoded(self, outcome: Aggregate | Void) -> np.ndarray:
        assert isinstance(outcome, Aggregate), outcome
        return self.plan.point.grid.decode(outcome.values)


# ---- a turn in pieces, for a test to put together otherwise ----------------------------------------


def begun(fed: Federation, number: int = 2, attempt: int = 1) -> None:
    """Let the next turn begin without anybody hearing of it, so that a test may say what they hear."""
    fed.swap = lambda _name, frame: frame
    swallowed: dict[str, bytes] = {}

    def swallow(name: str, frame: bytes) -> bytes | None:
        if wire.kind_of(frame) is Kind.START:
            swallowed[name] = frame
            return None
        return frame

    fed.swap = swallow
    fed.run(fed.driver, number, attempt)  # type: ignore[attr-defined]
    for name, frame in swallowed.items():
        fed.sent[name, Kind.START] = frame
    fed.swap = lambda _name, frame: frame


def masked(fed: Federation, *names: str) -> None:
    """Have these sites answer the turn that began."""
    for name in names:
        message, body = fed.answer(name, fed.letter(name, fed.sent[name, Kind.START]))
        assert isinstance(message, Stepped), message
        fed.said[name, Kind.START] = bytes(body)


def signature(fed: Federation, name: str) -> bytes:
    """Return a site's word that it gave an input, from its masked vector."""
    return wire.Masked.decode(fed.said[name, Kind.START], fed.terms).signature


def proposed(fed: Federation, *names: str) -> bytes:
    """Return the list of survivors that the server would have signed."""
    turn = wire.Start.decode(fed.sent[names[0], Kind.START], fed.terms)
    rows = tuple(sorted((fed.terms.index(name), signature(fed, name)) for name in names))
    return wire.Propose(setup=turn.setup, turn=turn.turn, signatures=rows).encode()


def unmasked(fed: Federation, signatures: dict[str, bytes], survivors: tuple[str, ...]) -> bytes:
    turn = wire.Start.decode(fed.sent[survivors[0], Kind.START], fed.terms)
    return wire.Unmask(
        setup=turn.setup,
        turn=turn.turn,
        survivors=tuple(sorted(fed.terms.index(name) for name in survivors)),
        signatures=tuple(sorted((fed.terms.index(name), row) for name, row in signatures.items())),
    ).encode()


def uncharged(fed: Federation, name: str) -> bool:
    return fed.charged(name) == [(1, 1)] and fed.settled(name) == 1
