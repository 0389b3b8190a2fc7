"""The apps of the deployment kit import, are Flower apps, and do nothing without a home, a run or a daemon."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedgen._resources import kit
from fedgen.api.enrolment import server_init
from fedgen.errors import ConfigError
from fedgen.flower.grid import InProcessGrid
from fedgen.flower.records import to_record

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


def _load(room: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"kit_{room}", kit(room, "app.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_apps_are_flower_apps() -> None:
    assert isinstance(_load("server").app, ServerApp)
    assert isinstance(_load("clients").app, ClientApp)


def _server_app(run_config: dict[str, Any]) -> None:
    grid = InProcessGrid(_load("clients").app, 1, workers=1)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=run_config)
    try:
        _load("server").app(grid, context)
    finally:
        grid.close()


def test_the_server_app_does_nothing_without_a_run_and_a_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FEDGEN_SERVER", raising=False)
    for config in ({}, {"run": "ab" * 32}, {"run": 5, "wait": 0.0}):
        with pytest.raises(ConfigError, match="names no run") as refused:
            _server_app(config)
        assert refused.value.exit_code == 3
    with pytest.raises(ConfigError, match="FEDGEN_SERVER is not set"):
        _server_app({"run": "ab" * 32, "wait": 0.0})
    monkeypatch.setenv("FEDGEN_SERVER", str(server_init(tmp_path / "server", "127.0.0.1:8443").root))
    with pytest.raises(ConfigError, match="does not know this run"):
        _server_app({"run": "ab" * 32, "wait": 0.0})


def test_the_client_app_answers_no_message() -> None:
    grid = InProcessGrid(_load("clients").app, 1, workers=1)
    (node,) = grid.get_node_ids()
    message: Any = Message(to_record(b"x"), dst_node_id=node, message_type="train")
    (reply,) = list(grid.send_and_receive([message], timeout=30))
    grid.close()
    assert reply.has_error()


@pytest.mark.parametrize("room", ["server", "clients"])
def test_a_readme_names_every_file_beside_it(room: str) -> None:
    page = kit(room, "README.md")
    text = page.read_text(encoding="utf-8")
    there = {path.name for path in page.parent.iterdir()} - {"README.md", "__init__.py", "__pycache__"}
    assert {name for name in there if name not in text} == set()
