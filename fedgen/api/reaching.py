"""Whether a coordinator can be reached from here: its name, its port, its certificate, and how its clock differs."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from fedgen.config.server import split_address
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE_S: Final = 5.0
_DAY_S: Final = 86_400
# Flower lets a site's node in while what it signed is between 5 s in the coordinator's future and 305 s in its past.
AHEAD_S: Final = 5.0
BEHIND_S: Final = 305.0


@dataclass(frozen=True, slots=True)
class Reached:
    """What a coordinator's proxy answered.

    Attributes:
        days: Whole days until its certificate ends.
        ahead: Seconds by which this machine's clock is ahead of the coordinator's, to half a second; None where it did
            not say what time it has.
    """

    days: int
    ahead: float | None


def reach(address: str, authority: Path, *, at: tuple[str, int] | None = None) -> Reached:
    """Ask a coordinator's proxy whether it is there, over TLS, as a site's relay does.

    Guarantees:
        - Nothing of this machine is told but that it asked; five seconds at most for each step.

    Args:
        address: ``host:port`` of the coordinator; the certificate must be for this host.
        authority: Certificate that it is checked against, PEM.
        at: Host and port to connect to instead.

    Raises:
        ConfigError: Nobody answers, or somebody else; the hint says where to look.
    """
    named, port = split_address(address)
    host, port = at or (named, port)
    context = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection(host, port, timeout=_PATIENCE_S, context=context)
    try:
        connection.connect()
        ends = ssl.cert_time_to_seconds(str((connection.sock.getpeercert() or {})["notAfter"]))
        connection.request("GET", "/health")
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            hint = "is it the coordinator's nginx that listens there?"
            raise ConfigError(f"answers with status {answer.status}", where=address, hint=hint)
        date = answer.getheader("Date")
    except (OSError, http.client.HTTPException) as error:
        what, hint = _words(error)
        raise ConfigError(what, where=address, hint=hint) from None
    finally:
        connection.close()
    return Reached(int((ends - time.time()) // _DAY_S), None if date is None else _ahead(date))


def _ahead(date: str) -> float | None:
    """Return how far this clock is ahead of a ``Date`` header, which leaves out what is less than a second."""
    try:
        return round((time.time() - parsedate_to_datetime(date).timestamp() - 0.5) * 2) / 2
    except ValueError:
        return None


def check_clock(ahead: float | None) -> str:
    """Return in words how two clocks differ.

    Raises:
        ConfigError: By more than Flower lets a node in.
    """
    if ahead is None:
        return "the coordinator does not say what time it has"
    if not -BEHIND_S < ahead <= AHEAD_S:
        raise ConfigError(
            f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the coordinator's",
            hint=f"a relay is let in up to {AHEAD_S:.0f} s ahead and {BEHIND_S:.0f} s behind: set both clocks by NTP",
        )
    return f"within {max(1.0, abs(ahead)):.0f} s of the coordinator's"


def _words(error: OSError | http.client.HTTPException) -> tuple[str, str]:
    """Return what went wrong on the way to a coordinator, and where to look."""
    if isinstance(error, socket.gaierror):
        return "the host's name is not known on this machine", "check the name server, or /etc/hosts"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there", "is `fedgen server up` running there, and is it this port?"
    if isinstance(error, TimeoutError):
        return (
            f"no answer in {_PATIENCE_S:.0f} s",
            "let the firewalls pass this port from the site to the coordinator",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        what = f"shows a certificate that does not hold: {error.verify_message}"
        hint = "a proxy may open TLS on the way; else the site needs a newer invitation, or a clock is wrong"
        return what, hint
    if isinstance(error, (ssl.SSLError, http.client.HTTPException)):
        return "whoever listens there does not speak as a coordinator does", "is it the right port?"
    reason = (error.strerror or type(error).__name__).lower()
    return f"cannot be reached: {reason}", "check the network between the two machines"
