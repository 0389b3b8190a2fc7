"""How a site leaves, and how its home is wiped: what was spent stays on record unless it is told to go."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from fedgen.api.owner import take_back
from fedgen.api.serving import CHECKPOINT, DATASET, approval_book, ledger_place, served_by
from fedgen.enrolment.places import check_folder
from fedgen.errors import Refused

if TYPE_CHECKING:
    from fedgen.enrolment.site_home import SiteHome


def leave(home: SiteHome) -> tuple[str, ...]:
    """Take part no longer: every approval is taken back, the invitation and the peers are forgotten.

    Guarantees:
        - A daemon that runs refuses from its next message on; it need not be stopped first.
        - Keys, ledger, consent store and data stay as they are.

    Returns:
        The hashes of the studies that were approved until now.
    """
    check_folder(home.root)
    book = approval_book(home, home.spec().name)
    approved = [it for it in book.decisions() if it.decision == "approved"]
    for it in approved:
        take_back(home, book, it.study_hash, it)
    for path in (home.invitation, home.ca_certificate, home.state / "invitation"):
        path.unlink(missing_ok=True)
    for folder in (home.peers_folder, home.pending):
        if folder.is_dir():
            shutil.rmtree(folder)
    return tuple(it.study_hash for it in approved)


def kept_by_wipe(home: SiteHome, *, ledger_too: bool) -> tuple[Path, ...]:
    """Return what a wipe leaves in the home: the ledger and what is needed to go on with it, unless it goes too."""
    if ledger_too:
        return ()
    place = ledger_place(home, home.spec())
    kept = [home.config, home.ledger_key, home.state / DATASET, home.state / CHECKPOINT]
    if isinstance(place, Path):
        kept += sorted(place.parent.glob(f"{place.name}*"))
    return tuple(path for path in kept if path.exists() and path.is_relative_to(home.root))


def wipe(home: SiteHome, *, ledger_too: bool = False) -> tuple[Path, ...]:
    """Remove a site's home: keys, approvals, memory, consent store in it; irreversible.

    Guarantees:
        - The ledger, its key and the identity of its data stay, unless ``ledger_too``: spent budget must not be
          forgotten while the data are there.
        - What lies outside of the home is not touched: the data, and a ledger or a store on a server.

    Edge cases:
        - Stopped half-way and called again, it goes on.

    Returns:
        What is left.

    Raises:
        Refused: A daemon serves the home.
        ConfigError: The home is not one of ours.
    """
    home.spec()  # a folder without a site's file is none of ours
    if served_by(home) is not None:
        raise Refused("a daemon serves this site", where=home.root, hint="stop it first")
    kept = kept_by_wipe(home, ledger_too=ledger_too)
    home.identity_key.unlink(missing_ok=True)  # first what can do harm
    home.node_key.unlink(missing_ok=True)
    _empty(home.root, frozenset({*kept, home.config}))
    if not kept:
        home.config.unlink()  # last: until then a second wipe goes on
        home.root.rmdir()
    return kept


def _empty(folder: Path, kept: frozenset[Path]) -> None:
    """Remove everything below a folder but what is kept; links are removed, never followed."""
    for path in sorted(folder.iterdir()):
        if path in kept:
            continue
        if path.is_dir() and not path.is_symlink():
            _empty(path, kept)
            with suppress(OSError):
                path.rmdir()  # not empty where something in it is kept
        else:
            path.unlink()
