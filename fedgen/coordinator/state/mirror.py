"""The run folder as a copy of the state: brought up to date after each round, made anew where it was lost.

The state is the truth while a run is under way; the folder is what verbs, people and auditors read. Nothing here
writes to the state.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fedgen.coordinator.state.store import Earlier, Model
from fedgen.crypto.digest import sha256_hex
from fedgen.errors import Code, IntegrityError
from fedgen.models.state import load_tensors
from fedgen.runs.atomic import storage, write_bytes, write_text
from fedgen.runs.journal import RoundLine, append_round, read_rounds
from fedgen.runs.lines import append_line, read_lines
from fedgen.runs.rollback import run_file

if TYPE_CHECKING:
    from fedgen.coordinator.state.store import StateStore
    from fedgen.runs.folder import RunFolder


class Mirror:
    """Keeps a claimed run folder up to date with the state.

    Guarantees:
        - Whatever stops it, the next :meth:`sync` does the rest; a line is never written twice.
        - A model is put into the folder only with the digest that the state says.

    Args:
        store: The state.
        run: Identity of the run, hex.
        folder: The run folder, claimed by this process, with its study in it.
        every: Keep the checkpoint of each multiple of this round, for a rollback; zero keeps the newest two only.
    """

    def __init__(self, store: StateStore, run: str, folder: RunFolder, *, every: int = 0) -> None:
        self._store, self._run, self._folder, self._every = store, run, folder, every
        identity = run_file(folder)
        if not identity.is_file():
            with storage(identity):
                identity.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_text(identity, run + "\n")
        self._attempts = folder.root / "attempts.jsonl"
        with storage(folder.root):
            folder.checkpoints.mkdir(exist_ok=True)
            self._asked = len(read_lines(self._attempts)) if self._attempts.is_file() else 0
        self._lines = len(read_rounds(folder.metrics))
        newest = folder.checkpoints_newest_first()[:1]
        self._round = folder.round_of(newest[0]) if newest else -1

    def sync(self) -> tuple[RoundLine, ...]:
        """Bring the folder up to date; return the lines of rounds that are new in it.

        A round's model comes before its line: whoever reads of a round finds what it made.

        Raises:
            IntegrityError: A model in the state is damaged.
            ConfigError: The disk is full or the folder cannot be written.
        """
        new = tuple(
            RoundLine.model_validate(json.loads(text))
            for text in self._store.lines(self._run, first=self._lines)
        )
        for asked in self._store.asked(self._run, first=self._asked):
            append_line(self._attempts, asked.round)
            self._asked += 1
        for model in self._store.models(self._run, after=self._round):
            if model.data is not None:
                if sha256_hex(model.data) != model.digest:
                    raise IntegrityError(
                        "a model in the state is damaged",
                        code=Code.STORAGE,
                        where=self._store.database.name,
                        hint="restore the state",
                    )
                write_bytes(self._folder.checkpoint(model.round), model.data)
                self._folder.prune_checkpoints(keep=2, every=self._every)
            self._round = model.round
        for line in new:
            append_round(self._folder.metrics, line)
            self._lines += 1
        return new


def earlier_of(folder: RunFolder) -> Earlier:
    """Return what a run goes on from whose folder was rolled back: everything that stands in it.

    Raises:
        IntegrityError: The newest checkpoint is damaged.
    """
    lines = read_rounds(folder.metrics)
    path = folder.root / "attempts.jsonl"
    model = None
    for checkpoint in folder.checkpoints_newest_first()[:1]:
        tensors, _header = load_tensors(checkpoint)
        data, number = checkpoint.read_bytes(), folder.round_of(checkpoint)
        weights = tensors["weights"].numpy().astype("<f4", copy=False)
        model = Model(number, 1, sha256_hex(data), sha256_hex(weights.tobytes()), data)
    return Earlier(
        asked=tuple(read_lines(path)) if path.is_file() else (),
        lines=tuple((it.round, it.attempt, _text(it)) for it in lines),
        model=model,
    )


def _text(line: RoundLine) -> str:
    return json.dumps(line.model_dump(mode="json", exclude_none=True))
