"""``python -m fedgen.observe.probe [PATH] [ADDRESS]``: exit 0 when a daemon here answers 200, else 1.

For the health check of a container that has neither a shell nor curl.
"""

from __future__ import annotations

import http.client
import sys
from typing import Final

from fedgen.errors import FedgenError
from fedgen.observe.server import DEFAULT, split

_PATIENCE_S: Final = 3.0
_PATHS: Final = ("/health", "/ready")


def probe(path: str = "/health", address: str = DEFAULT) -> bool:
    """Return whether the daemon answers 200 on ``path``; False for everything that goes wrong."""
    if path not in _PATHS:
        return False
    try:
        host, port = split(address, beyond_loopback=True)
        connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE_S)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, FedgenError):
        return False


if __name__ == "__main__":
    raise SystemExit(0 if probe(*sys.argv[1:3]) else 1)
