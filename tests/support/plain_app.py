"""A Flower app that seals nothing: what an update looks like on a SuperLink when nobody protects it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

METRIC = "plantedmetric"
NAME = "p0007-planted-identifier"
_PROJECT = """\
[project]
name = "plain"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "nobody"

[tool.flwr.app.components]
serverapp = "plain.app:server"
clientapp = "plain.app:client"

[tool.flwr.app.config]
"""
_APP = """\
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()

@client.train()
def train(message, context):
    update = np.arange(64, dtype=np.float32) * 0.37 + 0.123
    return Message(RecordDict({
        "arrays": ArrayRecord([update]),
        "metrics": MetricRecord({"METRIC": 0.5}),
        "who": ConfigRecord({"who": "NAME"}),
    }), reply_to=message)

@server.main()
def main(grid, context):
    content = RecordDict({"arrays": ArrayRecord([np.zeros(4, dtype=np.float32)])})
    asked = [Message(content, dst_node_id=node, message_type="train") for node in grid.get_node_ids()]
    list(grid.send_and_receive(asked, timeout=60))
"""


def write_app(folder: Path) -> Path:
    """Write the app; return its folder."""
    (folder / "plain").mkdir(parents=True)
    (folder / "pyproject.toml").write_text(_PROJECT, encoding="utf-8")
    (folder / "plain" / "__init__.py").write_text("", encoding="utf-8")
    (folder / "plain" / "app.py").write_text(
        _APP.replace("METRIC", METRIC).replace("NAME", NAME), encoding="utf-8"
    )
    return folder


def planted() -> list[bytes]:
    """Return what such an app sends in clear: some numbers of an update, a metric's name, an identifier."""
    import numpy as np

    update = (np.arange(64, dtype=np.float32) * np.float32(0.37) + np.float32(0.123)).astype(np.float32)
    return [update.tobytes()[16:48], METRIC.encode(), NAME.encode()]
