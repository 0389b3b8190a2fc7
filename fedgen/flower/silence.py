"""A process that runs and answers nobody: noticed, so that it can be started again."""

from __future__ import annotations

from typing import Final

SILENT_S: Final = 90.0  # a machine that is overloaded answers late; one that starts answers late, too


class Silence:
    """Counts how long a process has been silent.

    Args:
        patience: Seconds that it may be.
    """

    def __init__(self, patience: float = SILENT_S) -> None:
        self._patience = patience
        self._process: int | None = None
        self._heard = 0.0

    def too_long(self, process: int | None, now: float, *, answers: bool) -> bool:
        """Take in a look at a process; say whether it should be ended.

        Args:
            process: Its number; another one than before has all the time anew. None: nothing runs.
            now: Seconds, never set back.
            answers: Whether it answered just now.
        """
        if answers or process != self._process:
            self._process, self._heard = process, now
            return False
        return process is not None and now - self._heard > self._patience
