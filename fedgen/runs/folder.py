"""The run folder: its paths, its owner, and the checkpoints in it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedgen._files import TEMPORARY, sweep
from fedgen.config.resolve import ResolvedStudy, read_resolved
from fedgen.errors import ConfigError
from fedgen.runs.atomic import storage, write_text
from fedgen.runs.lines import append_line, read_lines
from fedgen.runs.lock import LOCK_NAME, locked
from fedgen.runs.rollback import finish_rollback

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHECKPOINT: Final = re.compile(r"round-(\d{6,})\.safetensors")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run; see docs/reference/run-folder.md.

    Guarantees:
        - :func:`claim` and :func:`open_run` never hand out the folder of another study, nor one that holds
          foreign files.

    Attributes:
        root: The folder itself.
    """

    root: Path

    @property
    def study(self) -> Path:
        """The resolved study, with its hash."""
        return self.root / "study.yaml"

    @property
    def record(self) -> Path:
        """``run.json``: versions, timings, outcome, digests."""
        return self.root / "run.json"

    @property
    def metrics(self) -> Path:
        """``metrics.jsonl``: one line per round."""
        return self.root / "metrics.jsonl"

    @property
    def ledger(self) -> Path:
        """The coordinator's ledger."""
        return self.root / "ledger.db"

    @property
    def setups(self) -> Path:
        """What the coordinator of secure aggregation must not forget; belongs to one identity of the run."""
        return self.root / "coordinator" / "secagg.json"

    @property
    def report(self) -> Path:
        """The report, one self-contained page."""
        return self.root / "report.html"

    @property
    def checkpoints(self) -> Path:
        """The folder of models."""
        return self.root / "checkpoints"

    def synthetic(self, suffix: str = "parquet") -> Path:
        """Return where synthetic data of one format lies."""
        return self.root / f"synthetic.{suffix}"

    def site(self, name: str) -> Path:
        """Return the folder of one simulated site."""
        return self.root / "sites" / name

    # -- checkpoints --------------------------------------------------------------------------------

    def checkpoint(self, number: int) -> Path:
        """Return where the model after round ``number`` lies (zero: before the first)."""
        if number < 0:
            raise ValueError(f"number must be at least zero, not {number}")
        return self.checkpoints / f"round-{number:06d}.safetensors"

    def checkpoints_newest_first(self) -> list[Path]:
        """Return the checkpoints there are, newest round first; whether each is whole shows on reading it."""
        return [path for _number, path in sorted(self._numbered(), reverse=True)]

    def mark_best(self, number: int) -> None:
        """Remember round ``number`` as the best so far; its checkpoint is kept until another is better."""
        write_text(self.checkpoints / "best", f"{number}\n")

    def best_checkpoint(self) -> Path | None:
        """Return the checkpoint marked best, or None if none is marked or it is gone."""
        try:
            text = (self.checkpoints / "best").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        path = self.checkpoint(int(text)) if text.isdecimal() else None
        return path if path is not None and path.exists() else None

    def prune_checkpoints(self, keep: int = 2, every: int = 0) -> None:
        """Remove all but the ``keep`` newest checkpoints, the best one, and those a rollback may go back to.

        Args:
            keep: How many of the newest stay, at least one.
            every: Checkpoints of each multiple of this round stay too; zero means none.

        Raises:
            ValueError: ``keep`` is less than one, or ``every`` is negative.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least one, not {keep}")
        if every < 0:
            raise ValueError(f"every must be at least zero, not {every}")
        best = self.best_checkpoint()
        with storage(self.checkpoints):
            for path in self.checkpoints_newest_first()[keep:]:
                if path != best and not (every and self.round_of(path) % every == 0):
                    path.unlink(missing_ok=True)

    def round_of(self, checkpoint: Path) -> int:
        """Return the round that the name of a checkpoint says.

        Raises:
            ValueError: It is not named like one.
        """
        match = _CHECKPOINT.fullmatch(checkpoint.name)
        if match is None:
            raise ValueError(f"{checkpoint.name} is not named like a checkpoint")
        return int(match.group(1))

    def next_attempt(self, number: int) -> int:
        """Return a number no earlier attempt at round ``number`` had, one for the first, already on disk.

        A site refuses a second question under one attempt as a replay; so the number is durable before it is
        used, and a crash costs at most an unused one.
        """
        attempt = 1 + self.attempts(number)
        append_line(self.root / "attempts.jsonl", number)
        return attempt

    def attempts(self, number: int) -> int:
        """Return how often round ``number`` was asked; that is the number of its last attempt."""
        return sum(1 for line in read_lines(self.root / "attempts.jsonl") if line == number)

    def _numbered(self) -> Iterator[tuple[int, Path]]:
        """Yield (round, path) of each file that is named like a checkpoint."""
        if self.checkpoints.is_dir():
            for path in self.checkpoints.iterdir():
                match = _CHECKPOINT.fullmatch(path.name)
                if match is not None:
                    yield int(match.group(1)), path


def default_root(study: ResolvedStudy, base: Path = Path("runs")) -> Path:
    """Return ``runs/<study>-<hash8>``: one folder for each study, wherever its file lies."""
    return base / f"{study.study.study}-{study.study_hash[:8]}"


@contextmanager
def claim(root: Path, study: ResolvedStudy, *, resume: bool = False) -> Iterator[RunFolder]:
    """Hold the folder of a run for the length of the block: a new one, or one that holds this very study.

    Guarantees:
        - A folder that belongs to another study, or holds files of no run, keeps every file as it was.
        - No other process holds the folder meanwhile.

    Edge cases:
        =============================  =====================================
        no folder, or an empty one     made
        this study, ``resume``         opened; leftovers of a kill are swept, a rollback is finished
        this study, not ``resume``     refused
        another study, foreign files   refused
        held by another process        refused, its number is named
        =============================  =====================================

    Args:
        root: The folder; it and its parents are made.
        study: What the run is about.
        resume: Whether an earlier run of the same study may be continued.

    Raises:
        ConfigError: See the table, or the place cannot be written.
    """
    folder = RunFolder(root)
    _no_strangers(folder)
    with locked(root):
        if folder.study.exists():
            _same_study(folder, study, resume=resume)
            sweep(root)
            sweep(folder.checkpoints)
            finish_rollback(folder)
        else:
            write_text(folder.study, study.to_yaml())
        with storage(root):
            folder.checkpoints.mkdir(exist_ok=True)
        yield folder


def open_run(root: Path) -> tuple[RunFolder, ResolvedStudy]:
    """Return the folder of an existing run and the study it belongs to.

    Raises:
        ConfigError: There is no run, or its study.yaml was changed by hand.
    """
    folder = RunFolder(root)
    if not folder.study.is_file():
        raise ConfigError(
            "is not a run folder: it has no study.yaml", where=root, hint="name the folder that simulate made"
        )
    return folder, read_resolved(folder.study)


def _no_strangers(folder: RunFolder) -> None:
    """Refuse a folder with files in it that no run has made."""
    with storage(folder.root):
        if folder.study.exists() or not folder.root.exists():
            return
        names = sorted(path.name for path in folder.root.iterdir())
    foreign = [name for name in names if name != LOCK_NAME and TEMPORARY not in name]
    if foreign:
        raise ConfigError(
            f"holds files that are not a run's, such as {foreign[0]!r}",
            where=folder.root,
            hint="give the run a folder of its own with --out",
        )


def _same_study(folder: RunFolder, study: ResolvedStudy, *, resume: bool) -> None:
    """Refuse a folder whose study is another one, or one to which nobody asked to return."""
    there = read_resolved(folder.study)
    if there.study_hash != study.study_hash:
        raise ConfigError(
            f"belongs to another study: {there.study.study} {there.study_hash[:8]}, "
            f"not {study.study.study} {study.study_hash[:8]}",
            where=folder.root,
            hint="give this study its own folder with --out",
        )
    if not resume:
        raise ConfigError(
            "already holds this study", where=folder.root, hint="continue it with --resume, or use --out"
        )
