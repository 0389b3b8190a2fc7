"""A small federation in memory: one study, its keys, its rows, and what a coordinator says to a site."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fedgen.api.bench import Bench, new_learner
from fedgen.api.prepare import exchanged
from fedgen.config.resolve import ResolvedStudy, resolve
from fedgen.config.study import parse_study
from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.envelope import Expectation, Header, open_frame, peek, sign_frame
from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.data.encoded import EncodedTable
from fedgen.dpsgd.noise import NoiseSource
from fedgen.ledger.store import Ledger
from fedgen.messages import Confirm, Join, Settle, Step, Train, Turn, Wire, decode, encode
from fedgen.policy.consent import ConsentLog
from fedgen.schema.table import Schema, parse_schema
from fedgen.site.account import Account
from fedgen.site.incidents import IncidentLog
from fedgen.site.monitor import Site
from fedgen.site.rules import SiteRules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
RUN = "22" * 32
DATASET = "dd" * 32

_SCHEMA = {
    "label": "sick",
    "subject": "person",
    "columns": [
        {"name": "visits", "type": "integer", "min": 0, "max": 9},
        {"name": "ward", "type": "categorical", "categories": ["a", "b", "c"]},
        {"name": "sick", "type": "boolean"},
    ],
}
_STUDY: dict[str, Any] = {
    "study": "small",
    "data": {"source": "csv://rows.csv", "schema": "schema.yaml", "sites": {"count": 2}},
    "model": {"name": "tabular-vae", "latent": 2, "hidden": [4]},
    "privacy": {"unit": "record", "trust": "local", "noise_multiplier": 1.0, "delta": 1e-5},
    "training": {"rounds": 3, "sample_rate": 0.5},
}


def small_study(
    *,
    sites: int = 2,
    rows: int = 40,
    persons: int | None = None,
    schema: Schema | None = None,
    **sections: dict[str, Any],
) -> ResolvedStudy:
    """Return a resolved study; each keyword changes keys of one section, None removes a key."""
    text = copy.deepcopy(_STUDY)
    text["data"]["sites"]["count"] = sites
    for name, changes in sections.items():
        section = {**text.get(name, {}), **changes}
        text[name] = {key: value for key, value in section.items() if value is not None}
    study, shape = parse_study(text), schema or parse_schema(_SCHEMA)
    return resolve(
        study,
        schema=shape,
        sizes=[rows] * sites,
        persons=[persons or rows] * sites,
        parameters=exchanged(study, shape),
    )


def small_rows(n: int = 40, *, seed: int = 1, people: bool = True, each: int = 1) -> EncodedTable:
    """Return ``n`` rows of the small schema, ``each`` of them one person's."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, k, n) for k in (10, 3, 2)], axis=1).astype(np.uint8)
    subjects = np.array([f"p{i // each:04d}" for i in range(n)], dtype="S5") if people else None
    return EncodedTable(codes=codes, subjects=subjects)


def consent_log(
    path: Path, *, granted: int, withdrawn: int = 0, purpose: str = "train_generator"
) -> ConsentLog:
    """Return a log in which the first ``granted`` people agreed and the first ``withdrawn`` took it back."""
    lines = ["subject,purpose,status,recorded_at"]
    lines += [f"p{i:04d},{purpose},granted,2026-01-01T00:00:00Z" for i in range(granted)]
    lines += [f"p{i:04d},{purpose},withdrawn,2026-02-01T00:00:00Z" for i in range(withdrawn)]
    path.write_text("\n".join(lines) + "\n")
    return ConsentLog.read(path)


@lru_cache(maxsize=64)
def _first_weights(study: ResolvedStudy) -> np.ndarray:
    learner = new_learner(study)
    return (learner.private.vector.detach() if study.exchange == "gradient" else learner.all_values()).numpy()


def flipped(frame: bytes) -> bytes:
    """Return a message with one bit of its last byte changed, whatever that byte is."""
    return frame[:-1] + bytes([frame[-1] ^ 1])


