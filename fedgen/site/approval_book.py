"""The owner's yes to a study: one signed file for each study hash, read again whenever it is asked for.

A study that asks to join without one is filed, so that its owner can look at it, and refused. The default is no; a
file that is damaged, or signed by another key, is no as well.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, ValidationError

from fedgen.config.base import Frozen
from fedgen.config.resolve import ResolvedStudy
from fedgen.errors import Code, ConfigError, FedgenError, IntegrityError, Refused
from fedgen.messages import Hex32, SiteName, canonical
from fedgen.runs.atomic import storage, write_private

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from fedgen.crypto.keys import SigningKey, VerifyKey
    from fedgen.privacy.plan import Plan

MAX_PENDING: Final = 16
_LABEL: Final = "site/approval"
_MAX_BYTES: Final = 4096
_MAX_STUDY: Final = 4 * 2**20
_ROUNDING: Final = 1 + 1e-9  # the same study costs the same here and in the file, up to the last digit
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class Approval(Frozen):
    """What an owner decided about a study.

    Attributes:
        format: Version of this form.
        study_hash: The study, hex.
        site: Whose owner it was.
        decision: What it was.
        time: When, ISO 8601, UTC.
        epsilon: What the study may cost, as it was shown to the owner.
        delta: At which.
        coordinator: Public key of the coordinator that updates would go to, as it was shown to the owner, hex; None
            where there was none.
    """

    format: Literal[1] = 1
    study_hash: Hex32
    site: SiteName
    decision: Literal["approved", "revoked"]
    time: str = Field(max_length=40)
    epsilon: float = Field(ge=0, allow_inf_nan=False)
    delta: float = Field(gt=0, lt=1)
    coordinator: Hex32 | None = None


class _File(Frozen):
    """A decision and the owner's signature."""

    said: Approval
    signature: str = Field(pattern=r"^[0-9a-f]{128}$")


