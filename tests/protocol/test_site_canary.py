"""Nothing but codes leaves on failure: every error at every seam of a site, and not a letter of it outside.

A canary (a word, and a value as it might stand in a row) is put in every place an error has for text: message,
arguments, file name, key, hint, notes, cause. It is then looked for in every byte that leaves, as it is and
after the bytes were opened.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.supercore.task_identity import TaskIdentity
from support import canaries
from support.federation import NOW, Desk, Holder, consent_log, make_site, small_rows, small_study

import fedgen.site.incidents as incidents_module
import fedgen.site.permission as permission_module
import fedgen.site.replies as replies_module
from fedgen.crypto.keys import SigningKey
from fedgen.dpsgd.noise import NoiseSource
from fedgen.errors import Code
from fedgen.flower.apps import client_app
from fedgen.flower.records import from_record, to_record
from fedgen.messages import Joined, Refusal, Settled, Trained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import torch

ROUNDS = 400  # room in the budget for every attempt below


@dataclass
class Fuse:
    """Blows once: the next time the armed seam is passed, the error is raised."""

    seam: str = ""
    error: BaseException | None = None

    def check(self, seam: str) -> None:
        if seam == self.seam and self.error is not None:
            error, self.error = self.error, None
            raise error


class Seams:
    """A site each of whose parts can be made to fail, once."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fuse = Fuse()
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
            clock=lambda _round: self.at("clock") or NOW,
        )
        site = self.holder.site
        self._wrap_bench(site)
        self._wrap_ledger()
        self._wrap(monkeypatch, replies_module, "seal_frame", "seal")
        self._wrap(monkeypatch, permission_module, "permit", "gate")

    def at(self, seam: str) -> None:
        self.fuse.check(seam)

    def arm(self, seam: str, error: BaseException) -> None:
        self.fuse.seam, self.fuse.error = seam, error

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
                for name in ("reserve", "settle"):
                    inner.__dict__[name] = self._passing(getattr(inner, name), name)
                yield inner

        account._ledger = ledger

    def _passing(self, real: Callable[..., Any], seam: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.at(seam)
            return real(*args, **kwargs)

        return call


SEAMS = (
    "table",
    "consent",
    "decide",
    "clock",
    "gate",
    "ledger",
    "reserve",
    "bench",
    "noise",
    "sampling",
    "loss",
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
    for _name, error in canaries.named():
        if not isinstance(error, canaries.Mute):
            assert canaries.traces(f"{error!r} {error.args} {error!s}".encode(errors="replace")), error
    assert canaries.traces(b"an honest reply") == []


def test_the_tree_is_walked_whole() -> None:
    found = {kind.__name__ for kind in canaries.tree()}
    assert {
        "FedgenError",
        "DataError",
        "Refused",
        "BudgetExhausted",
        "IntegrityError",
        "Interrupted",
    } <= found
    assert "LedgerBusy" in found


@pytest.mark.parametrize("seam", SEAMS)
def test_no_error_at_this_seam_says_more_than_a_code(
    seam: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seams = Seams(tmp_path, monkeypatch)
    holder, desk = seams.holder, seams.desk
    assert isinstance(holder.ask(desk.join())[0], Joined)
    for number, (name, error) in enumerate(canaries.named(), start=1):
        seams.arm(seam, error)
        reply = holder.site.handle(desk.train(number, 1))
        assert seams.fuse.error is None, f"{name} was never raised"
        _assert_only_a_code(reply, holder, f"{name} at {seam}")
        answer, update = holder.ask(desk.train(number, 2))
        assert isinstance(answer, Trained), f"{name} at {seam}: {answer}"
        assert len(update) == answer.parameters


def test_an_error_while_joining_or_leaving_says_no_more_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seams = Seams(tmp_path, monkeypatch)
    holder, desk = seams.holder, seams.desk
    for name, error in canaries.named():
        seams.arm("ledger", error)
        _assert_only_a_code(holder.site.handle(desk.join()), holder, name)
        assert isinstance(holder.ask(desk.join())[0], Joined)
        seams.arm("ledger", error)
        _assert_only_a_code(holder.site.handle(desk.settle()), holder, name)
        assert isinstance(holder.ask(desk.settle())[0], Settled)


class _LostKey:
    """A signing key whose token is pulled out now and then."""

    def __init__(self, real: SigningKey) -> None:
        self.real, self.public = real, real.public
        self.error: BaseException | None = None

    def sign(self, label: str, data: bytes) -> bytes:
        if self.error is not None:
            raise self.error
        return self.real.sign(label, data)


def test_a_site_that_cannot_sign_says_nothing_at_all(tmp_path: Path) -> None:
    desk = Desk(small_study())
    real = SigningKey.generate()
    key = _LostKey(real)
    holder = make_site(tmp_path, desk, identity=real)
    holder.site._replies._identity = key  # type: ignore[assignment]
    for name, error in canaries.named():
        key.error = error
        for request in (desk.join(), desk.train(1), b"nonsense"):
            assert holder.site.handle(request) == b"", name
        key.error = None
    assert isinstance(holder.ask(desk.join())[0], Joined)
    assert isinstance(holder.ask(desk.train(2))[0], Trained)


def test_a_broken_incident_log_puts_nothing_into_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(small_study())
    holder = make_site(tmp_path, desk)
    for name, error in canaries.named():
        for part in ("_line", "_append"):
            with monkeypatch.context() as patch:
                patch.setattr(incidents_module, part, canaries.raising(error))
                reply = holder.site.handle(desk.train(1))
            if isinstance(error, Exception):
                _assert_only_a_code(reply, holder, name)
            else:
                assert reply == b"", name
    assert isinstance(holder.ask(desk.join())[0], Joined)


def test_only_the_operators_own_interrupt_passes_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize("seam", ["table", "loss", "seal"])
def test_nothing_leaves_through_flower(seam: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seams = Seams(tmp_path, monkeypatch)
    app = client_app(lambda _number: seams.holder.site.handle)
    app(_message(seams.desk.join()), _context())
    for number, (name, error) in enumerate(canaries.named(), start=1):
        seams.arm(seam, error)
        reply = app(_message(seams.desk.train(number, 1)), _context())
        assert seams.fuse.error is None
        assert canaries.traces(_wire(reply)) == [], f"{name} at {seam}"
        assert isinstance(_opened(from_record(reply.content), seams.holder)[0], Refusal)


@pytest.mark.parametrize("place", ["making the site", "its door", "the partition"])
def test_the_relay_itself_lets_no_text_out(place: str) -> None:
    for name, error in canaries.named():
        broken = canaries.raising(error)
        door: Any = broken if place == "making the site" else lambda _number, broken=broken: broken
        partition = canaries.WORD if place == "the partition" else 0
        reply = client_app(door)(_message(b"request"), _context(partition))
        assert reply.has_error(), name
        assert canaries.traces(_wire(reply)) == [], name


@pytest.mark.parametrize(
    "content", [RecordDict(), RecordDict({canaries.WORD: ConfigRecord({canaries.WORD: 1})})]
)
def test_the_relay_answers_a_record_that_is_not_ours_with_a_bare_error(content: RecordDict) -> None:
    reply = client_app(canaries.raising(AssertionError()))(_message(content), _context(None))
    assert reply.has_error()
    assert canaries.traces(_wire(reply)) == []


def test_the_operators_interrupt_passes_the_relay() -> None:
    with pytest.raises(KeyboardInterrupt):
        client_app(canaries.raising(KeyboardInterrupt()))(_message(b"request"), _context())


def test_a_relays_error_reaches_the_coordinator_as_a_code(tmp_path: Path) -> None:
    from fedgen.coordinator.transport import to_all
    from fedgen.flower.grid import InProcessGrid
    from fedgen.flower.transport import FlowerTransport

    desk = Desk(small_study())
    holder = make_site(tmp_path, desk)

    def door(number: int) -> Callable[[bytes], bytes]:
        if number == 0:
            raise OSError(canaries.WORD)
        return holder.site.handle

    grid = InProcessGrid(client_app(door), 2, workers=1)
    answers = list(FlowerTransport(grid).exchange(to_all(desk.join(), grid.get_node_ids()), 20, "join"))
    grid.close()
    assert [answer.code for answer in answers] == [Code.DROPPED, None]
    assert answers[0].reply is None
    assert answers[1].reply is not None
    assert isinstance(holder.desk.read(answers[1].reply, holder.identity)[0], Joined)
