"""The in-process grid runs unmodified Flower apps and keeps Flower's manners."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedgen.flower.grid import InProcessGrid
from fedgen.flower.records import to_record


def _messages(grid: InProcessGrid, nodes: list[int]) -> list[Message]:
    return [Message(to_record(b"x"), dst_node_id=node, message_type="train") for node in nodes]


def _echo() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(message.content, reply_to=message)

    return app


def test_flowers_own_fedavg_runs_on_it_and_sees_every_node_in_round_one() -> None:
    app = ClientApp()
    seen: list[int] = []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        seen.append(int(context.node_config["partition-id"]))
        content = RecordDict(
            {
                "arrays": ArrayRecord([np.full(3, context.node_config["partition-id"], dtype=np.float32)]),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        return Message(content, reply_to=message)

    server = ServerApp()
    result = {}

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=4, min_available_nodes=4)
        result["out"] = strategy.start(
            grid, initial_arrays=ArrayRecord([np.zeros(3, np.float32)]), num_rounds=1
        )

    grid = InProcessGrid(app, 4, workers=2)
    server(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}))
    grid.close()
    assert sorted(seen) == [0, 1, 2, 3]
    np.testing.assert_allclose(result["out"].arrays.to_numpy_ndarrays()[0], np.full(3, 1.5))


def test_replies_come_in_order_and_lazily() -> None:
    grid = InProcessGrid(_echo(), 40, workers=2)
    nodes = grid.get_node_ids()
    replies = grid.send_and_receive(_messages(grid, nodes), timeout=30)
    assert [reply.metadata.src_node_id for reply in replies] == nodes
    grid.close()


def test_no_more_than_a_window_of_replies_is_held() -> None:
    started = []
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        started.append(message.metadata.dst_node_id)
        return Message(message.content, reply_to=message)

    grid = InProcessGrid(app, 200, workers=2)
    replies = iter(grid.send_and_receive(_messages(grid, grid.get_node_ids()), timeout=30))
    next(replies)
    time.sleep(0.2)
    assert len(started) <= 2 * 4 + 1
    grid.close()


def test_an_exception_becomes_an_error_without_its_text() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        raise RuntimeError("patient 4711")

    grid = InProcessGrid(app, 1, workers=1)
    (reply,) = grid.send_and_receive(_messages(grid, grid.get_node_ids()), timeout=30)
    assert reply.has_error()
    assert reply.error.code == 2
    assert "4711" not in str(reply.error)
    grid.close()


def test_a_late_reply_is_dropped_and_the_busy_node_is_not_asked_again() -> None:
    gate = threading.Event()
    calls: list[int] = []
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        node = message.metadata.dst_node_id
        calls.append(node)
        if node == 1000:
            gate.wait(20)
        return Message(message.content, reply_to=message)

    grid = InProcessGrid(app, 3, workers=1)
    nodes = grid.get_node_ids()
    first = [r.metadata.src_node_id for r in grid.send_and_receive(_messages(grid, nodes), timeout=0.3)]
    assert 1000 not in first
    second = [r.metadata.src_node_id for r in grid.send_and_receive(_messages(grid, nodes), timeout=10)]
    assert second == [1001, 1002]
    gate.set()
    deadline = time.monotonic() + 20
    while grid._busy and time.monotonic() < deadline:
        time.sleep(0.01)
    third = [r.metadata.src_node_id for r in grid.send_and_receive(_messages(grid, nodes), timeout=10)]
    assert third == nodes
    grid.close()


def test_a_node_whose_message_never_ran_is_asked_again() -> None:
    gate = threading.Event()
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        gate.wait(20)
        return Message(message.content, reply_to=message)

    grid = InProcessGrid(app, 12, workers=1)
    nodes = grid.get_node_ids()
    assert list(grid.send_and_receive(_messages(grid, nodes), timeout=0)) == []
    gate.set()
    deadline = time.monotonic() + 20
    while grid._busy and time.monotonic() < deadline:
        time.sleep(0.01)
    assert grid._busy == set(), "what was still in the queue when time was up holds no node"
    again = [r.metadata.src_node_id for r in grid.send_and_receive(_messages(grid, nodes), timeout=20)]
    assert again == nodes
    grid.close()


def test_a_reader_that_goes_away_frees_what_was_queued() -> None:
    gate = threading.Event()
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if message.metadata.dst_node_id != 1000:
            gate.wait(20)
        return Message(message.content, reply_to=message)

    grid = InProcessGrid(app, 12, workers=1)
    nodes = grid.get_node_ids()
    replies = grid.send_and_receive(_messages(grid, nodes), timeout=20)
    assert next(iter(replies)).metadata.src_node_id == 1000
    replies.close()  # type: ignore[attr-defined]
    gate.set()
    deadline = time.monotonic() + 20
    while grid._busy and time.monotonic() < deadline:
        time.sleep(0.01)
    again = [r.metadata.src_node_id for r in grid.send_and_receive(_messages(grid, nodes), timeout=20)]
    assert again == nodes
    grid.close()


def test_one_node_handles_one_message_at_a_time() -> None:
    inside: dict[int, int] = {}
    overlaps: list[int] = []
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        node = message.metadata.dst_node_id
        inside[node] = inside.get(node, 0) + 1
        if inside[node] > 1:
            overlaps.append(node)
        time.sleep(0.01)
        inside[node] -= 1
        return Message(message.content, reply_to=message)

    grid = InProcessGrid(app, 4, workers=4)
    nodes = grid.get_node_ids()
    for _ in range(3):
        list(grid.send_and_receive(_messages(grid, nodes), timeout=10))
    assert overlaps == []
    grid.close()


def test_push_and_pull_match() -> None:
    grid = InProcessGrid(_echo(), 2, workers=1)
    names = list(grid.push_messages(_messages(grid, grid.get_node_ids())))
    deadline = time.monotonic() + 10
    replies: list[Message] = []
    while len(replies) < 2 and time.monotonic() < deadline:
        replies += grid.pull_messages(names)
        time.sleep(0.01)
    assert sorted(r.metadata.src_node_id for r in replies) == [1000, 1001]
    assert grid.pull_messages(names) == []
    grid.close()


@pytest.mark.parametrize("size", [0, 1, 6_000_000])
def test_records_are_inverse(size: int) -> None:
    from fedgen.flower.records import from_record

    envelope = bytes(size)
    assert from_record(to_record(envelope)) == envelope
