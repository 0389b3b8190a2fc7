"""What a new version of a pack would change, before anybody activates it: over cases, or over a site's own people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedgen.api.consents import open_store
from fedgen.api.policies import PathLike, identity, read_cases
from fedgen.errors import ConfigError, UsageError
from fedgen.policy.cases import read_case
from fedgen.policy.pack_diff import PackDiff, diff
from fedgen.policy.packs import load_pack
from fedgen.policy.plain_values import Unreadable
from fedgen.policy.standing import stand

if TYPE_CHECKING:
    from fedgen.policy.columns import Request
    from fedgen.policy.packs import LoadedPack


@dataclass(frozen=True, slots=True)
class Compared:
    """What a new version of a pack would change, over what was asked about.

    Attributes:
        old: The pack in force.
        new: The proposed one.
        diff: What moves.
        unread: Cases that could not be understood, which both quarantine.
        over: ``keys`` alone, ``cases``, ``records`` of a store, or ``people`` of a site.
    """

    old: LoadedPack
    new: LoadedPack
    diff: PackDiff
    unread: int
    over: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "old": identity(self.old),
            "new": identity(self.new),
            "over": self.over,
            "unread": self.unread,
            **self.diff.to_json(),
        }


def compare(
    old: PathLike,
    new: PathLike,
    *,
    cases: PathLike | None = None,
    store: PathLike | None = None,
    store_key: PathLike | None = None,
    site: PathLike | None = None,
    request: Request | None = None,
) -> Compared:
    """Return what a new version of a pack would change: a dry run, nothing is decided by it.

    Args:
        old: In force: a name or a path.
        new: Proposed.
        cases: A file of cases to try both on.
        store: A consent store whose own records to try both on.
        store_key: File of its secret.
        site: A site's file: both are tried on everybody in its store, with what it states; one row a person.
        request: What is asked of a store or a site, at the present. A site's stated documents say where it goes.

    Raises:
        ConfigError: A pack, the file or the store cannot be read; or the packs are for two laws.
        UsageError: More than one of cases, a store and a site is named.
    """
    before, after = load_pack(_named(old)), load_pack(_named(new))
    if before.pack.law != after.pack.law:
        what = f"the packs are for two laws, {before.pack.law} and {after.pack.law}"
        raise ConfigError(what, where=str(new), key="law", hint="compare two versions of one law")
    if sum(each is not None for each in (cases, store, site)) > 1:
        raise UsageError("cases, a store or a site, one of them", hint="leave the others out")
    if cases is not None:
        return _over_cases(before, after, read_cases(cases))
    if request is None or (store is None and site is None):
        return Compared(before, after, diff(before, after), 0, "keys")
    if site is not None:
        return _over_site(before, after, site, request)
    with open_store(store, key=store_key) as opened:
        view = opened.columns()
        _, records = opened.records(view.known_at)
    asked = replace(request, time=view.known_at, known_at=view.known_at)
    standing = stand(records.people, view.consent, view.rights, view.subjects, asked)
    return Compared(before, after, diff(before, after, records, standing, asked), 0, "records")


def _named(name: PathLike) -> str:
    return str(name)


def _over_site(before: LoadedPack, after: LoadedPack, site: PathLike, request: Request) -> Compared:
    """Try both packs on everybody a site's store knows, one row a person, with what the site states of its rows."""
    from fedgen.api.explaining import site_holder
    from fedgen.site.facts import records_of, request_of

    holder = site_holder(site)
    if holder.stated is None or holder.store is None:
        raise ConfigError("the site states nothing of its rows", where=str(site), key="policy.records")
    with open_store(holder.store, key=holder.store_key) as opened:
        view = opened.columns()
    everybody = np.unique(np.concatenate((view.subjects.people, view.consent.people, view.rights.people)))
    records = records_of(holder.stated, everybody)
    at = view.known_at
    asked = replace(request_of(holder.stated, request.purpose, at, at, None), operation=request.operation)
    standing = stand(records.people, view.consent, view.rights, view.subjects, asked)
    return Compared(before, after, diff(before, after, records, standing, asked), 0, "people")


def _over_cases(before: LoadedPack, after: LoadedPack, cases: Any) -> Compared:
    """Try both packs on cases; the law each names is left aside."""
    found, unread = [], 0
    for case in cases if isinstance(cases, list) else [cases]:
        try:
            read = read_case(case)
        except (Unreadable, RecursionError):
            unread += 1
            continue
        standing = stand(read.records.people, read.consent, read.rights, read.subjects, read.request)
        found.append(diff(before, after, read.records, standing, read.request))
    moves: Counter[Any] = Counter()
    for one in found:
        moves.update(one.moves)
    whole = PackDiff(
        rows=sum(one.rows for one in found),
        changed=sum(one.changed for one in found),
        denied_more=sum(one.denied_more for one in found),
        allowed_more=sum(one.allowed_more for one in found),
        moves=dict(moves.most_common()),
        keys=diff(before, after).keys,
    )
    return Compared(before, after, whole, unread, "cases")
