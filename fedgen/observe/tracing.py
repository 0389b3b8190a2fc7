"""Traces of rounds, for OpenTelemetry: names, hashes, seconds and codes. Without the extra ``otel`` they cost nothing.

No context travels to another party: a trace identifier in a message would be one more thing that links runs.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from fedgen.errors import ConfigError, FedgenError, MissingExtra, code_of
from fedgen.observe.words import Fields, Role, fitting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Unpack

Step = Literal["study", "join", "round", "train", "message", "aggregate", "checkpoint"]
STEPS: Final = ("study", "join", "round", "train", "message", "aggregate", "checkpoint")
_LOOPBACK: Final = {"127.0.0.1", "::1", "localhost"}
_FLUSH_MS: Final = 3000
_tracers: list[Any] = []


class Span:
    """A step that is being traced."""

    def __init__(self, inner: Any = None) -> None:
        self._inner = inner

    def note(self, **fields: Unpack[Fields]) -> None:
        """Add what became known; only what fits its key is kept."""
        if self._inner is not None:
            self._inner.set_attributes({f"fedgen.{key}": value for key, value in fitting(fields).items()})


@contextmanager
def span(step: Step, **fields: Unpack[Fields]) -> Iterator[Span]:
    """Trace the block as one step.

    Guarantees:
        - Nothing happens unless :func:`traces` was called.
        - An error that passes adds its code, never its text or its frames.
    """
    if not _tracers:
        yield Span()
        return
    name = f"fedgen.{step}" if step in STEPS else "fedgen.other"
    options = {"record_exception": False, "set_status_on_exception": False}
    with _tracers[-1].start_as_current_span(name, **options) as inner:
        traced = Span(inner)
        traced.note(**fields)
        try:
            yield traced
        except Exception as error:
            traced.note(code=code_of(error))
            _mark(inner)
            raise


def _mark(inner: Any) -> None:
    from opentelemetry.trace import Status, StatusCode

    inner.set_status(Status(StatusCode.ERROR))


@contextmanager
def traces(endpoint: str, role: Role, *, exporter: Any = None) -> Iterator[None]:
    """Send the spans of the block to a collector.

    Args:
        endpoint: URL of an OTLP receiver over HTTP; ``https``, or ``http`` on loopback, and without a password.
        role: Whose spans.
        exporter: Another place for them, for tests.

    Raises:
        MissingExtra: The extra ``otel`` is not installed.
        ConfigError: The address is none of these.
    """
    check_endpoint(endpoint)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MissingExtra("otel", needed_for="traces") from None
    # Not Resource.create: that would add the machine's and the process's own facts.
    provider = TracerProvider(resource=Resource({"service.name": f"fedgen-{role}"}), shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=endpoint, timeout=3))
    )
    _tracers.append(provider.get_tracer("fedgen"))
    try:
        yield
    finally:
        _tracers.pop()
        provider.force_flush(_FLUSH_MS)
        provider.shutdown()


def check_endpoint(endpoint: str) -> None:
    """Refuse an address that would carry spans, or a password, in clear.

    Raises:
        ConfigError: As :func:`traces`.
    """
    flaw: FedgenError | None = None
    try:
        url = urlsplit(endpoint)
        fits = url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOOPBACK)
        plain = url.username is None and url.password is None and bool(url.hostname) and url.port != 0
        if not (fits and plain):
            flaw = _bad_endpoint()
    except ValueError:
        flaw = _bad_endpoint()
    if flaw is not None:
        raise flaw


def _bad_endpoint() -> ConfigError:
    return ConfigError(
        "is not an https address without a password",
        key="observe.traces",
        hint="such as https://collector.example.org:4318/v1/traces, or http on loopback",
    )
