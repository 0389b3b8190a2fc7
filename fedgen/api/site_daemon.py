"""``fedgen site serve``: the life of a site's daemon, from its checks to its end."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from fedgen._signals import ENDING, heard
from fedgen.api.serving import check_reach, composed, serving_alone, socket_of, tell_supervisor, users_of
from fedgen.crypto.envelope import peek
from fedgen.crypto.undumped import keep_memory
from fedgen.enrolment.site_home import SiteHome
from fedgen.errors import IntegrityError
from fedgen.messages import Kind
from fedgen.observe import Door, Logs, Meters, Outcome, Probes, Reason, Said, Span, span, start, traces
from fedgen.site.daemon import Counts, Daemon
from fedgen.site.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fedgen.config.site import SiteSpec
    from fedgen.observe.words import Fields
    from fedgen.site.daemon import Away
    from fedgen.site.monitor import Site

_PART: Final = "site"
_SIGNALS: Final = (*ENDING, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Served:
    """What a daemon did from its first request to the signal that stopped it.

    Attributes:
        site: The site's name.
        socket: Where it listened.
        answered: Requests that were answered; a refusal is an answer.
        away: Connections that brought no request that was answered, by why.
    """

    site: str
    socket: Path
    answered: int
    away: dict[str, int]


def serve(root: Path, *, ready: Callable[[Path], None] | None = None, limits: Limits | None = None) -> Served:
    """Serve the site of a home until SIGTERM, and return what was served; call it on the main thread.

    Guarantees:
        - Nothing listens before everything was checked and everything heavy was loaded.
        - One daemon serves a home.
        - When it is told to stop, the request that is being answered is finished and its answer sent; no other begins.

    Args:
        root: The site's home.
        ready: Told where the daemon listens, once it does.
        limits: What is let in; None takes the defaults, with the site's largest request.

    Raises:
        ConfigError: As :func:`fedgen.api.serving.composed`; or another daemon serves the home or the socket.
        IntegrityError: As there.
        Refused: As there.
    """
    keep_memory()
    home = SiteHome(root.resolve())
    with ExitStack() as stack:
        stack.callback(os.umask, os.umask(0o077))
        lock = stack.enter_context(serving_alone(home))
        spec = home.spec()
        check_reach(spec, home)
        watching = stack.enter_context(_watched(spec))
        watching.logs.say(Said.STARTED)
        serving = stack.enter_context(composed(home))
        users, group = users_of(spec, home)
        daemon = Daemon(
            watching.of(serving.site),
            socket_of(spec, home),
            users=users,
            group=group,
            limits=replace(limits or Limits(), request=spec.largest_request),
            watcher=watching,
        )
        daemon.listen()
        stack.enter_context(heard(daemon.stop, _SIGNALS))
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        stack.callback(os.ftruncate, lock, 0)
        watching.probes.set(_PART, None)
        watching.logs.say(Said.READY, site=serving.name)
        tell_supervisor("READY=1")
        if ready is not None:
            ready(daemon.path)
        daemon.serve()
        tell_supervisor("STOPPING=1")
        watching.probes.set(_PART, Reason.STOPPING)
        watching.logs.say(Said.STOPPED)
        away = {str(why): count for why, count in watching.counts.away.items()}
        return Served(serving.name, daemon.path, watching.counts.answers, away)


@dataclass(slots=True)
class Watching:
    """What an operator sees of a daemon: probes, metrics, a log of closed words.

    Attributes:
        probes: Whether it is ready.
        meters: What is counted.
        logs: What is said.
        counts: What came to the door.
    """

    probes: Probes
    meters: Meters
    logs: Logs
    counts: Counts = field(default_factory=Counts)

    def of(self, site: Site) -> Callable[[bytes], bytes]:
        """Return ``site.handle``, counted by kind; the kind is the sender's claim until the site has looked."""

        def handle(request: bytes) -> bytes:
            began = time.monotonic()
            with span("message") as traced:
                answer = site.handle(request)
                self._answered(site, request, answer, time.monotonic() - began, traced)
            return answer

        return handle

    def _answered(self, site: Site, request: bytes, answer: bytes, seconds: float, traced: Span) -> None:
        with suppress(IntegrityError):
            asked = peek(request).kind
            header = peek(answer)
            refused = header.kind is Kind.REFUSAL
            code, incident = (site.last_refusal if refused else None) or (None, None)
            self.meters.message(asked, seconds, len(request), len(answer), code)
            fields: Fields = {"study": header.study_hash or None, "round": header.round, "kind": asked}
            fields |= {"code": code, "incident": incident, "seconds": round(seconds, 3)}
            traced.note(**fields)
            if refused:
                self.logs.warning(Said.REFUSED, **fields)
            elif header.kind in {Kind.TRAINED, Kind.STEPPED}:
                self.logs.say(Said.ROUND_TRAINED, **fields)
            if asked in {Kind.TRAIN, Kind.STEP}:
                self.meters.round(Outcome.REFUSED if refused else Outcome.TRAINED, seconds)

    def answered(self, seconds: float, size: int) -> None:
        """As :meth:`fedgen.site.daemon.Watcher.answered`; metrics are counted in :meth:`of`, by kind."""
        self.counts.answered(seconds, size)

    def turned_away(self, why: Away) -> None:
        """As :meth:`fedgen.site.daemon.Watcher.turned_away`."""
        door = Door.TIMEOUT if why == "gone" else Door(why)
        self.counts.turned_away(why)
        self.meters.turned_away(door)


@contextmanager
def _watched(spec: SiteSpec) -> Iterator[Watching]:
    """Serve probes and metrics for the length of the block, where the site's file asks for it."""
    observe = spec.observe
    probes = Probes()
    probes.expect(_PART)
    meters = Meters("site", wanted=observe is None or observe.metrics)
    logs = Logs("site", "text" if observe is None else observe.logs)
    watching = Watching(probes, meters, logs)
    with ExitStack() as stack:
        stack.enter_context(logs.adopted())  # what a library says of a query may hold a row
        if observe is not None:
            if observe.traces is not None:
                stack.enter_context(traces(observe.traces, "site"))
            stack.enter_context(
                start(observe.address, probes, meters, beyond_loopback=observe.beyond_loopback)
            )
        yield watching
