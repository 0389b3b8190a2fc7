"""What of this process's environment goes on to the processes it starts: a closed list of names, and nothing else.

Whoever starts ``fedgen server up`` or ``fedgen site relay`` may have a token or a key in the environment, for another
program. Flower's processes run code that came over the network, and any process of the same user can read
``/proc/PID/environ``; so they get what they need, by name.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from fedgen.config.password import variable_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_NEEDED: Final = re.compile(
    r"PATH|HOME|LANG|LC_[A-Z]+|TZ|TMPDIR|VIRTUAL_ENV|PYTHONPATH|PYTHONDONTWRITEBYTECODE|LD_LIBRARY_PATH|"
    r"OMP_NUM_THREADS|MKL_NUM_THREADS|OPENBLAS_NUM_THREADS"
)
# For who calls out. The address of a proxy may hold a password, so no other process gets it.
_OUTWARD: Final = re.compile(r"(https?|no|all)_proxy|(HTTPS?|NO|ALL)_PROXY")
# What libpq reads, as the chapter "Environment Variables" of PostgreSQL's manual has it, and Kerberos's own two.
_POSTGRESQL: Final = re.compile(
    r"PG(HOST|HOSTADDR|PORT|DATABASE|USER|PASSWORD|PASSFILE|REQUIREAUTH|CHANNELBINDING|SERVICE|SERVICEFILE|OPTIONS|"
    r"APPNAME|SSLMODE|SSLNEGOTIATION|SSLCERT|SSLKEY|SSLCERTMODE|SSLROOTCERT|SSLCRL|SSLCRLDIR|SSLSNI|REQUIREPEER|"
    r"SSLMINPROTOCOLVERSION|SSLMAXPROTOCOLVERSION|GSSENCMODE|KRBSRVNAME|GSSLIB|GSSDELEGATION|CONNECT_TIMEOUT|"
    r"CLIENTENCODING|TARGETSESSIONATTRS|LOADBALANCEHOSTS|SYSCONFDIR)|KRB5CCNAME|KRB5_CONFIG"
)


def passed(*, outward: bool = False) -> dict[str, str]:
    """Return what every process that is started may have: where programs and files are, language, threads.

    Args:
        outward: Whether it calls other machines, and needs to know a proxy.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if _NEEDED.fullmatch(name) or (outward and _OUTWARD.fullmatch(name))
    }


def passed_for_state(state: str, password: str | None) -> Mapping[str, str]:
    """Return what a ServerApp needs beside :func:`passed` to open the state: nothing where that is a file.

    Args:
        state: Address of the state.
        password: Where its password lies, ``env:NAME`` or ``file:PATH``, or None.
    """
    named = variable_of(password)
    if not state.startswith("postgresql"):
        return {}
    return {name: value for name, value in os.environ.items() if _POSTGRESQL.fullmatch(name) or name == named}
