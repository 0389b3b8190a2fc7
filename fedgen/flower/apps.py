"""The two Flower apps. They compose; they hold no logic and no secret of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import fedgen.flower.environment  # noqa: F401  # isort: skip - before the first import of flwr
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp

from fedgen.errors import ConfigError
from fedgen.flower.records import from_record, to_record
from fedgen.flower.superlink import SuperLinkGrid
from fedgen.flower.transport import FlowerTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedgen.coordinator.transport import Transport


def client_app(handle_of: Callable[[int], Callable[[bytes], bytes]]) -> ClientApp:
    """Return a ClientApp that relays opaque bytes to a site.

    Guarantees:
        - Flower sends what a ClientApp raises to the server, text and all; this one raises nothing but an
          operator's interrupt. Where there is no site to answer, the reply is an error code of Flower's.

    Args:
        handle_of: Returns ``Site.handle`` (or the door of a site's daemon) for a partition number.
    """
    app = ClientApp()

    @app.train()
    def relay(message: Message, context: Context) -> Message:
        """Hand the bytes to the site and its answer back."""
        try:
            partition = int(context.node_config["partition-id"])
            answer = handle_of(partition)(from_record(message.content))
            return Message(to_record(answer), reply_to=message)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - also what a Rust extension panics with
            error = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason="fault")
            return Message(error, reply_to=message)

    return app


def server_app(run: Callable[[Transport], None]) -> ServerApp:
    """Return a ServerApp that runs a coordinator over Flower's grid.

    Args:
        run: The coordinator's loop.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, _context: Context) -> None:
        """Run the coordinator over this grid."""
        run(FlowerTransport(grid))

    return app


def superlink_app(run: Callable[[Transport, str, float], None]) -> ServerApp:
    """Return a ServerApp that runs a coordinator over a SuperLink.

    Args:
        run: The coordinator's loop; given the transport, the identity of the run and how long to wait for sites, as
            the run's configuration says.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        """Run the coordinator over this grid."""
        name, wait = context.run_config.get("run"), context.run_config.get("wait")
        if not isinstance(name, str) or not isinstance(wait, (int, float)):
            raise ConfigError("the run's configuration names no run", hint="start it with `fedgen train`")
        link = SuperLinkGrid(grid)
        with link.alive():
            run(FlowerTransport(link), name, float(wait))

    return app
