"""What a run has made, until when each may stay, and how it went: a register that only grows, ``artefacts.jsonl``.

A checkpoint says of itself when it was made and until when it may stay, in its header. A release is a file in somebody
else's format, so a line of the register says it. What is removed is announced in the register before it is touched, and
signed off after its absence was seen; whoever is killed in between, the next one finishes.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AwareDatetime, Field, ValidationError

from fedgen._files import flush_folder
from fedgen.config.base import Frozen
from fedgen.config.fields import Whole
from fedgen.errors import IntegrityError
from fedgen.messages import Hex32
from fedgen.runs.atomic import storage
from fedgen.runs.lines import append_line, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fedgen.runs.folder import RunFolder

REGISTER: Final = "artefacts.jsonl"
WITHHELD: Final = "withheld"
HOLD: Final = "legal-hold"
RELEASES: Final = ("synthetic.*", "report.html", "report.json", "evaluation.json")
_READ: Final = 1 << 20
Method = Literal["deleted", "withheld"]
RelativePath = Annotated[str, Field(min_length=1, max_length=512)]


class Born(Frozen):
    """A release, when it was made.

    Attributes:
        path: Relative to the run folder.
        sha256: Of its bytes.
        run: Identity of the run that made it.
        round: The last round behind it.
        created_at: When.
        retain_until: First instant at which it may no longer stay.
    """

    kind: Literal["born"] = "born"
    path: RelativePath
    sha256: Hex32
    run: Hex32
    round: Whole
    created_at: AwareDatetime
    retain_until: AwareDatetime


class Begun(Frozen):
    """What is about to be removed.

    Attributes:
        id: Of the removal.
        path: Relative to the run folder.
        sha256: Of its bytes.
        reason: A reason code.
        method: ``deleted``, or ``withheld``: moved to where nothing uses it, because of a legal hold.
        at: When it was decided.
    """

    kind: Literal["begun"] = "begun"
    id: Annotated[str, Field(pattern=r"[0-9a-f]{32}")]
    path: RelativePath
    sha256: Hex32
    reason: str
    method: Method
    at: AwareDatetime


class Ended(Frozen):
    """What was removed.

    Attributes:
        id: Of the removal.
        verified_at: When its path was opened and nothing was there.
    """

    kind: Literal["ended"] = "ended"
    id: Annotated[str, Field(pattern=r"[0-9a-f]{32}")]
    verified_at: AwareDatetime


@dataclass(frozen=True, slots=True)
class Removed:
    """Evidence of one removal."""

    path: str
    sha256: str
    reason: str
    method: Method
    at: datetime
    verified_at: datetime

    def to_json(self) -> dict[str, str]:
        """Return the evidence as JSON values."""
        return {
            "path": self.path,
            "sha256": self.sha256,
            "reason": self.reason,
            "method": self.method,
            "at": self.at.isoformat(),
            "verified_at": self.verified_at.isoformat(),
        }


def releases_in(folder: RunFolder) -> list[Path]:
    """Return the files of a run that show what its model says: synthetic data, and pages with rows of it."""
    return sorted(path for pattern in RELEASES for path in folder.root.glob(pattern) if path.is_file())


def note_releases(
    folder: RunFolder, files: Iterable[Path], *, run: str, round_number: int, at: datetime, until: datetime
) -> None:
    """Write down releases that were just made; the same file again is nothing new."""
    known = {(line.path, line.sha256) for line in _lines(folder) if isinstance(line, Born)}
    for file in files:
        path, digest = file.relative_to(folder.root).as_posix(), sha256_of(file)
        if (path, digest) not in known:
            born = Born(
                path=path, sha256=digest, run=run, round=round_number, created_at=at, retain_until=until
            )
            append_line(folder.root / REGISTER, born.model_dump(mode="json"))


def born_releases(folder: RunFolder) -> dict[str, Born]:
    """Return what is known of each release that is there as it was made, by path."""
    latest = {line.path: line for line in _lines(folder) if isinstance(line, Born)}
    return {
        path: born
        for path, born in latest.items()
        if (folder.root / path).is_file() and sha256_of(folder.root / path) == born.sha256
    }


def remove(
    folder: RunFolder, files: Iterable[Path], *, reason: str, method: Method = "deleted"
) -> list[Removed]:
    """Remove files, with evidence.

    Guarantees:
        - Each is in the register, with its digest, before it is touched; each is signed off after it was seen gone.
        - Killed in between, :func:`finish_removals` does the rest.
        - What is not there is left out.

    Args:
        folder: A run folder that this process holds.
        files: In the folder.
        reason: A reason code.
        method: See :class:`Begun`.

    Raises:
        ConfigError: A file cannot be removed, or the register not be written.
    """
    for file in files:
        if not file.is_file():
            continue
        begun = Begun(
            id=secrets.token_hex(16),
            path=file.relative_to(folder.root).as_posix(),
            sha256=sha256_of(file),
            reason=reason,
            method=method,
            at=datetime.now(UTC),
        )
        append_line(folder.root / REGISTER, begun.model_dump(mode="json"))
    return finish_removals(folder)


def finish_removals(folder: RunFolder) -> list[Removed]:
    """Carry out every removal that was announced and not signed off; return the evidence of these.

    Edge cases:
        - Another file stands there by now: it was made after; it stays.
    """
    lines = _lines(folder)
    done = {line.id for line in lines if isinstance(line, Ended)}
    found = []
    for begun in (line for line in lines if isinstance(line, Begun) and line.id not in done):
        file = folder.root / begun.path
        with storage(file):
            if file.is_file() and sha256_of(file) == begun.sha256:
                _take_away(folder, file, begun)
        ended = Ended(id=begun.id, verified_at=_seen_gone(file, begun))
        append_line(folder.root / REGISTER, ended.model_dump(mode="json"))
        found.append(_removed(begun, ended))
    return found


def removals(folder: RunFolder) -> list[Removed]:
    """Return the evidence of everything that was removed from a run, oldest first."""
    lines = _lines(folder)
    ended = {line.id: line for line in lines if isinstance(line, Ended)}
    return [_removed(it, ended[it.id]) for it in lines if isinstance(it, Begun) and it.id in ended]


def on_hold(folder: RunFolder) -> bool:
    """Return whether somebody put a file ``legal-hold`` into the run folder: nothing of it is then deleted."""
    return (folder.root / HOLD).exists()


def sha256_of(path: Path) -> str:
    """Return the digest of a file, hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ):
            digest.update(block)
    return digest.hexdigest()


