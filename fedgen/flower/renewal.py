"""The server's certificate while the server runs: made again before it ends, and put into use by the proxy.

nginx takes a new one in when it is told to (SIGHUP), and what is on its way goes on. Flower's SuperLink reads its
certificate when it starts and never again, and to start it again in the middle of a round can cost the round; so it has
one of its own, for loopback alone, that need not be renewed (:func:`fedgen.enrolment.authority.renew_inner`).
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fedgen.config.server import split_address
from fedgen.crypto.certificates import read_certificate
from fedgen.enrolment.authority import renew, renew_inner
from fedgen.enrolment.places import alone
from fedgen.errors import FedgenError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fedgen.config.server import ServerSpec
    from fedgen.crypto.certificates import Certificate
    from fedgen.enrolment.server_home import ServerHome
    from fedgen.flower.children import Kept

_PATIENCE_S: Final = 3.0
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound to, but called


def shown_at(address: str, patience: float = _PATIENCE_S) -> Certificate | None:
    """Return the certificate that a server shows, or None if it shows none; nothing is believed and nothing sent.

    Args:
        address: ``host:port`` that it listens on; every interface is this machine.
        patience: Seconds to wait.
    """
    host, port = split_address(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # looked at, whatever it is
    try:
        with (
            socket.create_connection((_ANYWHERE.get(host, host), port), patience) as plain,
            context.wrap_socket(plain) as secured,
        ):
            found = secured.getpeercert(binary_form=True)
        return None if found is None else read_certificate(ssl.DER_cert_to_PEM_cert(found).encode("ascii"))
    except (OSError, FedgenError):
        return None


class Renewal:
    """Looks after the certificate of a server that runs.

    Guarantees:
        - It is made again when a quarter of its time is left, for the address that the server was started with.
        - What the proxy shows is compared with what is on the disk, so a change by `fedgen keys rotate tls` is put into
          use too, and so is one that it missed.
        - When the authority was changed, every process is started again: under the old one nothing would connect.
        - What goes wrong is said, once, and tried again.

    Args:
        home: The coordinator's home.
        spec: Its file, as the server was started with.
        said: Hears what happens, in one word, and to whom.
        kept: Every process.
        proxy: The reverse proxy among them, where it is one of ours.
    """

    def __init__(
        self,
        home: ServerHome,
        spec: ServerSpec,
        said: Callable[[str, str], None],
        kept: Sequence[Kept],
        proxy: Kept | None,
    ) -> None:
        self._home, self._spec, self._said = home, spec, said
        self._kept, self._proxy = kept, proxy
        self._authority: str | None = None
        self._failed = ""

    def look(self) -> None:
        """Make the certificate again if it is time, and have it shown."""
        now = datetime.now(UTC)
        try:
            with alone(self._home.root):  # not while `fedgen keys rotate` is half-way
                authority = read_certificate(self._home.ca.certificate.read_bytes()).fingerprint
                another = self._authority not in {None, authority}
                if another:
                    renew_inner(self._home, now)
                if renew(self._home, now, spec=self._spec):
                    self._said("renewed", "certificate")
                ours = read_certificate(self._home.tls.certificate.read_bytes())
        except (FedgenError, OSError) as error:
            if str(error) != self._failed:
                self._said("renew-failed", str(error))
            self._failed = str(error)
            return
        self._failed, self._authority = "", authority
        if another:
            for kept in reversed(self._kept):
                kept.again()
        elif self._proxy is not None:
            self._show(ours, self._proxy)

    def _show(self, ours: Certificate, proxy: Kept) -> None:
        """Have the proxy show the certificate that is on the disk."""
        shown, number = shown_at(self._spec.listens_on), proxy.pid
        if shown is None or number is None or shown.fingerprint == ours.fingerprint:
            return
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGHUP)
            self._said("reloaded", proxy.child.name)
