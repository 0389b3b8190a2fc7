"""A site as a Flower ClientApp: composition only; the library does the work.

``fedgen simulate`` builds its own apps. Serving a deployed site is not in this version, and this app says so instead
of pretending.
"""

from __future__ import annotations

from typing import NoReturn

from fedgen.errors import ConfigError
from fedgen.flower.apps import client_app


def refuse(_partition: int) -> NoReturn:
    """Say in one line that there is no deployment yet.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError("deployment is not in this version", where="clients/app.py", hint="use fedgen simulate")


app = client_app(refuse)
