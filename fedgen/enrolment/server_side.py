"""What a coordinator's administrator does: make its keys, let sites in, invite them again, put them out."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from fedgen._files import sweep
from fedgen.crypto.keys import SealingKey, SigningKey, fingerprint
from fedgen.crypto.node_keys import check_node_public
from fedgen.enrolment.authority import authority_pem, certificates, make_certificates, new_authority, renew
from fedgen.enrolment.documents import Invitation, Request, leads_from, moment
from fedgen.enrolment.places import alone, make_folder
from fedgen.enrolment.records import EnrolledSite, Former, write_record
from fedgen.enrolment.rotation import leading_to, make_key, rotate
from fedgen.enrolment.signed import decode, encode, signature_in
from fedgen.enrolment.site_side import Word, check_newer
from fedgen.errors import Code, ConfigError, Refused, UsageError
from fedgen.runs.atomic import replacing, write_private

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from fedgen.enrolment.server_home import ServerHome

ServerKey = Literal["identity", "sealing", "tls", "ca", "superexec"]
SERVER_KEYS: Final[tuple[ServerKey, ...]] = ("identity", "sealing", "tls", "ca", "superexec")


def make_server_folders(home: ServerHome) -> None:
    """Make the folders of a coordinator's home, each of mode 0700.

    Raises:
        ConfigError: One cannot be made, or is open to others.
    """
    for folder in (home.root, home.keys, home.sites_folder, home.flower):
        make_folder(folder)


def make_server_keys(home: ServerHome, now: datetime) -> None:
    """Make each key and certificate of a coordinator that is not there yet; its file must be there.

    Guarantees:
        - A key that is there stays as it is; one that is gone after sites were enrolled is not made in silence.

    Raises:
        ConfigError: A key is gone that enrolled sites trust; a folder is open to others, or the disk is full.
        IntegrityError: The authority is damaged or has expired.
    """
    sweep(home.keys)
    for kind, path in (("identity", home.identity_key), ("sealing", home.sealing_key)):
        if not path.exists() and home.sites():
            raise ConfigError(
                "is gone, and sites are enrolled", where=path, hint=f"restore it, or: fedgen keys new {kind}"
            )
    make_key(home.identity_key, SigningKey)
    make_key(home.sealing_key, SealingKey)
    if not home.superexec_secret.exists():
        write_private(home.superexec_secret, secrets.token_hex(32).encode())
    make_certificates(home, now)


def weigh_request(sites: Mapping[str, EnrolledSite], request: Request) -> Word:
    """Return whether a site's request needs a person's word before the site is enrolled.

    Guarantees:
        - A key that was revoked never comes back, under no name; nor is one key enrolled under two names.
        - A known name with another key needs its old key's word; no person can replace that but by revoking first.

    Args:
        sites: Every site that was ever enrolled.
        request: What came in, its signature checked.

    Raises:
        Refused: As said, or it is older than what is known.
        IntegrityError: The node key is none.
    """
    check_node_public(request.node)
    _check_keys_are_free(sites, request)
    known = sites.get(request.name)
    if known is None:
        return Word(request.identity, needed=True, why=f"{request.name} was not enrolled before")
    if not known.active:
        why = f"{request.name} was revoked on {known.revoked}, and asks with a new key"
        return Word(request.identity, needed=True, why=why)
    if known.request.identity != request.identity and not leads_from(
        known.request.identity, request.rotations
    ):
        raise Refused(
            f"{request.name} is enrolled with another key, which does not vouch for this one",
            code=Code.UNKNOWN_SENDER,
            hint=f"if the site lost its key: fedgen server revoke {request.name}, then enroll again",
        )
    check_newer(known.request, request)
    if known.request.ledger != request.ledger:
        why = f"{request.name} HAS ANOTHER LEDGER KEY than before: its account of what was spent begins anew"
        return Word(request.identity, needed=True, why=why)
    return Word(
        request.identity, needed=False, why=f"{request.name} is enrolled, and its own key vouches for this"
    )


def _check_keys_are_free(sites: Mapping[str, EnrolledSite], request: Request) -> None:
    """Refuse a key that was revoked, or that another site has.

    Raises:
        Refused: It is.
    """
    for name, site in sites.items():
        gone = {former.identity for former in site.former}
        nodes = {former.node for former in site.former if former.revoked}
        if not site.active:
            gone.add(site.request.identity)
            nodes.add(site.request.node)
        if request.node in nodes:
            raise Refused(
                "the node key was revoked, and does not come back",
                code=Code.UNKNOWN_SENDER,
                hint="make another with `fedgen keys rotate node` and send the new request",
            )
        if request.identity in gone:
            raise Refused(
                "the identity key was revoked or replaced, and does not come back",
                code=Code.UNKNOWN_SENDER,
                hint="make another with `fedgen keys rotate identity` and send the new request",
            )
        shared = request.identity == site.request.identity or request.node == site.request.node
        if name != request.name and (shared or request.ledger == site.request.ledger):
            raise Refused(f"{name} has the same key, and a key is one site's alone", code=Code.UNKNOWN_SENDER)


def enroll(
    home: ServerHome, data: bytes, *, believed: bool, now: datetime, days: int | None = None
) -> tuple[EnrolledSite, bytes]:
    """Let a site in, or take its newer keys; return its record and an invitation to send to it.

    Guarantees:
        - The record is on the disk before the invitation exists.

    Args:
        home: The coordinator's home.
        data: The bytes of the site's request.
        believed: Whether a person compared the fingerprint.
        now: The present instant.
        days: How long the invitation lasts; None is what the server's file says.

    Raises:
        ConfigError: It is no request, or the disk is full.
        IntegrityError: It was changed.
        Refused: As :func:`weigh_request`; or a person's word is needed and was not given.
    """
    with alone(home.root):
        request, sites = decode(data, Request), home.sites()
        word = weigh_request(sites, request)
        if word.needed and not believed:
            raise Refused(
                "nobody compared the fingerprint",
                code=Code.UNKNOWN_SENDER,
                hint="ask the site for it over the telephone, then give it with --fingerprint",
            )
        record = _record(sites.get(request.name), request, signature_in(data), now)
        return _invite(home, record, now, days)


def _record(known: EnrolledSite | None, request: Request, signature: str, now: datetime) -> EnrolledSite:
    """Return what is kept of a site from now on; its next invitation is not counted yet."""
    if known is None:
        return EnrolledSite(
            request=request, signature=signature, enrolled=moment(now), invitations=0, expires=moment(now)
        )
    former = known.former
    if known.request.identity != request.identity:
        ended = Former(
            identity=known.request.identity,
            node=known.request.node,
            ended=known.revoked or moment(now),
            revoked=known.revoked is not None,
        )
        former = (*former, ended)
    return EnrolledSite(
        request=request,
        signature=signature,
        enrolled=known.enrolled if known.active else moment(now),
        invitations=known.invitations,
        expires=known.expires,
        former=former,
    )


def invite(
    home: ServerHome, name: str, *, now: datetime, days: int | None = None
) -> tuple[EnrolledSite, bytes]:
    """Make the next invitation of an enrolled site: the last one expires, or keys or address changed.

    Raises:
        ConfigError: There is no such site, or the disk is full.
        Refused: It was revoked.
    """
    with alone(home.root):
        record = _known(home, name)
        if not record.active:
            raise Refused(
                f"{name} was revoked on {record.revoked}",
                code=Code.NOT_ADMITTED,
                hint="it can be enrolled again, with a new key",
            )
        return _invite(home, record, now, days)


def _invite(
    home: ServerHome, record: EnrolledSite, now: datetime, days: int | None
) -> tuple[EnrolledSite, bytes]:
    """Count, keep and return a site's next invitation."""
    spec, identity = home.spec(), home.identity()
    expires = moment(now + timedelta(days=days or spec.invitation_days))
    record = record.model_copy(update={"invitations": record.invitations + 1, "expires": expires})
    invitation = Invitation(
        coordinator=identity.public.hex(),
        sealing=home.sealing().public.hex(),
        name=spec.name,
        address=spec.address,
        ca=authority_pem(home),
        site=record.name,
        site_key=fingerprint("signing", record.identity),
        number=record.invitations,
        issued=moment(now),
        expires=expires,
        rotations=leading_to(home.rotations, identity),
    )
    data = encode(invitation, identity)
    write_record(home.sites_folder / f"{record.name}.json", record)
    return record, data


