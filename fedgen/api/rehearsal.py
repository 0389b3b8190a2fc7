"""Faults on purpose: a study may name what its simulated sites do wrong, and when."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from fedgen.crypto.envelope import peek
from fedgen.errors import Code, IntegrityError, Refused
from fedgen.site.monitor import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fedgen.config.training import FaultSpec
    from fedgen.coordinator.transport import Answer, Transport
    from fedgen.site.admit import Admission
    from fedgen.site.train import LocalUpdate, Rows

_GRACE_S = 0.5


class RehearsedSite(Site):
    """A site that does something wrong in the rounds it is told to.

    ``raise`` fails with a defect, ``refuse`` says no, ``nan`` sends an update that is not finite.
    """

    faults: Mapping[int, str] = {}

    def _compute(
        self, admission: Admission, rows: Rows, weights: torch.Tensor, round_number: int
    ) -> LocalUpdate:
        kind = self.faults.get(round_number)
        if kind == "raise":
            raise RuntimeError("a rehearsed defect")
        if kind == "refuse":
            raise Refused("a rehearsed refusal", code=Code.STUDY_REFUSED)
        update = super()._compute(admission, rows, weights, round_number)
        if kind == "nan":
            update.vector[0] = torch.nan
        return update


def late_or_lost(
    handle: Callable[[bytes], bytes], faults: Mapping[int, str], timeout_s: float
) -> Callable[[bytes], bytes]:
    """Return a site's door that answers too late (``late``), or loses the answer (``drop``)."""

    def door(request: bytes) -> bytes:
        kind = _fault_of(request, faults)
        reply = handle(request)
        if kind == "late":
            time.sleep(timeout_s + _GRACE_S)
        if kind == "drop":
            raise ConnectionError("a rehearsed loss")
        return reply

    return door


def _fault_of(request: bytes, faults: Mapping[int, str]) -> str | None:
    """Return the fault rehearsed in the round a request belongs to."""
    try:
        return faults.get(peek(request).round)
    except IntegrityError:
        return None


class Twice:
    """A transport on which some answers arrive twice.

    Args:
        inner: The transport underneath.
        faults: Every rehearsed fault of the study.
    """

    def __init__(self, inner: Transport, faults: Sequence[FaultSpec]) -> None:
        self._inner = inner
        self._twice = {(fault.site, fault.round) for fault in faults if fault.kind == "twice"}

    def nodes(self, expected: int, timeout: float) -> Sequence[int]:
        """Return the nodes present."""
        return self._inner.nodes(expected, timeout)

    def exchange(self, frames: Iterable[tuple[int, bytes]], timeout: float, group: str) -> Iterator[Answer]:
        """Yield what the transport underneath yields, and some of it again."""
        for answer in self._inner.exchange(frames, timeout, group):
            yield answer
            if answer.reply is not None:
                header = peek(answer.reply)
                if (header.sender, header.round) in self._twice:
                    yield answer
