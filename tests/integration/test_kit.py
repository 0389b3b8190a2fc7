"""The apps of the deployment kit import, are Flower apps, and say honestly that they do nothing yet."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fedgen._resources import kit
from fedgen.errors import ConfigError
from fedgen.flower.grid import InProcessGrid
from fedgen.flower.records import to_record

if TYPE_CHECKING:
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


def test_the_server_app_says_in_one_line_that_there_is_no_deployment() -> None:
    grid = InProcessGrid(_load("clients").app, 1, workers=1)
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    with pytest.raises(ConfigError, match="deployment is not in this version") as refused:
        _load("server").app(grid, context)
    grid.close()
    assert refused.value.exit_code == 3
    assert "fedgen simulate" in str(refused.value)


def test_the_client_app_answers_no_message() -> None:
    grid = InProcessGrid(_load("clients").app, 1, workers=1)
    (node,) = grid.get_node_ids()
    message: Any = Message(to_record(b"x"), dst_node_id=node, message_type="train")
    (reply,) = list(grid.send_and_receive([message], timeout=30))
    grid.close()
    assert reply.has_error()


@pytest.mark.parametrize("room", ["server", "clients"])
def test_a_readme_says_what_is_not_there(room: str) -> None:
    text = kit(room, "README.md").read_text(encoding="utf-8")
    assert "This version" in text
