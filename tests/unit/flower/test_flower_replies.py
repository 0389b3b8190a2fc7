"""Replies off a SuperLink: half ones wait alone, and whatever a node makes up is an error in its place."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_object_head_values_from_object_content,
    get_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given
from hypothesis import strategies as st

from fedgen.errors import Code
from fedgen.flower import replies as replies_module
from fedgen.flower.records import from_record, request, to_record
from fedgen.flower.replies import Replies
from fedgen.flower.transport import _answer
from tests.unit.flower.parts import Parts

if TYPE_CHECKING:
    from flwr.proto.runtime_pb2 import PullAppMessagesResponse

SAFE = "m-of-another"


@dataclass
class FakeLink:
    """A SuperLink that has some replies."""

    replies: dict[str, Message]
    now: float = 0.0
    parts: Parts = field(default_factory=Parts)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.PullObject, self.ConfirmMessageReceived = (
            self.parts.PullObject,
            self.parts.ConfirmMessageReceived,
        )

    def clock(self) -> float:
        return self.now

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802 - Flower's
        self.asked += request.message_ids
        return self.parts.response([self.replies.pop(it) for it in request.message_ids if it in self.replies])


def reply(name: str, data: bytes, node: int = 11) -> Message:
    """Return a node's reply to the message of a name."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, SUPERLINK_NODE_ID, 1
    asked = request(b"ask", node, "round-1")
    asked.metadata.__dict__["_message_id"] = name
    return Message(to_record(data), reply_to=asked)


def looked(link: FakeLink, *names: str) -> list[tuple[str, bytes | Code | None]]:
    """Return what one look brings: bytes, or the code of an error."""
    looker = Replies(link, 7, link.clock)
    return [(name, said(message)) for name, message in looker.look(names)]


def said(message: Message) -> bytes | Code | None:
    answer = _answer(message.metadata.src_node_id, message)
    return answer.code if answer.reply is None else answer.reply


def renamed(contents: dict[str, bytes], root: str, changed: dict[str, bytes]) -> tuple[dict[str, bytes], str]:
    """Return a reply's parts after some were changed, each again under the name that is its digest, and the root."""
    names: dict[str, str] = {}

    def put(name: str) -> str:
        if name not in names:
            content = changed.get(name, contents[name])
            _, below, _ = get_object_head_values_from_object_content(contents[name])
            for child in below:
                content = content.replace(child.encode(), put(child).encode())
            names[name] = hashlib.sha256(content).hexdigest()
            out[names[name]] = content
        return names[name]

    out: dict[str, bytes] = {}
    return out, put(root)


def body_replaced(content: bytes, body: bytes) -> bytes:
    """Return a part with another body, and a head that says its length: the SuperLink checks that."""
    kind, below, _ = get_object_head_values_from_object_content(content)
    return f"{kind} {','.join(below)} {len(body)}".encode() + b"\0" + body


def part_of(link: FakeLink, kind: str) -> str:
    """Return the name of the part of a kind."""
    return next(
        name
        for name, content in link.parts.contents.items()
        if get_object_head_values_from_object_content(content)[0] == kind
    )


def made_up(kind: str, body: bytes) -> FakeLink:
    """Return a link on which one node's reply has a body of its own making, and another's is as it should be."""
    link = FakeLink({"m1": reply("m1", b"one"), SAFE: reply(SAFE, b"safe", 12)})
    begun = link.PullMessages
    bad, good = link.replies["m1"], link.replies[SAFE]

    def pulled(asked: PullAppMessagesRequest) -> PullAppMessagesResponse:
        answer = begun(asked)
        if "m1" not in asked.message_ids:
            return answer
        everything = dict(link.parts.contents)
        link.parts.contents.clear()
        link.parts.response([bad])
        target = part_of(link, kind)
        parts, root = renamed(
            dict(link.parts.contents),
            bad.object_id,
            {target: body_replaced(link.parts.contents[target], body)},
        )
        link.parts.contents |= everything | parts
        link.parts.response([good])
        for proto, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            if proto.metadata.reply_to_message_id == "m1":
                proto.metadata.message_id = root
                tree.CopyFrom(
                    ObjectTree(
                        object_id=root, children=[ObjectTree(object_id=it) for it in parts if it != root]
                    )
                )
                link.parts.know(root, tree)
        return answer

    link.PullMessages = pulled  # type: ignore[method-assign]
    return link


def test_a_whole_reply_is_had_at_once_and_deleted_from_the_link() -> None:
    link = FakeLink({"m1": reply("m1", b"one"), "m2": reply("m2", b"two")})
    assert looked(link, "m1", "m2", "m3") == [("m1", b"one"), ("m2", b"two")]
    assert link.parts.contents == {}


VALUES = st.recursive(
    st.none() | st.integers(-3, 9) | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda it: st.lists(it, max_size=3) | st.dictionaries(st.text(max_size=3), it, max_size=2),
    max_leaves=5,
)
ARRAYS = st.fixed_dictionaries(
    {
        "dtype": st.just("uint8") | VALUES,
        "shape": st.just([3]) | VALUES,
        "stype": st.just("x-fedgen/envelope") | VALUES,
        "arraychunk_ids": st.just([0]) | st.lists(st.integers(-2, 2), max_size=4) | VALUES,
    }
)
BODIES = st.binary(max_size=200) | (VALUES | ARRAYS).map(lambda it: json.dumps(it).encode())


