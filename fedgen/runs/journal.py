"""What is remembered of a run: one line per round in metrics.jsonl, and run.json at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import AwareDatetime, Field, JsonValue, ValidationError

from fedgen.config.base import Frozen
from fedgen.config.fields import Count, NonNegative, Whole
from fedgen.errors import ConfigError, IntegrityError
from fedgen.messages import Bucket, Hex32, SiteName
from fedgen.runs.atomic import write_json
from fedgen.runs.lines import append_line, read_lines
from fedgen.runs.rollback import undone

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fedgen.runs.rollback import Rollback

Outcome = Literal["running", "completed", "budget", "quorum", "interrupted", "failed"]
Form = TypeVar("Form", bound=Frozen)
Finite = Annotated[float, Field(allow_inf_nan=False)]


class RoundLine(Frozen):
    """One line of metrics.jsonl.

    Attributes:
        round: One-based.
        attempt: One-based; greater than one after a restart or a lost quorum.
        sites: Sites whose updates are in the sum.
        missing: Every other site of the roster, with the code that says why; where no sum came of a round, sites that
            did as they were asked are in neither.
        rejected: Sites in the sum of which a further answer was not taken, with the code that says why.
        excluded: Per site, how many subjects the gate kept out for each reason, in buckets.
        seconds: Wall time of the round.
        bytes_in: Bytes the coordinator received.
        bytes_out: Bytes the coordinator sent.
        epsilon: Upper bound on what the most-charged site has spent so far; None when not private.
        heldout_loss: Loss on held-out rows after the round, where it was computed; simulation only.
    """

    round: Count
    attempt: Count
    sites: tuple[SiteName, ...]
    missing: dict[SiteName, str] = Field(default_factory=dict)
    rejected: dict[SiteName, str] = Field(default_factory=dict)
    excluded: dict[SiteName, dict[str, Bucket]] = Field(default_factory=dict)
    seconds: NonNegative
    bytes_in: Whole = 0
    bytes_out: Whole = 0
    epsilon: NonNegative | None = None
    heldout_loss: Finite | None = None


class SiteSummary(Frozen):
    """What one site did in a run.

    Attributes:
        name: Name in the roster.
        rounds: Rounds whose sum holds its update.
        epsilon: What it has spent, an upper bound; None when not private or not known to the coordinator.
        refusals: How often it was missing, by code.
    """

    name: SiteName
    rounds: Whole
    epsilon: NonNegative | None = None
    refusals: dict[str, Count] = Field(default_factory=dict)


class Artefact(Frozen):
    """A file a run has made.

    Attributes:
        path: Relative to the run folder, with forward slashes.
        sha256: Of its bytes, hex.
    """

    path: Annotated[str, Field(min_length=1)]
    sha256: Hex32


class RolledBack(Frozen):
    """A rollback of the run, as run.json tells it.

    Attributes:
        at: When.
        reason: A reason code.
        done: Rounds that were in the model before.
        back_to: The last round that stayed.
        run: Identity of the run before; afterwards it goes on under another.
    """

    at: AwareDatetime
    reason: str
    done: Whole
    back_to: Whole
    run: Hex32


class RunRecord(Frozen):
    """run.json.

    Attributes:
        format: Version of this file.
        study: Name of the study.
        study_hash: Identity of the study.
        run: Identity of the run, hex.
        outcome: How it ended; ``running`` while it does, or after a kill.
        rounds: Rounds asked for.
        rounds_done: Rounds whose result is in the model.
        started_at: When the first process of the run began.
        wall_s: Wall seconds over all processes of the run.
        backend: What carried the messages.
        seeds: ``os`` (private) or ``insecure`` (an ``insecure_seed`` was given: nothing here is private).
        versions: Package to version.
        privacy: Statements, one for each scope: unit, trust, scope, epsilon, delta, accountant, proved.
        sites: One entry for each site of the roster.
        artefacts: Files with their digests.
        rollbacks: What was undone, oldest first; the rounds asked again are charged again.
    """

    format: Literal[1] = 1
    study: str
    study_hash: Hex32
    run: Hex32
    outcome: Outcome
    rounds: Count
    rounds_done: Whole
    started_at: AwareDatetime
    wall_s: NonNegative
    backend: str
    seeds: Literal["os", "insecure"]
    versions: dict[str, str]
    privacy: tuple[dict[str, JsonValue], ...] = ()
    sites: tuple[SiteSummary, ...] = ()
    artefacts: tuple[Artefact, ...] = ()
    rollbacks: tuple[RolledBack, ...] = ()


def append_round(path: Path, line: RoundLine) -> None:
    """Append one line to metrics.jsonl, on the disk before this returns.

    Raises:
        ConfigError: The disk is full or the file cannot be written.
    """
    append_line(path, line.model_dump(mode="json", exclude_none=True))


def read_rounds(path: Path) -> tuple[RoundLine, ...]:
    """Return every line of metrics.jsonl, in the order written; a torn last line is left out.

    A round that was tried again after a crash has several lines; the one with the greatest attempt stands.

    Raises:
        IntegrityError: A line is not a round.
    """
    return tuple(_valid(RoundLine, value, path) for value in read_lines(path))


def standing(lines: tuple[RoundLine, ...], known: Sequence[Rollback] = ()) -> tuple[RoundLine, ...]:
    """Return for each round its greatest attempt, by round; rounds that a rollback undid are left out.

    Of two lines of one attempt the later one stands: it says that the sum of the first was lost to a kill.

    Args:
        lines: Every line of metrics.jsonl.
        known: The rollbacks of the run, see :func:`fedgen.runs.rollback.rollbacks`.
    """
    last: dict[int, RoundLine] = {}
    for place, line in enumerate(lines):
        if undone(line.round, place, known):
            continue
        if line.round not in last or line.attempt >= last[line.round].attempt:
            last[line.round] = line
    return tuple(last[number] for number in sorted(last))


def told(rollback: Rollback) -> RolledBack:
    """Return a rollback as run.json tells it."""
    return RolledBack(
        at=rollback.at,
        reason=rollback.reason,
        done=rollback.done,
        back_to=rollback.back_to,
        run=rollback.run,
    )


def write_run(path: Path, record: RunRecord) -> None:
    """Put run.json in place atomically; inverse of :func:`read_run`.

    Raises:
        ConfigError: The disk is full or the file cannot be written.
    """
    write_json(path, record.model_dump(mode="json"))


def read_run(path: Path) -> RunRecord:
    """Return run.json; inverse of :func:`write_run`.

    Raises:
        ConfigError: There is no such file.
        IntegrityError: It does not have the form of a run record.
    """
    import json

    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError("no such file", where=path, hint="name a folder that simulate has made") from None
    except ValueError as error:
        raise IntegrityError("is not JSON", where=path) from error
    return _valid(RunRecord, value, path)


def _valid(kind: type[Form], value: object, path: Path) -> Form:
    """Return ``value`` as ``kind``, or say which key does not fit."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise IntegrityError(
            f"does not have the form of this version, at {key or 'its top'}", where=path
        ) from error
