"""How a site leaves, and how its home is wiped: what was spent stays on record unless it is told to go."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedgen.api.owner import take_back
from fedgen.api.serving import CHECKPOINT, DATASET, approval_book, ledger_place, served_by
from fedgen.enrolment.places import check_folder
from fedgen.errors import Refused

if TYPE_CHECKING:
    from fedgen.enrolment.site_home import SiteHome

# A table in files of this machine; everything else lies on a server.
_TABLE: Final = re.compile(
    r"(?:(?:csv|parquet)://|sqlite(?:\+\w+)?:///|(?![A-Za-z][A-Za-z0-9+.-]+:))(?P<path>[^?]+)"
)


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
    for path in (home.invitation, home.ca_certificate, home.state / "invitation"):
        path.unlink(
            missing_ok=True
        )  # first: it needs no room on the disk, and without it everything is refused
    for it in approved:
        take_back(home, book, it.study_hash, it)
    for folder in (home.peers_folder, home.pending):
        if folder.is_dir():
            shutil.rmtree(folder)
    return tuple(it.study_hash for it in approved)


def check_stopped(home: SiteHome) -> None:
    """Return if nobody serves a site; a verb asks so before it asks a person anything.

    Raises:
        Refused: A daemon serves the home.
        ConfigError: The home is not one of ours.
    """
    home.spec()  # a folder without a site's file is none of ours
    if served_by(home) is not None:
        raise Refused("a daemon serves this site", where=home.root, hint="stop it first, and its relay")


def kept_by_wipe(home: SiteHome, *, ledger_too: bool) -> tuple[Path, ...]:
    """Return what a wipe leaves in the home, unless the ledger goes too: that, what goes on with it, and the table."""
    if ledger_too:
        return ()
    place = ledger_place(home, home.spec())
    kept = [home.config, home.ledger_key, home.state / DATASET, home.state / CHECKPOINT]
    if isinstance(place, Path):
        kept += _inside(home, place)
    kept += table_in(home)
    return tuple(dict.fromkeys(path for path in kept if path.exists()))


def table_in(home: SiteHome) -> tuple[Path, ...]:
    """Return what of the site's table lies in the home; nothing where it is elsewhere, as it should be."""
    found = _TABLE.match(home.spec().source.strip())
    return _inside(home, home.root / Path(found["path"]).expanduser()) if found else ()


def _inside(home: SiteHome, named: Path) -> tuple[Path, ...]:
    """Return a file or folder that a site's file names, and what a database keeps beside it, if it is in the home.

    As the file system has it: the path may go through ``..`` or a link, and a name may look like a pattern.
    """
    root, found = home.root.resolve(), list[Path]()
    for path in {named.parent.resolve() / named.name, named.resolve()}:
        if path == root or not path.is_relative_to(root) or not path.parent.is_dir():
            continue
        folder = home.root / path.parent.relative_to(root)
        found += [it for it in folder.iterdir() if it.name.startswith(path.name)]
    return tuple(sorted(found))


def wipe(home: SiteHome, *, ledger_too: bool = False) -> tuple[Path, ...]:
    """Remove a site's home: keys, approvals, memory, consent store in it; irreversible.

    Guarantees:
        - The ledger, its key and the identity of its data stay, unless ``ledger_too``: spent budget must not be
          forgotten while the data are there. A table that lies in the home stays with them, and goes with them.
        - What lies outside of the home is not touched: the data, and a ledger or a store on a server.

    Edge cases:
        - Stopped half-way and called again, it goes on.

    Returns:
        What is left.

    Raises:
        Refused: A daemon serves the home.
        ConfigError: The home is not one of ours.
    """
    check_stopped(home)
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
