"""Nothing but codes leaves on failure: every error at every seam of a site, and not a letter of it outside.

A canary (a word, and a value as it might stand in a row) is put in every place an error has for text: message,
arguments, file name, key, hint, notes, cause. It is then looked for in every byte that leaves, as it is and
after the bytes were opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.supercore.task_identity import TaskIdentity
from support import canaries
from support.federation import Desk, Holder, consent_log, make_site, small_rows, small_study

import fedgen.site.monitor as monitor_module
import fedgen.site.train as train_module
from fedgen.crypto.keys import SigningKey
from fedgen.dpsgd.noise import NoiseSource
from fedgen.errors import Code
from fedgen.flower.apps import client_app
from fedgen.flower.records import from_record, to_record
from fedgen.messages import Joined, Refusal, Trained, decode
from fedgen.site.incidents import IncidentLog

ROUNDS = 400  # room in the budget for every attempt below


@dataclass
class Fuse:
    """Blows once: the next time it is passed, the armed error is raised."""

    error: BaseException | None = None
    passed: list[str] = field(default_factory=list)

    def check(self, seam: str, armed: str) -> None:
        if seam == armed and self.error is not None:
            error, self.error = self.error, None
            self.passed.append(seam)
            raise error


class Seams:
    """A site each of whose parts can be made to fail, once."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fuse = Fuse()
        self.armed = ""
        self.desk = Desk(small_study(training={"rounds": ROUNDS}, privacy={"noise_multiplier": 8.0}))
        folder.mkdir(exist_ok=True)
        log = consent_log(folder / "consent.csv", granted=30)
        table = small_rows()
        self.holder = make_site(
            folder,
            self.desk,
            table=lambda: self.at("table") or table,
            consent=lambda: self.at("consent") or self._log(log),
            noise=self._noise(),
            clock=lambda _round: self.at("clock") or _now(),
        )
        site = self.holder.site
        self._wrap_bench(site)
        self._wrap_ledger()
        for name, seam in (("seal_frame", "seal"), ("encode", "encode"), ("permit", "gate")):
            self._wrap(monkeypatch, monitor_module, name, seam)
        self._wrap(monkeypatch, train_module, "site_noise_std", "plan")

    def at(self, seam: str) -> None:
        self.fuse.check(seam, self.armed)

    def arm(self, seam: str, error: BaseException) -> None:
        self.armed, self.fuse.error = seam, error

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, seam: str) -> None:
        real = getattr(module, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.at(seam)
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, wrapped)

    def _log(self, log: Any) -> Any:
        seams = self

        class Log:
            def decide(self, *args: Any, **kwargs: Any) -> Any:
                seams.at("decide")
                return log.decide(*args, **kwargs)

        return Log()

    def _noise(self) -> NoiseSource:
        seams = self

        class Noise(NoiseSource):
            def add_normal_(self, out: torch.Tensor, std: float) -> None:
                seams.at("noise")
                super().add_normal_(out, std)

            def uniforms(self, n: int) -> Any:
                seams.at("sampling")
                return super().uniforms(n)

        return Noise.secure()

    def _wrap_bench(self, site: Any) -> None:
        lend = site._bench

        @contextmanager
        def bench(admission: Any) -> Iterator[Any]:
            self.at("bench")
            with lend(admission) as learner:
                real = learner.model.private_loss

                def loss(*args: Any) -> torch.Tensor:
                    self.at("loss")
                    return real(*args)

                object.__setattr__(learner.model, "private_loss", loss)
                try:
                    yield learner
                finally:
                    object.__delattr__(learner.model, "private_loss")

        site._bench = bench

    def _wrap_ledger(self) -> None:
        account = self.holder.account
        lend = account._ledger

        @contextmanager
        def ledger() -> Iterator[Any]:
            self.at("ledger")
            with lend() as inner:
                for name in ("reserve", "settle", "last_attempt"):
                    setattr_free(inner, name, self._passing(getattr(inner, name), name))
                yield inner

        account._ledger = ledger

    def _passing(self, real: Callable[..., Any], seam: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.at(seam)
            return real(*args, **kwargs)

        return call


def setattr_free(target: Any, name: str, value: Any) -> None:
    """Shadow a method of one instance."""
    target.__dict__[name] = value


def _now() -> Any:
    from support.federation import NOW

    return NOW


SEAMS = (
    "table",
    "consent",
    "decide",
    "clock",
    "gate",
    "ledger",
    "last_attempt",
    "reserve",
    "bench",
    "plan",
    "noise",
    "sampling",
    "loss",
    "encode",
    "seal",
    "settle",
)


def _opened(reply: bytes, holder: Holder) -> tuple[Any, list[str]]:
    """Return the reply's message, and every word in it."""
    message, _body = holder.desk.read(reply, holder.identity)
    return message, list(canaries.words_of(message.model_dump(mode="json")))


def _assert_only_a_code(reply: bytes, holder: Holder, what: str) -> None:
    assert canaries.traces(reply) == [], what
    message, words = _opened(reply, holder)
    assert isinstance(message, Refusal), what
    assert message.code in set(Code), what
    assert canaries.traces("\n".join(words).encode()) == [], what


def test_the_search_finds_the_canary_it_looks_for() -> None:
    for error in canaries.every_error():
        if not isinstance(error, canaries.Mute):
            assert canaries.traces(f"{error!r} {error.args} {error!s}".encode(errors="replace")), error
    assert canaries.traces(b"an honest reply") == []


def test_the_tree_is_walked_whole() -> None:
    found = {kind.__name__ for kind in canaries.tree()}
    assert {"FedgenError", "DataError", "Refused", "BudgetExhausted", "IntegrityError", "Interrupted"} <= found
    assert "LedgerBusy" in found


@pytest.mark.parametrize("seam", SEAMS)
def test_no_error_at_this_seam_says_more_than_a_code(
    seam: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seams = Seams(tmp_path, monkeypatch)
    holder, desk = seams.holder, seams.desk
    assert isinstance(holder.ask(desk.join())[0], Joined)
    for number, (name, error) in enumerate(zip(canaries.names(), canaries.every_error(), strict=True), start=1):
        seams.arm(seam, error)
        reply = holder.site.handle(desk.train(number, 1))
        assert seams.fuse.passed[-1:] == [seam], f"{name} was never raised"
        seams.fuse.passed.clear()
        _assert_only_a_code(reply, holder, f"{name} at {seam}")
        answer, update = holder.ask(desk.train(number, 2))
        assert isinstance(answer, Trained), f"{name} at {seam}: {answer}"
        assert len(update) == answer.parameters


@pytest.mark.parametrize("name", canaries.names())
def test_an_error_while_joining_says_no_more_either(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = canaries.every_error()[canaries.names().index(name)]
    seams = Seams(tmp_path, monkeypatch)
    seams.arm("ledger", error)
    _assert_only_a_code(seams.holder.site.handle(seams.desk.join()), seams.holder, name)
    assert isinstance(seams.holder.ask(seams.desk.join())[0], Joined)
    seams.arm("ledger", error)
    _assert_only_a_code(seams.holder.site.handle(seams.desk.settle()), seams.holder, name)


class _LostKey:
    """A signing key whose token was pulled out."""

    def __init__(self, real: SigningKey, error: BaseException) -> None:
        self.real, self.error, self.lost = real, error, False
        self.public = real.public

    def sign(self, label: str, data: bytes) -> bytes:
        if self.lost:
            raise self.error
        return self.real.sign(label, data)


@pytest.mark.parametrize("name", canaries.names())
def test_a_site_that_cannot_sign_says_nothing_at_all(name: str, tmp_path: Path) -> None:
    error = canaries.every_error()[canaries.names().index(name)]
    desk = Desk(small_study())
    real = SigningKey.generate()
    key = _LostKey(real, error)
    holder = make_site(tmp_path, desk, identity=real)
    holder.site._identity = key  # type: ignore[assignment]
    assert isinstance(holder.ask(desk.join())[0], Joined)
    key.lost = True
    assert holder.site.handle(desk.train(1)) == b""
    assert holder.site.handle(b"nonsense") == b""
    key.lost = False
    assert isinstance(holder.ask(desk.train(2))[0], Trained)


@pytest.mark.parametrize("name", canaries.names())
def test_a_broken_incident_log_changes_no_answer(name: str, tmp_path: Path) -> None:
    error = canaries.every_error()[canaries.names().index(name)]
    desk = Desk(small_study())

    class Broken(IncidentLog):
        def record(self, *_args: Any, **_kwargs: Any) -> str:
            raise error

    holder = make_site(tmp_path, desk, incidents=Broken(None))
    reply = holder.site.handle(desk.train(1))
    _assert_only_a_code(reply, holder, name)
    assert isinstance(holder.ask(desk.join())[0], Joined)


def test_only_the_operators_own_interrupt_passes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seams = Seams(tmp_path, monkeypatch)
    seams.holder.ask(seams.desk.join())
    seams.arm("table", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        seams.holder.site.handle(seams.desk.train(1))
    assert isinstance(seams.holder.ask(seams.desk.train(1))[0], Trained)


# -- through Flower ---------------------------------------------------------------------------------


def _context(partition: Any = 0) -> Context:
    config = {} if partition is None else {"partition-id": partition}
    return Context(run_id=1, node_id=7, node_config=config, state=RecordDict(), run_config={})


@pytest.fixture(autouse=True)
def _known_to_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages of Flower name the task they belong to."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def _message(envelope: bytes | RecordDict) -> Message:
    content = envelope if isinstance(envelope, RecordDict) else to_record(envelope)
    message = Message(content, dst_node_id=7, message_type="train")
    message.metadata.__dict__["_message_id"] = "m1"
    return message


def _wire(reply: Message) -> bytes:
    """Return the very bytes Flower would put on the network."""
    return message_to_proto(reply).SerializeToString()


@pytest.mark.parametrize("seam", SEAMS)
def test_nothing_leaves_through_flower(seam: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seams = Seams(tmp_path, monkeypatch)
    app = client_app(lambda _number: seams.holder.site.handle)
    app(_message(seams.desk.join()), _context())
    for number, (name, error) in enumerate(zip(canaries.names(), canaries.every_error(), strict=True), start=1):
        seams.arm(seam, error)
        reply = app(_message(seams.desk.train(number, 1)), _context())
        assert seams.fuse.passed[-1:] == [seam]
        seams.fuse.passed.clear()
        assert canaries.traces(_wire(reply)) == [], f"{name} at {seam}"
        assert isinstance(_opened(from_record(reply.content), seams.holder)[0], Refusal)


@pytest.mark.parametrize("place", ["making the site", "its door", "the partition"])
@pytest.mark.parametrize("name", canaries.names())
def test_the_relay_itself_lets_no_text_out(name: str, place: str) -> None:
    error = canaries.every_error()[canaries.names().index(name)]
    broken = canaries.raising(error)
    door: Any = broken if place == "making the site" else lambda _number: broken
    partition = canaries.WORD if place == "the partition" else 0
    reply = client_app(door)(_message(b"request"), _context(partition))
    assert reply.has_error()
    assert isinstance(reply.error, Error)
    assert canaries.traces(_wire(reply)) == []


@pytest.mark.parametrize("record", ["none", "foreign"])
def test_the_relay_answers_a_record_that_is_not_ours_with_a_bare_error(record: str) -> None:
    content = RecordDict() if record == "none" else RecordDict({canaries.WORD: ConfigRecord({canaries.WORD: 1})})
    reply = client_app(canaries.raising(AssertionError()))(_message(content), _context(None))
    assert reply.has_error()
    assert canaries.traces(_wire(reply)) == []


def test_a_relays_error_reaches_the_coordinator_as_a_code(tmp_path: Path) -> None:
    from fedgen.flower.grid import InProcessGrid
    from fedgen.flower.transport import FlowerTransport

    desk = Desk(small_study())
    holder = make_site(tmp_path, desk)

    def door(number: int) -> Callable[[bytes], bytes]:
        if number == 0:
            raise OSError(canaries.WORD)
        return holder.site.handle

    grid = InProcessGrid(client_app(door), 2, workers=1)
    answers = list(FlowerTransport(grid).exchange(desk.join(), grid.get_node_ids(), 20, "join"))
    grid.close()
    assert [answer.code for answer in answers] == [Code.DROPPED, None]
    assert answers[0].reply is None
    assert isinstance(decode_of(answers[1].reply, holder), Joined)


def decode_of(reply: bytes | None, holder: Holder) -> Any:
    """Return the message in a clear reply."""
    assert reply is not None
    return holder.desk.read(reply, holder.identity)[0]


def test_decode_is_imported_for_clear_frames_only() -> None:
    assert decode is not None
