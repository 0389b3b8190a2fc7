"""What an operator may watch: health, readiness, metrics, logs and traces; none of it holds data or a secret.

Everything here is closed: the names of metrics, the keys of a log line, the reasons for not being ready. A value that
does not fit its key is not shown. Importing this room loads the standard library only; the extras ``observe``
(Prometheus) and ``otel`` (OpenTelemetry) are loaded when they are asked for.
"""

from __future__ import annotations

from fedgen.observe.health import Probes
from fedgen.observe.logs import Logs
from fedgen.observe.metrics import Meters
from fedgen.observe.server import Served, start
from fedgen.observe.tracing import Span, span, traces
from fedgen.observe.words import Child, Door, Outcome, Reason, Role, Said

__all__ = [
    "Child",
    "Door",
    "Logs",
    "Meters",
    "Outcome",
    "Probes",
    "Reason",
    "Role",
    "Said",
    "Served",
    "Span",
    "span",
    "start",
    "traces",
]
