"""The coordinator's durable state: which round is done, with which weights, moments and attempts.

A round's attempt number is written before its first message leaves, so that a restart never asks twice
under one number: a site would refuse the second as a replay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from fedgen.errors import Code, IntegrityError
from fedgen.models.state import load_tensors, save_tensors
from fedgen.runs.rollback import unfinished

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from fedgen.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Progress:
    """The last good model and everything needed to continue from it.

    Attributes:
        round: Rounds done; zero before the first.
        weights: Private and public parameters together, float32.
        average: Exponential moving average of ``weights``, or None.
        optimizer: The optimizer's tensors by name.
    """

    round: int
    weights: Tensor
    average: Tensor | None = None
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def released(self) -> Tensor:
        """The weights to sample from: the average where there is one."""
        return self.weights if self.average is None else self.average


def tensors_of(progress: Progress) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint; inverse of :func:`progress_of`."""
    tensors = {"weights": progress.weights}
    if progress.average is not None:
        tensors["average"] = progress.average
    return tensors | {f"optimizer.{name}": value for name, value in progress.optimizer.items()}


def progress_of(tensors: Mapping[str, Tensor], number: int) -> Progress:
    """Return the progress after round ``number`` from a checkpoint's tensors; inverse of :func:`tensors_of`."""
    return Progress(
        round=number,
        weights=tensors["weights"].to(torch.float32),
        average=tensors.get("average"),
        optimizer={
            name.removeprefix("optimizer."): value
            for name, value in tensors.items()
            if name.startswith("optimizer.")
        },
    )


class DurableProgress(Protocol):
    """What a coordinator keeps its progress in, whichever process goes on."""

    def latest(self) -> Progress | None:
        """Return the progress after the last saved round, or None."""
        ...

    def next_attempt(self, number: int) -> int:
        """Return a number no earlier attempt at a round had, having written it down."""
        ...

    def attempts(self, number: int) -> int:
        """Return the newest attempt at a round, at least one."""
        ...

    def save(self, progress: Progress) -> None:
        """Write down what a finished round made."""
        ...


class ProgressStore:
    """Saves and restores :class:`Progress` in a run folder.

    Guarantees:
        - A crash at any instant leaves the previous progress readable.
        - Progress of another study or model is refused.

    Args:
        folder: The run folder, locked by this process.
        header: What must match on restore: study hash, model, layout.
        every: Keep the checkpoint of each multiple of this round, for a rollback; zero keeps the newest two only.
    """

    def __init__(self, folder: RunFolder, header: Mapping[str, str], *, every: int = 0) -> None:
        self._folder = folder
        self._header = dict(header)
        self._every = every

    def save(self, progress: Progress) -> None:
        """Write a checkpoint atomically and drop all but the newest two and those that are kept for a rollback."""
        tensors = tensors_of(progress)
        path = self._folder.checkpoint(progress.round)
        save_tensors(path, tensors, {**self._born(), **self._header, "round": str(progress.round)})
        self._folder.prune_checkpoints(keep=2, every=self._every)

    def _born(self) -> dict[str, str]:
        """Return what a checkpoint says of its birth beside what must match on restore; nothing here."""
        return {}

    def latest(self) -> Progress | None:
        """Return the newest checkpoint that is whole, or None.

        Raises:
            IntegrityError: The newest whole checkpoint belongs to another study, model or round.
        """
        torn: IntegrityError | None = None
        undoing = unfinished(self._folder)
        for path in self._folder.checkpoints_newest_first():
            if undoing is not None and self._folder.round_of(path) > undoing.back_to:
                continue  # a rollback was announced; whoever claims the folder next removes it
            try:
                tensors, header = load_tensors(path)
            except IntegrityError as error:
                torn = error
                continue
            self._check(header)
            if "weights" not in tensors or path != self._path_of(header):
                raise IntegrityError(
                    "a checkpoint of another round than its name says", code=Code.STALE_ROUND, where=path
                )
            return progress_of(tensors, int(header["round"]))
        if torn is not None:
            raise torn
        return None

    def _path_of(self, header: Mapping[str, str]) -> Path | None:
        """Return where a checkpoint with this header belongs."""
        number = header.get("round", "")
        return self._folder.checkpoint(int(number)) if number.isdecimal() else None

    def _check(self, header: Mapping[str, str]) -> None:
        for name, value in self._header.items():
            if header.get(name) != value:
                raise IntegrityError(
                    f"a checkpoint of another {name.replace('_', ' ')}",
                    where=self._folder.checkpoints,
                    hint="give this study its own --out folder",
                )

    def attempts(self, number: int) -> int:
        """Return under how many attempts a round was asked, at least one; the last was the number itself."""
        return max(1, self._folder.attempts(number))

    def next_attempt(self, number: int) -> int:
        """Return and durably record the attempt number for a round, starting at one."""
        return self._folder.next_attempt(number)
