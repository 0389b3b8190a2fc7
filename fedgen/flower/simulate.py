"""Runs a ServerApp and a ClientApp in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fedgen.flower.environment  # noqa: F401  # isort: skip - before the first import of flwr
from flwr.app import Context, RecordDict

from fedgen.flower.grid import InProcessGrid

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp


def run_in_process(server: ServerApp, client: ClientApp, nodes: int, workers: int) -> None:
    """Run both apps to the end of the ServerApp; what it raises is raised here.

    Args:
        server: The ServerApp, run in the calling thread.
        client: The ClientApp every node runs.
        nodes: Number of nodes.
        workers: Threads that run nodes.
    """
    grid = InProcessGrid(client, nodes, workers=workers)
    context = Context(run_id=grid.run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config={})
    try:
        server(grid, context)
    finally:
        grid.close()
