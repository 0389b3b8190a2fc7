"""Opt-out signals of browsers and apps: Global Privacy Control, and California's section of an IAB GPP string.

A signal only ever restricts. "Did not opt out" is silence, not an opt-in, and what is not understood is refused.

Source: GPC, W3C Privacy WG, section 3 (``Sec-GPC: 1`` and no other value; ``/.well-known/gpc.json``); IAB Tech Lab,
Global Privacy Platform String 1.0 (header, Fibonacci ranges, base64url) and California Privacy Technical
Specification 1.0 (section 8, ``usca``); 11 CCR 7025.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fedgen.errors import DataError
from fedgen.policy.store.database import driver_rows
from fedgen.policy.store.events import RightSaid

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from fedgen.policy.store.store import ConsentStore

USCA: Final = 8
_LONGEST: Final = 4096
_HINT: Final = "send the GPP string as the platform gave it"
_FIELDS: Final = (
    ("version", 6, 1),
    ("sale_opt_out_notice", 2, 1),
    ("sharing_opt_out_notice", 2, 1),
    ("sensitive_data_limit_use_notice", 2, 1),
    ("sale_opt_out", 2, 1),
    ("sharing_opt_out", 2, 1),
    ("sensitive_data_processing", 2, 9),
    ("known_child_sensitive_data_consents", 2, 2),
    ("personal_data_consents", 2, 1),
    ("mspa_covered_transaction", 2, 1),
    ("mspa_opt_out_option_mode", 2, 1),
    ("mspa_service_provider_mode", 2, 1),
)
_OPTED_OUT: Final = 1
_NO_VALUE: Final = 3
_FAMILY: Final = ("opt_out_sale_share", "gpc", "opt_in_sale_share")
_LIMITS: Final = ("limit_sensitive", "limit_sensitive_lifted")


@dataclass(frozen=True, slots=True)
class UsCa:
    """California's section; 0 is not applicable, 1 opted out or no consent, 2 did not opt out or consent.

    Attributes:
        sale_opt_out: Of the sale of personal information.
        sharing_opt_out: Of its sharing.
        sensitive_data_processing: Of the use of each of nine kinds of sensitive information.
        known_child_sensitive_data_consents: To sale and to sharing, under 16.
        personal_data_consents: To uses incompatible with the purpose of collection.
        gpc: What the GPC sub-section says; None without one.
    """

    sale_opt_out: int
    sharing_opt_out: int
    sensitive_data_processing: tuple[int, ...]
    known_child_sensitive_data_consents: tuple[int, ...]
    personal_data_consents: int
    gpc: bool | None

    def rights(self) -> tuple[str, ...]:
        """Return the rights events it stands for."""
        kinds = []
        if self.gpc:
            kinds.append("gpc")
        minors = self.known_child_sensitive_data_consents
        if _OPTED_OUT in {self.sale_opt_out, self.sharing_opt_out, *minors}:
            kinds.append("opt_out_sale_share")
        if _OPTED_OUT in self.sensitive_data_processing:
            kinds.append("limit_sensitive")
        return tuple(kinds)


def gpc_in_headers(headers: Mapping[str, str]) -> bool:
    """Return whether a request carries the signal: ``Sec-GPC`` is exactly ``1``; any other value is no signal."""
    return any(name.lower() == "sec-gpc" and value.strip() == "1" for name, value in headers.items())


def gpc_in_json(said: Any) -> bool:
    """Return whether an object such as ``{"gpc": true}`` carries the signal."""
    return isinstance(said, dict) and said.get("gpc") is True


def usca_of(gpp: str) -> UsCa | None:
    """Return California's section of a GPP string, or None if it has none.

    Args:
        gpp: A whole string, header first, such as ``DBABBg~BUUAAAAA.YA``.

    Raises:
        DataError: The string, or the section, is not understood.
    """
    if len(gpp) > _LONGEST:
        raise DataError("a GPP string that is too long", key="gpp", hint=_HINT)
    head, *sections = gpp.split("~")
    ids = _section_ids(_bits(head))
    if len(ids) != len(sections):
        raise DataError("a GPP header that names other sections", key="gpp", hint=_HINT)
    return parse_usca(sections[ids.index(USCA)]) if USCA in ids else None


def parse_usca(section: str) -> UsCa:
    """Return a ``usca`` section, version 1: the core segment, and at most one GPC segment after a dot.

    Raises:
        DataError: Another version, an unknown segment or value, or too few or too many bits.
    """
    core, *segments = section.split(".")
    bits = _bits(core)
    width = sum(size * count for _, size, count in _FIELDS)
    if not width <= len(bits) < width + 8 or "1" in bits[width:]:
        raise DataError("a usca section of another length", key="gpp", hint=_HINT)
    values: dict[str, list[int]] = {}
    at = 0
    for name, size, count in _FIELDS:
        values[name] = [int(bits[at + i * size : at + (i + 1) * size], 2) for i in range(count)]
        at += size * count
    if values.pop("version") != [1]:
        raise DataError("a usca section of another version", key="gpp", hint="version 1 is understood")
    if any(_NO_VALUE in field for field in values.values()):
        raise DataError("a usca section with a value that means nothing", key="gpp", hint=_HINT)
    return UsCa(
        sale_opt_out=values["sale_opt_out"][0],
        sharing_opt_out=values["sharing_opt_out"][0],
        sensitive_data_processing=tuple(values["sensitive_data_processing"]),
        known_child_sensitive_data_consents=tuple(values["known_child_sensitive_data_consents"]),
        personal_data_consents=values["personal_data_consents"][0],
        gpc=_gpc(segments),
    )


def receive(
    store: ConsentStore, subject_id: str, kinds: tuple[str, ...], *, at: datetime, source: str
) -> tuple[str, ...]:
    """Write down signals of a person that say something new, and return which these are.

    A browser sends its signal with every request. While the person's last word in the matter is an opt-out already, it
    is not written again; after an opt-in it is, and then stands against it.

    Raises:
        DataError: As :meth:`~fedgen.policy.store.store.ConsentStore.record`.
    """
    new: list[str] = []
    with store.lock:
        for kind in kinds:
            family = _LIMITS if kind in _LIMITS else _FAMILY
            with store.database.reading() as connection:
                marks = ", ".join("?" * len(family))
                query = (
                    "SELECT r.kind FROM rights_event r JOIN subject_salt s ON s.subject_ref = r.subject_ref "  # noqa: S608 -- marks
                    f"WHERE s.subject_id = ? AND r.kind IN ({marks}) ORDER BY r.seq DESC LIMIT 1"
                )
                last = driver_rows(connection, query, (subject_id, *family))
            if not last or last[0][0] not in {kind, "gpc", "opt_out_sale_share"}:
                new.append(kind)
        said = [RightSaid(subject_id=subject_id, kind=kind, effective_at=at, method=source) for kind in new]
        taken = store.record(*said, source=source) if said else None
    return tuple(new) if taken is not None and taken.added else ()


def _bits(text: str) -> str:
    """Return the bits of base64url without padding; the specification pads with zeros to six bits."""
    try:
        padded = text + "A" * (-len(text) % 4)
        content = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise DataError("not base64url", key="gpp", hint=_HINT) from None
    if not text:
        raise DataError("an empty segment", key="gpp", hint=_HINT)
    return "".join(f"{byte:08b}" for byte in content)[: 6 * len(text)]


def _section_ids(bits: str) -> list[int]:
    """Return the sections that a header names, in order."""
    kind, version, amount = (int(bits[a:b] or "0", 2) for a, b in ((0, 6), (6, 12), (12, 24)))
    if (kind, version) != (3, 1):
        raise DataError("not a GPP string of version 1", key="gpp", hint=_HINT)
    at, last = 24, 0
    ids: list[int] = []
    for _ in range(amount):
        is_range = bits[at : at + 1] == "1"
        step, at = _fibonacci(bits, at + 1)
        first = last = last + step
        if is_range:
            step, at = _fibonacci(bits, at)
            last += step
        if last > _LONGEST:
            raise DataError("a GPP header that is not understood", key="gpp", hint=_HINT)
        ids += range(first, last + 1)
    if "1" in bits[at:]:
        raise DataError("a GPP header that is not understood", key="gpp", hint=_HINT)
    return ids


def _fibonacci(bits: str, at: int) -> tuple[int, int]:
    """Return a number in Fibonacci coding and where the next one begins."""
    end = bits.find("11", at)
    if end < 0:
        raise DataError("a GPP header that is not understood", key="gpp", hint=_HINT)
    number, (a, b) = 0, (1, 2)
    for bit in bits[at : end + 1]:
        number += a if bit == "1" else 0
        a, b = b, a + b
    return number, end + 2


def _gpc(segments: list[str]) -> bool | None:
    """Return what the optional segment says: two bits of type, 1 for GPC, and one bit."""
    if not segments:
        return None
    bits = _bits(segments[0])
    if len(segments) > 1 or bits[:2] != "01" or "1" in bits[3:]:
        raise DataError("a usca sub-section that is not understood", key="gpp", hint=_HINT)
    return bits[2] == "1"
