"""Simulated sites for Ray: every actor makes its own from the study file and the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedgen.api.sites import SimulatedSites


class RaySites:
    """Returns the door of a site in whatever process it is called.

    Only three strings travel to an actor; rows, keys and ledgers are opened there.

    Args:
        study: Absolute path of the study file.
        overrides: Changes to the study.
        folder: Absolute path of the run folder.
    """

    _made: ClassVar[dict[tuple[str, tuple[str, ...], str], SimulatedSites]] = {}

    def __init__(self, study: str, overrides: tuple[str, ...], folder: str) -> None:
        self._key = (study, overrides, folder)

    def __call__(self, number: int) -> Callable[[bytes], bytes]:
        """Return the ``handle`` of site ``number``, made in this process when first asked for."""
        if self._key not in RaySites._made:
            RaySites._made[self._key] = self._make()
        return RaySites._made[self._key].door(number)

    def _make(self) -> SimulatedSites:
        from fedgen.api.prepare import prepare
        from fedgen.api.sites import SimulatedSites
        from fedgen.crypto.keys import SigningKey
        from fedgen.runs.folder import RunFolder

        study, overrides, root = self._key
        folder = RunFolder(Path(root))
        coordinator = SigningKey.load(folder.root / "coordinator" / "signing.key").public
        return SimulatedSites(prepare(study, overrides), folder, coordinator, many_processes=True)
