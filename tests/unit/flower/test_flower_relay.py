"""The relay in Flower's process: opaque bytes through, codes for everything else, and next to nothing loaded."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from support.site_homes import short_folder

import fedgen.flower.relay as relay_module
from fedgen.errors import Code
from fedgen.flower.records import MOST_BYTES, from_record, to_record
from fedgen.flower.relay import relay_app
from fedgen.messages import MAX_BODY, MAX_HEADER
from fedgen.site import frames
from fedgen.site.daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[3]
HEAVY = {
    "torch",
    "pydantic",
    "opacus",
    "pandas",
    "pyarrow",
    "sqlalchemy",
    "scipy",
    "dp_accounting",
    "yaml",
    "ray",
}


@pytest.fixture(autouse=True)
def _known_to_flower_and_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "_STARTING_S", 0.0)
    monkeypatch.delenv("FEDGEN_SITE_SOCKET", raising=False)
    for name in ("_run_id", "_node_id", "_task_id"):  # messages of Flower name the task they belong to
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def daemon() -> Iterator[Callable[[Callable[[bytes], bytes]], str]]:
    with short_folder() as root:
        running: list[tuple[Daemon, threading.Thread]] = []

        def serve(handle: Callable[[bytes], bytes]) -> str:
            it = Daemon(handle, root / "s", users={root.stat().st_uid})
            it.listen()
            thread = threading.Thread(target=it.serve)
            thread.start()
            running.append((it, thread))
            return str(it.path)

        yield serve
        for it, thread in running:
            it.stop()
            thread.join(20)


def _reply(content: RecordDict, config: dict[str, Any]) -> Message:
    context = Context(run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={})
    message = Message(content, dst_node_id=1, message_type="train")
    message.metadata.__dict__["_message_id"] = "1"
    return relay_app()(message, context)


def _code(reply: Message) -> str:
    assert reply.has_error()
    assert not reply.has_content()
    return str(reply.error.reason)


def test_opaque_bytes_go_through(daemon: Callable[..., str]) -> None:
    path = daemon(lambda request: request[::-1])
    reply = _reply(to_record(b"\0\1opaque\xff"), {"socket": path})
    assert from_record(reply.content) == b"\xffeuqapo\1\0"


def test_the_environment_names_the_socket_where_flower_does_not(
    daemon: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDGEN_SITE_SOCKET", daemon(bytes.upper))
    assert from_record(_reply(to_record(b"abc"), {}).content) == b"ABC"


@pytest.mark.parametrize("config", [{}, {"socket": ""}, {"socket": "/none/there"}, {"socket": 7}])
def test_no_daemon_is_a_code(config: dict[str, Any]) -> None:
    assert _code(_reply(to_record(b"x"), config)) == Code.DROPPED


def test_no_answer_is_a_code(daemon: Callable[..., str]) -> None:
    path = daemon(lambda _request: b"")
    assert _code(_reply(to_record(b"x"), {"socket": path})) == Code.FAULT


def test_an_answer_that_does_not_come_in_time_is_a_code(
    daemon: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "_ANSWER_S", 0.2)
    late = threading.Event()
    path = daemon(lambda _request: bytes(late.wait(20)))
    assert _code(_reply(to_record(b"x"), {"socket": path})) == Code.LATE
    late.set()


def test_a_message_of_another_form_is_a_code_and_reaches_nobody(daemon: Callable[..., str]) -> None:
    seen: list[bytes] = []
    path = daemon(lambda request: seen.append(request) or b"")  # type: ignore[func-returns-value]
    for content in (RecordDict(), RecordDict({"other": ArrayRecord()})):
        assert _code(_reply(content, {"socket": path})) == Code.MALFORMED
    assert seen == []


def test_no_text_of_an_error_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise RuntimeError("canary-7f3a")

    monkeypatch.setattr(frames, "ask", fail)
    reply = _reply(to_record(b"x"), {"socket": "/x"})
    assert _code(reply) == Code.FAULT
    assert "canary" not in repr(reply.error)


def test_an_operators_interrupt_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(frames, "ask", stop)
    with pytest.raises(KeyboardInterrupt):
        _reply(to_record(b"x"), {"socket": "/x"})


def test_the_apps_process_loads_next_to_nothing_of_fedgen() -> None:
    script = "import json, sys; import clients.app; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert {name for name in loaded if name.startswith("fedgen")} == {
        "fedgen",
        "fedgen.errors",
        "fedgen.flower",
        "fedgen.flower.environment",
        "fedgen.flower.records",
        "fedgen.flower.relay",
        "fedgen.site",
        "fedgen.site.frames",
    }


def test_the_limit_that_the_relay_does_not_load_is_that_of_the_messages() -> None:
    assert MOST_BYTES == MAX_BODY + 2 * MAX_HEADER
    assert frames.MAX_ANSWER == MOST_BYTES