def revoke(home: ServerHome, name: str, *, now: datetime) -> EnrolledSite:
    """Put a site out, from now on; return its record. Once more changes nothing.

    Raises:
        ConfigError: There is no such site, or the disk is full.
    """
    with alone(home.root):
        record = _known(home, name)
        if record.active:
            record = record.model_copy(update={"revoked": moment(now)})
            write_record(home.sites_folder / f"{name}.json", record)
        return record


def _known(home: ServerHome, name: str) -> EnrolledSite:
    """Return a site's record; ``ConfigError`` if it was never enrolled."""
    sites = home.sites()
    if name not in sites:
        from fedgen.schema.explain import nearest

        guess = nearest(name, list(sites))
        hint = f"did you mean {guess}?" if guess else "see: fedgen server status"
        raise ConfigError(f"no site {name!r} is enrolled", where=home.root, hint=hint)
    return sites[name]


def rotate_server_key(home: ServerHome, kind: ServerKey, now: datetime) -> bool:
    """Change a key of the coordinator; say whether the sites need new invitations.

    Raises:
        ConfigError: A file is missing or cannot be written.
        IntegrityError: A file was changed.
    """
    with alone(home.root):
        if kind == "identity":
            name = home.spec().name
            rotate(home.identity_key, home.rotations, role="coordinator", name=name, now=now)
        elif kind == "sealing":
            _replace_sealing(home)
        elif kind == "tls":
            renew(home, now, again=True)
        elif kind == "ca":
            new_authority(home, now)
        else:
            write_private(home.superexec_secret, secrets.token_hex(32).encode())
    return kind in {"identity", "sealing", "ca"}