@pytest.mark.parametrize("kind", ["Message", "RecordDict", "ArrayRecord", "Array", "ArrayChunk"])
@given(body=BODIES)
def test_whatever_a_node_makes_up_is_an_error_and_hurts_nobody_else(kind: str, body: bytes) -> None:
    got = dict(looked(made_up(kind, body), "m1", SAFE))
    assert got[SAFE] == b"safe"
    assert kind == "ArrayChunk" or isinstance(got["m1"], Code) or got["m1"] in {b"one", b""}


def test_flowers_own_parser_raises_what_a_node_made_up() -> None:
    """Negative control of the test above: without a guard the ServerApp would end."""
    link = made_up("Array", b"[]")
    answer = link.PullMessages(PullAppMessagesRequest(message_ids=["m1"]))
    with pytest.raises(TypeError):
        inflate_object_from_contents(answer.messages_list[0].metadata.message_id, dict(link.parts.contents))


def test_a_chunk_that_is_named_again_and_again_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies_module, "MOST_BYTES", 1000)
    monkeypatch.setattr(replies_module, "_MOST_FRAME", 9000)
    body = json.dumps(
        {"dtype": "uint8", "shape": [6000], "stype": "x-fedgen/envelope", "arraychunk_ids": [0] * 4000}
    ).encode()
    link = made_up("Array", body)
    assert looked(link, "m1", SAFE) == [("m1", Code.DROPPED), (SAFE, b"safe")]
    # The control: Flower's own parser joins it.
    array = Array("uint8", (3,), "x", b"one")
    (chunk,) = array.children.values()
    parts = {chunk.object_id: chunk.deflate(), "root": body_replaced(array.deflate(), body)}
    assert len(inflate_object_from_contents("root", parts).data) == 12_000


def test_a_reply_of_too_many_parts_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies_module, "_MOST_PARTS", 4)
    link = FakeLink({"m1": reply("m1", b"one")})  # five
    assert looked(link, "m1") == [("m1", Code.DROPPED)]
    assert link.parts.pulls == []


def test_a_reply_that_is_too_long_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies_module, "MOST_BYTES", 1000)
    monkeypatch.setattr(replies_module, "_MOST_FRAME", 1000)
    link = FakeLink({"m1": reply("m1", bytes(range(256)) * 12), SAFE: reply(SAFE, b"safe")})
    assert looked(link, "m1", SAFE) == [("m1", Code.DROPPED), (SAFE, b"safe")]


def test_what_is_no_message_is_an_error() -> None:
    link = FakeLink({"m1": reply("m1", b"one")})
    begun = link.PullMessages

    def pulled(asked: PullAppMessagesRequest) -> PullAppMessagesResponse:
        answer = begun(asked)
        record = part_of(link, "ArrayRecord")
        answer.messages_list[0].metadata.message_id = record
        link.parts.know(record, answer.message_object_trees[0])
        return answer

    link.PullMessages = pulled  # type: ignore[method-assign]
    assert looked(link, "m1") == [("m1", Code.DROPPED)]


def test_a_part_that_is_lost_is_an_error() -> None:
    link = FakeLink({"m1": reply("m1", b"one")})
    link.parts.keep_back = lambda _: True
    looker = Replies(link, 7, link.clock)
    assert list(looker.look(["m1"])) == []
    link.parts.contents.clear()  # as when Flower gives the rest up
    link.now = 1.0
    assert [(name, said(it)) for name, it in looker.look(["m1"])] == [("m1", Code.DROPPED)]


def test_a_reply_counts_for_the_message_that_the_link_knows_it_for() -> None:
    lying = reply(SAFE, b"lie")
    link = FakeLink({"m1": lying})
    begun = link.PullMessages

    def pulled(asked: PullAppMessagesRequest) -> PullAppMessagesResponse:
        answer = begun(asked)
        for proto in answer.messages_list:
            proto.metadata.reply_to_message_id = "m1"  # the SuperLink's own record
        return answer

    link.PullMessages = pulled  # type: ignore[method-assign]
    assert looked(link, "m1", SAFE) == [("m1", b"lie")]


def test_what_was_missing_is_asked_for_first_and_after_growing_pauses() -> None:
    link = FakeLink({"m1": reply("m1", b"one")})
    root = link.replies["m1"].object_id
    link.parts.keep_back = lambda _: True
    looker = Replies(link, 7, link.clock)
    looks = []
    for tenth in range(200):
        link.now = tenth / 10
        before = len(link.parts.pulls)
        assert list(looker.look(["m1"])) == []
        if len(link.parts.pulls) > before:
            looks.append(link.now)
    assert set(link.parts.pulls) == {root}  # the rest is not read until it is there
    assert link.asked == ["m1"]
    gaps = [round(after - before, 3) for before, after in itertools.pairwise(looks)]
    assert gaps == sorted(gaps)
    assert 2.0 <= gaps[-1] < 2.2
    link.parts.until = lambda: True
    link.now = 30.0
    assert [(name, said(it)) for name, it in looker.look(["m1"])] == [("m1", b"one")]


def test_an_error_reply_is_handed_on() -> None:
    it = reply("m1", b"one")
    failed = make_message(it.metadata, error=Error(code=3, reason="secret words"))
    assert looked(FakeLink({"m1": failed}), "m1") == [("m1", Code.DROPPED)]


def test_the_longest_envelope_fits_the_limits() -> None:
    chunk = 5 * 2**20  # Flower's
    assert -(-replies_module.MOST_BYTES // chunk) + 4 < replies_module._MOST_PARTS
    record = ArrayRecord({"envelope": Array("uint8", (3,), "x", b"one")})
    tree = get_object_tree(RecordDict({"fedgen": record}))
    assert replies_module._parts(tree)[0] == tree.object_id  # what is sent last
    assert from_record(to_record(b"one")) == b"one"
