"""Node keys follow the enrolled sites, whatever stops whoever registers them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fedgen.errors import ConfigError, IntegrityError
from fedgen.flower.control import Control
from fedgen.flower.nodes import Nodes, read_nodes

if TYPE_CHECKING:
    from pathlib import Path


class FakeControl(Control):
    """A SuperLink that knows its nodes, and may end the caller in between."""

    def __init__(self) -> None:
        self.known: dict[int, str] = {}
        self.last = 100
        self.fails_after: int | None = None

    def nodes(self) -> dict[int, str]:
        return dict.fromkeys(self.known, "online")

    def register(self, public_key: Path, name: str) -> int:
        key = public_key.read_text().strip()
        if key in self.known.values():
            raise ConfigError("Flower refused: the key is in use")
        self.last += 1
        self.known[self.last] = key
        if self.fails_after is not None:
            self.fails_after -= 1
            if self.fails_after < 0:
                raise KeyboardInterrupt
        return self.last

    def unregister(self, node: int) -> None:
        self.known.pop(node, None)


def test_new_sites_are_admitted_and_revoked_ones_shut_out(tmp_path: Path) -> None:
    link = FakeControl()
    nodes = Nodes(tmp_path, link)
    assert nodes.differ({"a": "key a"})
    assert nodes.follow({"a": "key a", "b": "key b"}) == (["a", "b"], [])
    assert not nodes.differ({"a": "key a", "b": "key b"})
    assert sorted(link.known.values()) == ["key a", "key b"]
    again = Nodes(tmp_path, link)
    assert not again.differ({"a": "key a", "b": "key b"})
    assert again.follow({"b": "key b"}) == ([], ["a"])
    assert list(link.known.values()) == ["key b"]
    assert again.follow({"b": "another key"}) == (["b"], ["b"])
    assert list(link.known.values()) == ["another key"]
    assert read_nodes(tmp_path)["b"].node in link.known


def test_a_registration_that_was_cut_off_is_found_again(tmp_path: Path) -> None:
    link = FakeControl()
    link.fails_after = 1
    with pytest.raises(KeyboardInterrupt):
        Nodes(tmp_path, link).follow({"a": "key a", "b": "key b"})
    link.fails_after = None
    nodes = Nodes(tmp_path, link)
    assert nodes.differ({"a": "key a", "b": "key b"})
    nodes.follow({"a": "key a", "b": "key b"})
    assert sorted(link.known.values()) == ["key a", "key b"]
    assert {it.node for it in read_nodes(tmp_path).values()} == set(link.known)


def test_a_superlink_that_forgot_everything_is_told_again(tmp_path: Path) -> None:
    link = FakeControl()
    Nodes(tmp_path, link).follow({"a": "key a"})
    link.known.clear()
    nodes = Nodes(tmp_path, link)
    nodes.follow({"a": "key a"})
    assert list(link.known.values()) == ["key a"]


def test_nodes_that_nobody_knows_are_shut_out(tmp_path: Path) -> None:
    link = FakeControl()
    link.known[5] = "a stranger's key"
    Nodes(tmp_path, link).follow({"a": "key a"})
    assert list(link.known.values()) == ["key a"]


def test_a_damaged_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "nodes.json").write_text("{")
    with pytest.raises(IntegrityError, match="no list of nodes"):
        read_nodes(tmp_path)