@dataclass(frozen=True)
class Desk:
    """A coordinator's desk: its keys, and the frames it can put its name to."""

    study: ResolvedStudy
    signing: SigningKey = field(default_factory=SigningKey.generate)
    sealing: SealingKey = field(default_factory=SealingKey.generate)
    run: str = RUN

    def of(self, **changes: Any) -> Desk:
        """Return the same desk with another study or run."""
        return replace(self, **changes)

    def weights(self) -> np.ndarray:
        """Return the first weights a round carries: of the private part where only gradients travel."""
        return _first_weights(self.study).copy()

    def join(self, **changes: Any) -> bytes:
        """Return a signed invitation."""
        return self.signed(self.invitation(**changes))

    def invitation(self, **changes: Any) -> Join:
        """Return the message of an invitation."""
        fields = {
            "study_hash": self.study.study_hash,
            "study": self.study.canonical(),
            "run": self.run,
            "coordinator": self.signing.public.hex(),
            "sealing_key": self.sealing.public.hex(),
        }
        return Join(**{**fields, **changes})

    def train(self, number: int = 1, attempt: int = 1, *, body: bytes | None = None, **changes: Any) -> bytes:
        """Return a signed request for one round."""
        body = self.weights().astype("<f4").tobytes() if body is None else body
        fields = {
            "study_hash": self.study.study_hash,
            "run": self.run,
            "round": number,
            "attempt": attempt,
            "parameters": len(body) // 4,
            "digest": sha256_hex(body),
        }
        return self.signed(Train(**{**fields, **changes}), body)

    def turn(
        self,
        recipient: str,
        frame: bytes,
        number: int = 1,
        attempt: int = 1,
        *,
        body: bytes | None = None,
        **changes: Any,
    ) -> bytes:
        """Return a signed turn of secure aggregation for one site; ``cover_*`` changes its header."""
        body = self.weights().astype("<f4").tobytes() if body is None else body
        cover = {name[6:]: changes.pop(name) for name in list(changes) if name.startswith("cover_")}
        fields = {**self._of(number, attempt), "parameters": len(body) // 4, "digest": sha256_hex(body)}
        return self.signed(Turn(**{**fields, **changes}), body + frame, **{"recipient": recipient, **cover})

    def step(self, recipient: str, frame: bytes, number: int = 1, attempt: int = 1, **cover: Any) -> bytes:
        """Return any other signed step of secure aggregation for one site."""
        return self.signed(Step(**self._of(number, attempt)), frame, **{"recipient": recipient, **cover})

    def _of(self, number: int, attempt: int) -> dict[str, Any]:
        return {"study_hash": self.study.study_hash, "run": self.run, "round": number, "attempt": attempt}

    def confirm(self, number: int = 1, attempt: int = 1, **changes: Any) -> bytes:
        """Return a signed question whether an update may still be summed."""
        fields = {"study_hash": self.study.study_hash, "run": self.run, "round": number, "attempt": attempt}
        return self.signed(Confirm(**{**fields, **changes}))

    def settle(self, outcome: str = "completed", rounds: int = 3) -> bytes:
        """Return the signed end of the study."""
        fields = {"study_hash": self.study.study_hash, "run": self.run, "outcome": outcome, "rounds": rounds}
        return self.signed(Settle.model_validate(fields))

    def signed(self, message: Wire, body: bytes = b"", **cover: Any) -> bytes:
        """Return any message under this desk's signature."""
        fields: dict[str, Any] = {
            "kind": message.kind,
            "study_hash": self.study.study_hash,
            "run": self.run,
            "round": getattr(message, "round", 0),
            "attempt": getattr(message, "attempt", 0),
            "sender": "coordinator",
            "recipient": "*",
        }
        return sign_frame(encode(message, body), Header(**{**fields, **cover}), self.signing)

    def read(self, reply: bytes, identity: SigningKey) -> tuple[Wire, np.ndarray]:
        """Return a site's authentic answer and its update."""
        message, body = self.opened(reply, identity)
        return message, np.frombuffer(body, dtype="<f4")

    def opened(self, reply: bytes, identity: SigningKey) -> tuple[Wire, memoryview]:
        """Return a site's authentic answer and what comes with it."""
        expect = Expectation(study_hash=None, run=None, recipient="coordinator", sender=peek(reply).sender)
        _header, frame = open_frame(
            reply, verify_key=identity.verify_key, sealing_key=self.sealing, expect=expect
        )
        return decode(frame)


@dataclass
class Holder:
    """A real site and what lies behind it."""

    site: Site
    desk: Desk
    identity: SigningKey
    account: Account
    ledger: Callable[[], Any]
    incidents: Path

    def ask(self, request: bytes) -> tuple[Wire, np.ndarray]:
        """Return what the site answers, opened as its coordinator would."""
        return self.desk.read(self.site.handle(request), self.identity)

    def entries(self, kind: str | None = None) -> list[Any]:
        """Return the ledger's entries, or those of one kind."""
        with self.ledger() as ledger:
            found = [recorded.entry for recorded in ledger.entries()]
        return [entry for entry in found if kind is None or entry.kind == kind]


def ledger_at(path: Path, identity: SigningKey) -> Callable[[], Any]:
    """Return what lends the ledger at ``path``; a simulated one, so that tests do not wait for the disk."""

    @contextmanager
    def lend() -> Any:
        with Ledger.open(path, origin="fedgen/test", signing_key=identity, durable=False) as ledger:
            yield ledger

    return lend


def make_site(folder: Path, desk: Desk, *, name: str = "site-01", **parts: Any) -> Holder:
    """Return a real site with small rows; ``parts`` replace what it is made of, ``rules`` its rules' fields."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = parts.pop("identity", None) or SigningKey.generate()
    defaults = {"name": name, "min_cohort": 5, "consent_required": False, "simulated": True}
    rules = SiteRules(**{**defaults, **parts.pop("rules", {})})
    ledger = parts.pop("ledger", None) or ledger_at(folder / "ledger.db", identity)
    account = Account(ledger, DATASET, rules)
    table = small_rows()
    incidents = folder / "incidents.jsonl"
    made: dict[str, Any] = {
        "rules": rules,
        "identity": identity,
        "coordinator": desk.signing.public,
        "table": lambda: table,
        "consent": None,
        "account": account,
        "bench": Bench().lend,
        "noise": NoiseSource.secure(),
        "clock": lambda _round: NOW,
        "incidents": IncidentLog(incidents),
    }
    return Holder(Site(**{**made, **parts}), desk, identity, account, ledger, incidents)