def _take_away(folder: RunFolder, file: Path, begun: Begun) -> None:
    """Delete a file, or move it to where nothing uses it; on the disk before this returns."""
    if begun.method == "deleted":
        file.unlink()
    else:
        target = folder.root / WITHHELD / begun.id / file.name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.chmod(0o600)
        file.replace(target)
        flush_folder(target.parent)
    with suppress(FileNotFoundError):
        flush_folder(file.parent)


def _seen_gone(file: Path, begun: Begun) -> datetime:
    """Read a path back and return when it was seen not to hold what was removed.

    Raises:
        IntegrityError: It still does.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return datetime.now(UTC)
    os.close(descriptor)
    if sha256_of(file) == begun.sha256:
        raise IntegrityError(
            "a file that was removed is still there", where=file, hint="check the file system"
        )
    return datetime.now(UTC)


def _removed(begun: Begun, ended: Ended) -> Removed:
    return Removed(begun.path, begun.sha256, begun.reason, begun.method, begun.at, ended.verified_at)


def _lines(folder: RunFolder) -> list[Born | Begun | Ended]:
    """Return every line of the register.

    Raises:
        IntegrityError: A line is none of the three.
    """
    path = folder.root / REGISTER
    kinds: dict[object, type[Born | Begun | Ended]] = {"born": Born, "begun": Begun, "ended": Ended}
    found: list[Born | Begun | Ended] = []
    for value in read_lines(path):
        form = kinds.get(value.get("kind")) if isinstance(value, dict) else None
        if form is None:
            raise _malformed(path)
        try:
            line = form.model_validate(value)
        except ValidationError:
            raise _malformed(path) from None
        if not isinstance(line, Ended) and not _inside(line.path):
            raise IntegrityError("a line that names a file outside the folder", where=path, hint="restore it")
        found.append(line)
    return found


def _malformed(path: Path) -> IntegrityError:
    return IntegrityError("a line that does not have its form", where=path, hint="restore it")


def _inside(path: str) -> bool:
    parts = Path(path).parts
    return not Path(path).is_absolute() and ".." not in parts and bool(parts)
