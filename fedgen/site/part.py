"""A site's part in a study whose noise comes in shares: made from what the site knows itself, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedgen.config.distributed import DistributedPlan
from fedgen.crypto.keys import VerifyKey
from fedgen.errors import Refused
from fedgen.site.secure import PlainSite, SecureSite

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fedgen.crypto.keys import SigningKey
    from fedgen.site.admit import Admission
    from fedgen.site.standing import Keeper

    Peers = Callable[[], Mapping[str, bytes]]
    Standings = Callable[[str], Keeper]

_SHOWN: Final = 5  # names in a line for the operator


def part_of(
    admission: Admission,
    name: str,
    identity: SigningKey,
    *,
    peers: Peers | None,
    standing: Standings | None,
) -> SecureSite | PlainSite | None:
    """Return what the site does in the turns of a study that was admitted; None where the study has none.

    Guarantees:
        - The keys of the other sites are the site's own knowledge; nothing that a coordinator sends is among them.
        - A study under distributed trust is refused unless every site of it is known by a key of its own, this one by
          the key it signs with, and what the site did in a run can be kept.

    Args:
        admission: What was agreed to.
        name: The site's name on the roster.
        identity: The site's signing key.
        peers: Name to Ed25519 public key, as the site knows them now; None: it knows nobody.
        standing: Keeps what the site did in a run, by the run's identity; None: nothing does.

    Raises:
        Refused: ``study-refused``; the text, for the site alone, says what is missing.
        IntegrityError: ``storage``: what the site did in this run cannot be read back; ``malformed``: a key is none.
    """
    plan = admission.plan
    if not isinstance(plan, DistributedPlan):
        return None
    if standing is None:
        raise Refused(
            "the study adds vectors up under masks, and nothing keeps what this site did in a run",
            hint="name a folder for the site's state",
        )
    roster = _roster(admission, name, identity, {} if peers is None else peers())
    terms = plan.terms(admission.study.study_hash, admission.run, roster)
    keeper = standing(admission.run)
    return SecureSite(terms, name, identity, keeper) if plan.masked else PlainSite(terms, name, keeper)


def _roster(
    admission: Admission, name: str, identity: SigningKey, known: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Return the key of every site of the study, as this site knows them."""
    names = [entry.name for entry in admission.study.roster]
    strangers = [each for each in names if each not in known]
    if strangers:
        more = ", ..." if len(strangers) > _SHOWN else ""
        raise Refused(
            f"no key is known here for {len(strangers)} of the study's {len(names)} sites: "
            f"{', '.join(strangers[:_SHOWN])}{more}",
            hint="enrol them: each site's public key must be known to every other",
        )
    roster = {each: VerifyKey(known[each]).public for each in names}
    if roster[name] != identity.public:
        raise Refused("the key known here for this very site is not the one it signs with")
    if len(set(roster.values())) != len(roster):
        raise Refused("two sites of the study are known here by one key", hint="enrol each with its own")
    return roster
