"""The ClientApp of a deployed site: hands opaque bytes to the site's daemon, and its answer back. It knows nothing.

Flower starts a new process for each message, as a user who can read nothing of the site. So this module loads Flower
and a Unix socket, and none of what a site is made of: a bundle that carries other code in its place can at worst send
the daemon messages that it refuses.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import fedgen.flower.environment  # noqa: F401  # isort: skip - before the first import of flwr
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from fedgen.errors import Code, IntegrityError
from fedgen.flower.records import from_record, to_record
from fedgen.site import frames

if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET: Final = "FEDGEN_SITE_SOCKET"
KEY: Final = "socket"  # in Flower's node config
_ANSWER_S: Final = 3600.0  # the coordinator waits as long as the study says; this only ends what hangs
_STARTING_S: Final = 15.0


def relay_app() -> ClientApp:
    """Return a ClientApp that relays opaque bytes to the daemon of this machine's site.

    Guarantees:
        - What it raises would reach the server, text and all; it raises nothing but its operator's interrupt.
        - Where there is no answer, the reply is an error code of Flower's and one word of :class:`fedgen.errors.Code`.
    """
    app = ClientApp()

    @app.train()
    def relay(message: Message, context: Context) -> Message:
        """Hand the bytes to the daemon and its answer back."""
        try:
            answer = forward(from_record(message.content), context.node_config)
            if answer:
                return Message(to_record(answer), reply_to=message)
            code = Code.FAULT
        except KeyboardInterrupt:
            raise
        except IntegrityError as error:
            code = error.code
        except frames.Broken as error:
            code = Code.LATE if error.why == "timeout" else Code.DROPPED
        except BaseException:  # noqa: BLE001 - whatever it is, its text must not travel
            code = Code.FAULT
        return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=str(code)), reply_to=message)

    return app


def forward(request: bytes, config: Mapping[str, object]) -> bytes:
    """Return the answer of the site's daemon.

    Args:
        request: Opaque.
        config: Flower's node config: ``socket`` is the path of the daemon's socket; without it the environment
            says, as ``FEDGEN_SITE_SOCKET``.

    Raises:
        Broken: No socket is named, nobody answers there, or not in time.
    """
    path = config.get(KEY) or os.environ.get(SOCKET)
    if not isinstance(path, str) or not path:
        raise frames.Broken("gone")
    return frames.ask(path, request, timeout=_ANSWER_S, patience=_STARTING_S)
