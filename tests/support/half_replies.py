"""A SuperNode that sends a part of each reply and believes that it sent the rest: a hostile site's, or a sick one's.

Run as a program, with the arguments of ``flower-supernode``.
"""

from __future__ import annotations

from typing import Any

from flwr.proto.message_pb2 import PushObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content
from flwr.supernode.fleet_http_client import FleetHttpClient

from fedgen.flower.supernode import main

_push = FleetHttpClient.PushObject


def _half(client: FleetHttpClient, request: Any) -> Any:
    kind, _, _ = get_object_head_values_from_object_content(request.object_content)
    if kind != "Message":
        return _push(client, request)
    print("kept back", flush=True)  # noqa: T201 - the test waits for it
    return PushObjectResponse(stored=True)


if __name__ == "__main__":
    FleetHttpClient.PushObject = _half  # type: ignore[method-assign]
    main()
