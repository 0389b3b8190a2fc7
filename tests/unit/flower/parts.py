"""What a SuperLink keeps of replies: parts under their names, some of which may not be there yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, ObjectTree, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from flwr.app import Message
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest


class Parts:
    """Parts of replies by name.

    Attributes:
        contents: What is kept.
        keep_back: Says of which replies the last part is not there...
        until: ... until it says so.
        pulls: Names that were asked for.
    """

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.keep_back: Callable[[Message], bool] = lambda _: False
        self.until: Callable[[], bool] = lambda: False
        self.pulls: list[str] = []
        self._kept_back: set[str] = set()
        self._trees: dict[str, ObjectTree] = {}

    def response(self, replies: list[Message]) -> PullAppMessagesResponse:
        """Return what names some replies, and keep their parts."""
        protos, trees = [], []
        for reply in replies:
            reply.metadata.__dict__["_message_id"] = reply.object_id
            parts = {name: part.deflate() for name, part in get_all_nested_objects(reply).items()}
            self.contents |= parts
            if self.keep_back(reply):
                self._kept_back.add(reply.object_id)
            trees.append(get_object_tree(reply))
            self._trees[reply.object_id] = trees[-1]
            protos.append(message_to_proto(remove_content_from_message(reply)))
        return PullAppMessagesResponse(messages_list=protos, message_object_trees=trees)

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:  # noqa: N802 - Flower's
        """Return a part."""
        name = request.object_id
        self.pulls.append(name)
        if name not in self.contents:
            return PullObjectResponse(object_found=False)
        if name in self._kept_back and not self.until():
            return PullObjectResponse(object_found=True, object_available=False)
        return PullObjectResponse(
            object_found=True, object_available=True, object_content=self.contents[name]
        )

    def know(self, name: str, tree: ObjectTree) -> None:
        """Take another tree for a reply's."""
        self._trees[name] = tree

    def ConfirmMessageReceived(  # noqa: N802 - Flower's
        self, request: ConfirmMessageReceivedRequest
    ) -> ConfirmMessageReceivedResponse:
        """Forget a reply."""
        for part in iterate_object_tree(self._trees[request.message_object_id]):
            self.contents.pop(part.object_id, None)
        return ConfirmMessageReceivedResponse()
