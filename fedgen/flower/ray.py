"""The same two apps on Flower's own simulation engine, for more than one machine (extra ``sim``)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import fedgen.flower.environment  # noqa: F401  # isort: skip - before the first import of flwr

from fedgen.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable

    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp


def run_on_ray(server: ServerApp, client: ClientApp, nodes: int) -> None:
    """Run both apps on Ray to the end of the ServerApp.

    Flower's engine swallows what a ServerApp raises; it is caught inside and raised here.

    Raises:
        MissingExtra: Ray is not installed.
    """
    try:
        import ray  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise MissingExtra("sim", needed_for="--backend ray") from error
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)  # it announces, in colour, what becomes of its own CLI
    raised: list[BaseException] = []
    _remember(server, raised)
    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=nodes,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    if raised:
        raise raised[0]


def _remember(server: ServerApp, raised: list[BaseException]) -> None:
    """Wrap the app's main function so that what it raises is kept."""
    inner: Callable[..., None] | None = server._main  # noqa: SLF001 - pinned Flower, no public way
    if inner is None:
        return

    def main(*arguments: object) -> None:
        try:
            inner(*arguments)
        except BaseException as error:  # noqa: BLE001 - raised again after the engine has ended
            raised.append(error)

    server._main = main  # noqa: SLF001 - see above
