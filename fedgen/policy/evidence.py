"""What is kept of a round's decision: counts, a digest of who might be used, and the summary a ledger signs.

The digest is over the bitmap of permitted rows in the order of the table. It names nobody; asked again with the
same pack, engine, T and K, the same digest must come out. The bitmap itself stays at the site.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.crypto.digest import sha256_hex
from fedgen.policy.calendar import moment_of
from fedgen.policy.engine import ENGINE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fedgen.policy.engine import Decision

_DOMAIN: Final = b"fedgen/policy/mask/1\0"


def mask_sha256(permitted: NDArray[np.bool_]) -> str:
    """Return the digest of which rows are permitted.

    Guarantees:
        - Two tables have one digest only if they have as many rows and the same ones are permitted.

    Args:
        permitted: Shape ``(n,)``, in the order of the table.

    Source: SHA-256 over a domain, the number of rows as eight bytes (least first), and the rows as bits, eight to a
    byte, the first row in the lowest bit, the last byte filled with zeros.
    """
    bits = np.packbits(permitted, bitorder="little").tobytes()
    return sha256_hex(_DOMAIN + len(permitted).to_bytes(8, "little") + bits)


def round_summary(
    decision: Decision,
    *,
    run_uid: str,
    round_: int,
    client_ref: str,
    decided_at: int,
    store_head_seq: int,
    update_sha256: str | None = None,
    commit_check: Mapping[str, int | bool] | None = None,
    prev_leaf: str | None = None,
) -> dict[str, Any]:
    """Return the summary of one round at one site, as the audit leaf holds it; it holds no identifier of a person.

    Args:
        decision: What was decided.
        run_uid: The run.
        round_: Its number.
        client_ref: The site.
        decided_at: When, microseconds since 1970 in UTC.
        store_head_seq: The last event the consent store held.
        update_sha256: Digest of the update; None if none left.
        commit_check: ``revoked_in_flight`` and ``discarded``.
        prev_leaf: Digest of the leaf before.
    """
    request, permitted = decision.request, decision.permitted
    goes_to = request.destination
    return {
        "run_uid": run_uid,
        "round": round_,
        "client_ref": client_ref,
        "decided_at": moment_of(decided_at).isoformat(),
        "known_at": moment_of(request.horizon).isoformat(),
        "time": moment_of(request.time).isoformat(),
        "store_head_seq": store_head_seq,
        "purpose": request.purpose,
        "operation": request.operation,
        "destination": None if goes_to is None else goes_to.country,
        "laws": [said.law for said in decision.laws],
        "packs": [said.pack.reference for said in decision.laws if said.pack is not None],
        "engine_version": ENGINE,
        "n_considered": len(permitted),
        "n_allowed": int(np.count_nonzero(permitted)),
        "reason_counts": {str(code): n for code, n in sorted(decision.counts.items())},
        "mask_sha256": mask_sha256(permitted),
        "update_sha256": update_sha256,
        "commit_check": dict(commit_check or {"revoked_in_flight": 0, "discarded": False}),
        "prev_leaf": prev_leaf,
    }


def leaf_bytes(summary: Mapping[str, Any]) -> bytes:
    """Return the one byte form of a summary: JSON, keys sorted, no space, UTF-8; no fractions, as JCS has it."""
    return json.dumps(summary, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def leaf_sha256(summary: Mapping[str, Any]) -> str:
    """Return the digest of a summary's one byte form."""
    return sha256_hex(leaf_bytes(summary))
