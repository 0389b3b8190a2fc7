"""The coordinator as a Flower ServerApp: composition only; the library does the work.

``fedgen simulate`` builds its own apps. Coordinating deployed sites is not in this version, and this app says so
instead of pretending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from fedgen.errors import ConfigError
from fedgen.flower.apps import server_app

if TYPE_CHECKING:
    from fedgen.coordinator.transport import Transport


def refuse(_transport: Transport) -> NoReturn:
    """Say in one line that there is no deployment yet.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError("deployment is not in this version", where="server/app.py", hint="use fedgen simulate")


app = server_app(refuse)
