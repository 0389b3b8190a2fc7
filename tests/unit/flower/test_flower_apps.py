"""The two apps compose and do nothing else; the engines run them to the end of the server's."""

from __future__ import annotations

import builtins
import sys
from typing import TYPE_CHECKING, Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedgen.coordinator.transport import Answer, Transport, to_all
from fedgen.errors import Code, MissingExtra
from fedgen.flower import environment
from fedgen.flower.apps import client_app, server_app
from fedgen.flower.ray import _remember, run_on_ray
from fedgen.flower.records import from_record, to_record
from fedgen.flower.simulate import run_in_process
from fedgen.flower.transport import FlowerTransport

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def _known_to_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def _context(partition: Any) -> Context:
    return Context(
        run_id=1, node_id=7, node_config={"partition-id": partition}, state=RecordDict(), run_config={}
    )


def _message(content: bytes) -> Message:
    message = Message(to_record(content), dst_node_id=7, message_type="train")
    message.metadata.__dict__["_message_id"] = "m1"
    return message


def _door(number: int) -> Callable[[bytes], bytes]:
    return lambda request: f"site {number}: ".encode() + request


@pytest.mark.parametrize("partition", [0, 3, "3"])
def test_the_relay_hands_bytes_to_its_partitions_site(partition: Any) -> None:
    reply = client_app(_door)(_message(b"hello"), _context(partition))
    assert from_record(reply.content) == f"site {partition}: hello".encode()
    assert reply.metadata.reply_to_message_id == "m1"


def test_the_relay_keeps_no_state_between_messages() -> None:
    context = _context(1)
    client_app(_door)(_message(b"hello"), context)
    assert dict(context.state) == {}


def test_a_coordinator_runs_over_the_grid_of_its_app() -> None:
    answers: list[Answer] = []

    def run(transport: Transport) -> None:
        assert isinstance(transport, FlowerTransport)
        nodes = transport.nodes(3, 5)
        answers.extend(transport.exchange(to_all(b"hello", nodes), 20, "g"))

    run_in_process(server_app(run), client_app(_door), nodes=3, workers=2)
    assert [answer.reply for answer in answers] == [f"site {n}: hello".encode() for n in range(3)]


def test_what_the_coordinator_raises_is_raised_here() -> None:
    def run(_transport: Transport) -> None:
        raise KeyError("its own words")

    with pytest.raises(KeyError, match="its own words"):
        run_in_process(server_app(run), client_app(_door), nodes=1, workers=1)


@pytest.mark.parametrize("error", [SystemExit("4711"), GeneratorExit("4711"), MemoryError("4711")])
def test_one_nodes_end_is_not_the_others(error: BaseException) -> None:
    """Where the app itself, and not only the site behind the relay, comes to an end."""
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 1:
            raise error
        return Message(message.content, reply_to=message)

    answers: list[Answer] = []

    def run(transport: Transport) -> None:
        answers.extend(transport.exchange(to_all(b"x", transport.nodes(3, 5)), 20, "g"))

    run_in_process(server_app(run), app, nodes=3, workers=2)
    assert [(answer.reply, answer.code) for answer in answers] == [
        (b"x", None),
        (None, Code.DROPPED),
        (b"x", None),
    ]


def test_an_app_that_returns_nonsense_is_dropped() -> None:
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Any:
        return "no message"

    answers: list[Answer] = []

    def run(transport: Transport) -> None:
        answers.extend(transport.exchange(to_all(b"x", transport.nodes(1, 5)), 20, "g"))

    run_in_process(server_app(run), app, nodes=1, workers=1)
    assert answers == [Answer(1000, None, Code.DROPPED)]


# -- Ray --------------------------------------------------------------------------------------------


def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def blocked(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "ray" or name.startswith("ray."):
            raise ImportError("No module named 'ray'")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(builtins, "__import__", blocked)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_ray(monkeypatch)
    with pytest.raises(MissingExtra) as error:
        run_on_ray(server_app(lambda _transport: None), client_app(_door), 2)
    assert error.value.exit_code == 9
    assert error.value.extra == "sim"
    assert "pip install 'fedgen[sim]'" in str(error.value)


def test_what_the_server_raised_is_kept_from_an_engine_that_swallows_it() -> None:
    def run(_transport: Transport) -> None:
        raise KeyError("its own words")

    app = server_app(run)
    raised: list[BaseException] = []
    _remember(app, raised)
    inner: Any = app._main
    inner(None, None)
    assert [repr(error) for error in raised] == ["KeyError('its own words')"]


def test_a_server_that_ends_well_leaves_nothing_to_raise() -> None:
    app = server_app(lambda _transport: None)
    raised: list[BaseException] = []
    _remember(app, raised)
    inner: Any = app._main
    inner(None, None)
    assert raised == []


def test_the_engine_is_told_the_nodes_and_what_it_kept_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    class Engine:
        """Stands in for Flower's simulation module; the real one is run by the integration tests."""

        @staticmethod
        def run_simulation(**settings: Any) -> None:
            calls.append(settings)
            settings["server_app"]._main(None, None)

    monkeypatch.setitem(sys.modules, "ray", Engine())
    monkeypatch.setitem(sys.modules, "flwr.simulation", Engine())

    def run(_transport: Transport) -> None:
        raise KeyError("its own words")

    with pytest.raises(KeyError, match="its own words"):
        run_on_ray(server_app(run), client_app(_door), 5)
    assert calls[0]["num_supernodes"] == 5


# -- what is sent home ------------------------------------------------------------------------------


def test_every_switch_is_set_when_flower_is_imported() -> None:
    import os

    for name in environment.QUIET:
        assert name in os.environ


def test_switches_are_set_where_they_are_missing_and_left_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os

    for name in environment.QUIET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    environment.quiet()
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "1", "the user's own choice stands"
    rest = {name: value for name, value in environment.QUIET.items() if name != "FLWR_TELEMETRY_ENABLED"}
    assert {name: os.environ[name] for name in rest} == rest


@pytest.mark.process
def test_the_switches_are_set_before_flower_or_ray_can_read_them() -> None:
    import subprocess

    code = (
        "import sys\n"
        "import fedgen.flower.environment as e\n"
        "import os\n"
        "assert 'flwr' not in sys.modules and 'ray' not in sys.modules\n"
        "assert all(name in os.environ for name in e.QUIET)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
