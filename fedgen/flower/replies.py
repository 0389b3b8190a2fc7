"""Replies taken off a SuperLink: whole, within limits, and each for the message that it answers.

Flower's own ``pull_messages`` waits, for up to two hours, for the rest of a reply of which a node has sent a part, and
everybody else's reply waits behind it; it lets through whatever its parser raises for a malformed reply, which ends
the ServerApp; and it joins the parts as often as the reply itself says, however much that makes. One node, faulty or
hostile, could so stop a run. Here a reply that is not whole waits alone, and one that is not right is an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

import fedgen.flower.environment  # noqa: F401  # isort: skip - before the first import of flwr
from flwr.app import Array, Error, Message, Metadata
from flwr.app.message import make_message
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedgen.flower.records import MOST_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, ObjectTree, PullObjectResponse
    from flwr.proto.runtime_pb2 import PullAppMessagesResponse

_ASKED: Final = 8  # replies asked for in one request
_MOST_PARTS: Final = 1024  # of a reply; an envelope of the longest has some 210
_MOST_FRAME: Final = 2**20  # of all parts together that are not the envelope's own bytes
_FIRST_PAUSE_S: Final = 0.15
_LONGEST_PAUSE_S: Final = 2.0


class Link(Protocol):
    """What of a SuperLink's Runtime API a reply needs; the names are Flower's."""

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802
        """Name the replies to some messages that have begun to come in; each is named once."""
        ...

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:  # noqa: N802
        """Return one part, if it is there."""
        ...

    def ConfirmMessageReceived(  # noqa: N802
        self, request: ConfirmMessageReceivedRequest
    ) -> ConfirmMessageReceivedResponse:
        """Have the parts of a reply deleted."""
        ...


class _Broken(Exception):
    """A reply will never be one."""


@dataclass(slots=True)
class _Arriving:
    """A reply that has begun to come in.

    Attributes:
        root: Name of the part that holds all others.
        parts: Names of all parts; the one that was missing last comes first.
        due: Instant of the next look.
        pause: Seconds until the look after that.
    """

    root: str
    parts: list[str]
    due: float = 0.0
    pause: float = _FIRST_PAUSE_S


class Replies:
    """Looks for the replies to messages.

    Guarantees:
        - A reply of which a part is missing holds nobody up: it is looked at again, after pauses that grow to two
          seconds.
        - One reply is in memory at a time, and no more of it than the longest envelope takes, whatever it says.
        - What is not a message, or too large, or lost, is an error reply in its place; nothing of it is raised.
        - A reply counts for the message that the SuperLink knows it for, whatever itself says.

    Args:
        link: The SuperLink.
        run: Flower's number of the run.
        clock: Seconds, never set back.
    """

    def __init__(self, link: Link, run: int, clock: Callable[[], float]) -> None:
        self._link, self._run, self._clock = link, run, clock
        self._asker = Node(node_id=SUPERLINK_NODE_ID)
        self._arriving: dict[str, _Arriving] = {}

    def look(self, names: Collection[str]) -> Iterator[tuple[str, Message]]:
        """Yield the replies that are whole now, each with the name of the message that it answers.

        Args:
            names: Of messages that were pushed and not answered yet.
        """
        rest = iter([name for name in names if name not in self._arriving])
        while asked := list(islice(rest, _ASKED)):
            yield from self._taken(self._begun(asked))
        yield from self._taken([name for name in names if name in self._arriving])

    def _begun(self, names: list[str]) -> list[str]:
        """Ask for the replies to some messages; return those to which there is one, if not a whole one."""
        answer = self._link.PullMessages(PullAppMessagesRequest(message_ids=names))
        begun = []
        for reply, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            name = reply.metadata.reply_to_message_id
            if name in names and name not in self._arriving:  # of two replies to one message, the first
                self._arriving[name] = _Arriving(reply.metadata.message_id, _parts(tree))
                begun.append(name)
        return begun

    def _taken(self, names: list[str]) -> Iterator[tuple[str, Message]]:
        """Yield those that are whole, or will never be."""
        for name in names:
            arriving = self._arriving[name]
            if self._clock() < arriving.due:
                continue
            try:
                message = self._take(arriving)
            except _Broken:
                message = self._error(name)
            if message is None:
                continue
            del self._arriving[name]
            self._link.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(
                    node=self._asker, run_id=self._run, message_object_id=arriving.root
                )
            )
            yield name, message

    def _take(self, arriving: _Arriving) -> Message | None:
        """Return a reply, or None while a part is missing.

        Raises:
            _Broken: It is none.
        """
        if len(arriving.parts) > _MOST_PARTS:
            raise _Broken
        contents: dict[str, bytes] = {}
        size = 0
        for part in arriving.parts:
            found = self._link.PullObject(
                PullObjectRequest(node=self._asker, run_id=self._run, object_id=part)
            )
            if not found.object_found:
                raise _Broken
            if not found.object_available:
                self._wait(arriving, part)
                return None
            contents[part] = found.object_content
            size += len(found.object_content)
            if size > MOST_BYTES + 2 * _MOST_FRAME:  # chunks have heads, too
                raise _Broken
        return _inflated(arriving.root, contents)

    def _wait(self, arriving: _Arriving, missing: str) -> None:
        """Look at a reply later, and first at what was missing: the rest is not read again until that is there."""
        arriving.parts.remove(missing)
        arriving.parts.insert(0, missing)
        arriving.due = self._clock() + arriving.pause
        arriving.pause = min(2 * arriving.pause, _LONGEST_PAUSE_S)

    def _error(self, name: str) -> Message:
        about = Metadata(
            run_id=self._run,
            message_id="",
            src_node_id=SUPERLINK_NODE_ID,
            dst_node_id=SUPERLINK_NODE_ID,
            reply_to_message_id=name,
            group_id="",
            created_at=0.0,
            ttl=0.0,
            message_type="train",
        )
        return make_message(about, error=Error(code=ErrorCode.MESSAGE_UNAVAILABLE, reason="not a reply"))


def _parts(tree: ObjectTree) -> list[str]:
    """Return the names of a reply's parts, what is sent last first; more than there may be, if there are too many."""
    names = islice((part.object_id for part in iterate_object_tree(tree)), _MOST_PARTS + 1)
    return list(dict.fromkeys(names))[::-1]


def _inflated(root: str, contents: dict[str, bytes]) -> Message:
    """Return the message that some parts make.

    Raises:
        _Broken: They make none, or one too large.
    """
    try:
        fits = _joined(contents) <= MOST_BYTES + _MOST_FRAME
        message = inflate_object_from_contents(root, contents) if fits else None
    except Exception:  # noqa: BLE001 - whatever Flower's parsers raise for what a node made up
        message = None
    if not isinstance(message, Message) or message.has_content() == message.has_error():
        raise _Broken
    return message


def _joined(contents: dict[str, bytes]) -> int:
    """Return how many bytes the arrays of a reply take once their chunks are joined, as often as each is named.

    Raises:
        _Broken: What is no chunk of an array is longer together than an envelope's frame.
    """
    joined = frame = 0
    for content in contents.values():
        kind, chunks, _ = get_object_head_values_from_object_content(content)
        frame += 0 if kind == ArrayChunk.__qualname__ else len(content)
        if frame > _MOST_FRAME:
            raise _Broken
        if kind == Array.__qualname__:
            said = json.loads(get_object_body(content, Array))
            joined += sum(len(contents[chunks[index]]) for index in said["arraychunk_ids"])
    return joined