def replace_lost_key(home: ServerHome, kind: ServerKey) -> None:
    """Make a key in the place of a lost one; every site needs a new invitation then.

    Raises:
        ConfigError: The key is not lost, or the disk is full.
        UsageError: Certificates are made again by `rotate`.
    """
    with alone(home.root):
        if kind == "identity":
            made = make_key(home.identity_key, SigningKey)
        elif kind == "sealing":
            made = make_key(home.sealing_key, SealingKey)
        else:
            raise UsageError(f"{kind} is not lost, but made again", hint=f"fedgen keys rotate {kind}")
    if not made:
        raise ConfigError(
            f"the {kind} key is there", where=home.keys, hint=f"to change it: fedgen keys rotate {kind}"
        )


def _replace_sealing(home: ServerHome) -> None:
    """Put a fresh sealing key in place in one rename; what was sealed for the old one opens no more."""
    with replacing(home.sealing_key) as temporary:
        SealingKey.generate().save(temporary)


def server_key_names(home: ServerHome) -> dict[str, str]:
    """Return the fingerprint of each public key or certificate of a coordinator, 64 hex digits, by kind.

    Raises:
        ConfigError: One is missing or open to others.
        IntegrityError: One is damaged.
    """
    found = certificates(home)
    return {
        "identity": home.identity().fingerprint,
        "sealing": home.sealing().fingerprint,
        "tls": found["tls"].fingerprint,
        "ca": found["ca"].fingerprint,
    }