@dataclass(frozen=True, slots=True)
class ApprovalBook:
    """The decisions of one site's owner, and the studies that wait for one.

    Guarantees:
        - A decision counts only with the signature of the site's own key, for this site and this study.
        - Every :meth:`check` reads the file again: what was revoked is over with the next message.
        - At most 16 studies wait; the oldest goes first.
        - Files can be read by their owner only, and are whole or absent.

    Attributes:
        approvals: Folder of decisions, ``<hash>.json``.
        pending: Folder of studies that wait, ``<hash>.json``, each its canonical text.
        site: Name of the site.
        key: The site's public identity key.
    """

    approvals: Path
    pending: Path
    site: str
    key: VerifyKey

    def check(
        self,
        study_hash: str,
        study: ResolvedStudy,
        plan: Plan,
        *,
        coordinators: Collection[str] | None = None,
    ) -> None:
        """Return if the owner said yes to this study, at no more than it costs by this version's reckoning.

        Args:
            study_hash: The study, hex.
            study: As the site parsed it.
            plan: As the site computed it.
            coordinators: Public keys, hex, one of which the owner must have been shown; None asks for none.

        Raises:
            Refused: ``not-approved``: nobody has decided (the study is filed), the answer was no or was taken back,
                it was for another coordinator, or the file is not the owner's.
        """
        try:
            said = self.decision(study_hash)
        except FedgenError as error:
            self.file(study_hash, study)  # as after a rotation: its owner must see it to say yes again
            raise Refused(
                "the approval of this study cannot be read",
                code=Code.NOT_APPROVED,
                where=self.approvals / f"{study_hash}.json",
                hint="run: fedgen site approve",
            ) from error
        if said is None:
            self.file(study_hash, study)
            raise Refused(
                f"nobody has approved study {study_hash[:8]}",
                code=Code.NOT_APPROVED,
                hint=f"run: fedgen site approve {study_hash[:8]}",
            )
        if said.decision != "approved":
            raise Refused("the approval of this study was taken back", code=Code.NOT_APPROVED)
        if coordinators is not None and said.coordinator not in coordinators:
            raise Refused(
                "the study was approved for another coordinator than the site has now",
                code=Code.NOT_APPROVED,
                hint=f"run: fedgen site approve {study_hash[:8]}",
            )
        if plan.delta > said.delta or plan.epsilon_of(plan.rounds) > said.epsilon * _ROUNDING:
            raise Refused("the study costs more than was approved", code=Code.NOT_APPROVED)

    def decision(self, study_hash: str) -> Approval | None:
        """Return what the owner decided about a study, or None if nothing.

        Raises:
            IntegrityError: The file is damaged, about something else, or not signed by the site's key.
            ConfigError: It cannot be read.
        """
        path = self._file(study_hash)
        text = _read(path, _MAX_BYTES)
        if text is None:
            return None
        try:
            file = _File.model_validate(json.loads(text))
        except (ValidationError, ValueError, RecursionError):
            raise IntegrityError("is not an approval", code=Code.MALFORMED, where=path) from None
        if (file.said.study_hash, file.said.site) != (study_hash, self.site):
            raise IntegrityError(
                "is the approval of another study or site", code=Code.WRONG_STUDY, where=path
            )
        self.key.verify(_LABEL, _signed(file.said), bytes.fromhex(file.signature))
        return file.said

    def decide(
        self,
        study_hash: str,
        decision: Literal["approved", "revoked"],
        signer: SigningKey,
        *,
        epsilon: float,
        delta: float,
        coordinator: str | None = None,
    ) -> Approval:
        """Write down what the owner decided; on the disk before this returns.

        Guarantees:
            - A yes that is taken back is gone even if there is no room left to write the no.

        Raises:
            IntegrityError: ``signer`` is not the site's key.
            ConfigError: The folder cannot be written.
        """
        if signer.public != self.key.public:
            raise IntegrityError("this is not the site's identity key", code=Code.UNKNOWN_SENDER)
        said = Approval(
            study_hash=study_hash,
            site=self.site,
            decision=decision,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            epsilon=epsilon,
            delta=delta,
            coordinator=coordinator,
        )
        signature = signer.sign(_LABEL, _signed(said)).hex()
        text = canonical({"said": said.model_dump(mode="json"), "signature": signature})
        if decision == "revoked":
            with storage(self.approvals):
                self._file(study_hash).unlink(missing_ok=True)
        _write(self._file(study_hash), text)
        with suppress(OSError):
            self._waiting(study_hash).unlink(missing_ok=True)
        return said

    def decisions(self) -> tuple[Approval, ...]:
        """Return every decision that is the owner's, oldest first; a file that is not counts as none."""
        found = []
        for name in _hashes(self.approvals):
            with suppress(FedgenError):
                said = self.decision(name)
                if said is not None:
                    found.append(said)
        return tuple(sorted(found, key=lambda said: said.time))

    def file(self, study_hash: str, study: ResolvedStudy) -> None:
        """Keep a study for its owner to look at; one that waits already is left as it is.

        Nothing that goes wrong here is more than a study not filed: the answer is no either way.
        """
        path = self._waiting(study_hash)
        with suppress(FedgenError, OSError):
            if path.exists():
                return
            _write(path, study.canonical().encode())
            waiting = [self._waiting(name) for name in self.waiting()]
            for old in waiting[:-MAX_PENDING]:
                old.unlink(missing_ok=True)

    def waiting(self) -> tuple[str, ...]:
        """Return the hashes of the studies that wait for a decision, oldest first."""
        return tuple(
            sorted(_hashes(self.pending), key=lambda name: (self._waiting(name).stat().st_mtime_ns, name))
        )

    def filed(self, study_hash: str) -> ResolvedStudy | None:
        """Return a study that waits, or None.

        Raises:
            IntegrityError: The file does not hold the study that its name says.
            ConfigError: It is a study that this version cannot read.
        """
        path = self._waiting(study_hash)
        text = _read(path, _MAX_STUDY)
        if text is None:
            return None
        study = ResolvedStudy.from_json(text.decode(errors="replace"))
        if study.study_hash != study_hash:
            raise IntegrityError("is not the study its name says", code=Code.WRONG_STUDY, where=path)
        return study

    def _file(self, study_hash: str) -> Path:
        return self.approvals / f"{_checked(study_hash)}.json"

    def _waiting(self, study_hash: str) -> Path:
        return self.pending / f"{_checked(study_hash)}.json"


def _checked(study_hash: str) -> str:
    """Return a hash that is safe as the name of a file."""
    if not _HASH.fullmatch(study_hash):
        raise IntegrityError("this is not a study's hash", code=Code.MALFORMED)
    return study_hash


def _hashes(folder: Path) -> list[str]:
    """Return the hashes that name the files of a folder."""
    return [path.stem for path in folder.glob("*.json") if _HASH.fullmatch(path.stem)]


def _signed(said: Approval) -> bytes:
    """Return the bytes that are signed."""
    return canonical(said.model_dump(mode="json"))


def _write(path: Path, data: bytes) -> None:
    """Put a file in place, for its owner only."""
    with storage(path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, data)


def _read(path: Path, limit: int) -> bytes | None:
    """Return a plain file of at most ``limit`` bytes, or None if it is not there.

    Raises:
        ConfigError: It cannot be read, is no plain file, or is too large.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=path) from None
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    if not data or len(data) > limit:
        raise ConfigError("is empty, too large or no file", where=path)
    return data
