"""What the owner of a site does: make its keys, ask to be enrolled, accept an invitation, let other sites in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - a field of the public functions
from typing import TYPE_CHECKING, Final, Literal

from fedgen._files import sweep
from fedgen.crypto.certificates import check_authority
from fedgen.crypto.keys import SigningKey, fingerprint, seal
from fedgen.crypto.node_keys import check_node_public, make_node_key, node_public
from fedgen.enrolment.documents import Invitation, Request, leads_from, moment, shown
from fedgen.enrolment.places import alone, make_folder, read_private
from fedgen.enrolment.rotation import leading_to, make_key, rotate
from fedgen.enrolment.signed import decode, encode, read_bounded
from fedgen.errors import Code, ConfigError, Refused, UsageError
from fedgen.runs.atomic import write_private

if TYPE_CHECKING:
    from fedgen.enrolment.site_home import SiteHome

SiteKey = Literal["identity", "ledger", "node"]
SITE_KEYS: Final[tuple[SiteKey, ...]] = ("identity", "ledger", "node")


@dataclass(frozen=True, slots=True)
class Word:
    """Whether a document can be taken at its own word, or a person must compare fingerprints.

    Attributes:
        key: The identity key that it names, hex.
        needed: Whether a person must say that this is the right key.
        why: What a person should know, in one clause.
    """

    key: str
    needed: bool
    why: str

    @property
    def shown(self) -> str:
        """The key's fingerprint, as two people compare it."""
        return shown(self.key)


def make_folders(home: SiteHome) -> None:
    """Make the folders of a site's home, each of mode 0700.

    Raises:
        ConfigError: One cannot be made, or is open to others.
    """
    for folder in (
        home.root, home.keys, home.peers_folder, home.approvals, home.pending, home.state, home.run,
    ):  # fmt: skip
        make_folder(folder)


def make_site_keys(home: SiteHome) -> tuple[SiteKey, ...]:
    """Make each private key of a site that is not there yet; return those that were made.

    Guarantees:
        - A key that is there stays as it is.
        - Identity and ledger have keys of their own, so the identity can change while the ledger goes on.

    Raises:
        ConfigError: A folder is open to others, or the disk is full.
    """
    sweep(home.keys)
    return tuple(kind for kind in SITE_KEYS if make_site_key(home, kind))


def make_site_key(home: SiteHome, kind: SiteKey) -> bool:
    """Make one private key where there is none; say whether one was made.

    Raises:
        ConfigError: The place cannot be written.
        IntegrityError: The node key that is there is damaged.
    """
    if kind != "node":
        return make_key(home.identity_key if kind == "identity" else home.ledger_key, SigningKey)
    made = not (home.node_key.exists() or home.node_key.is_symlink())
    if made:
        write_private(home.node_key, make_node_key())
    # Written from the private half each time: a kill may have come between the two.
    write_private(home.node_public, f"{_node_line(home)}\n".encode())
    return made


def write_request(
    home: SiteHome, *, name: str, rows: int, persons: int | None, now: datetime
) -> tuple[Request, bytes]:
    """Make a site's next request and keep it in its home; return it, and the bytes to send.

    Args:
        home: The site's home, with its keys.
        name: The site's name.
        rows: Declared rows, to two digits.
        persons: Declared persons, to two digits, or None.
        now: The present instant.

    Raises:
        ConfigError: A key is missing or open to others, or the disk is full.
        IntegrityError: A key or an earlier request is damaged.
    """
    before = own_request(home)
    identity = home.identity()
    request = Request(
        name=name,
        identity=identity.public.hex(),
        ledger=home.ledger_signing_key().public.hex(),
        node=_node_line(home),
        rows=rows,
        persons=persons,
        number=1 if before is None else before.number + 1,
        issued=moment(now),
        rotations=leading_to(home.rotations, identity),
    )
    data = encode(request, identity)
    write_private(home.request, data)
    return request, data


def own_request(home: SiteHome) -> Request | None:
    """Return the newest request of a site, or None if it has made none.

    Raises:
        ConfigError: The file is no request.
        IntegrityError: It was changed.
    """
    if not home.request.exists() and not home.request.is_symlink():
        return None
    return decode(read_bounded(home.request, follow=False), Request, where=home.request)


def needed_request(home: SiteHome) -> Request:
    """Return the newest request of a site.

    Raises:
        ConfigError: It has made none: its home is not finished.
        IntegrityError: The file was changed.
    """
    request = own_request(home)
    if request is None:
        hint = "name it with --home or $FEDGEN_SITE, or run `fedgen site init` again"
        raise ConfigError("this is no finished home of a site", where=home.root, hint=hint)
    return request


def weigh_invitation(home: SiteHome, invitation: Invitation, now: datetime) -> Word:
    """Return whether an invitation needs a person's word before it is accepted.

    Guarantees:
        - What is not for this site and its present key, expired, older than the accepted one, or without sound keys is
          refused whatever a person says.

    Raises:
        Refused: It is for another site or key, expired, or older than what was accepted.
        IntegrityError: Its certificate or its sealing key is none.
    """
    own = needed_request(home)
    invitation.check_for(own.name, home.identity().public, now)
    check_authority(invitation.ca.encode())
    seal(invitation.sealing_key, b"", info=b"")
    known = home.accepted()
    if known is None:
        return Word(invitation.coordinator, needed=True, why="the first invitation of this site")
    same = known.coordinator == invitation.coordinator
    if not same and not leads_from(known.coordinator, invitation.rotations):
        why = "ANOTHER coordinator than before, and the old one's key does not vouch for it"
        return Word(invitation.coordinator, needed=True, why=why)
    if invitation.number < known.number or (invitation.number == known.number and invitation != known):
        raise Refused(
            f"an older invitation (number {invitation.number}) than the accepted one (number {known.number})",
            code=Code.REPLAYED,
            hint="use the newest one",
        )
    why = "the coordinator known already" if same else "a new key, vouched for by the coordinator's old one"
    return Word(invitation.coordinator, needed=False, why=why)


def accept_invitation(home: SiteHome, data: bytes, *, believed: bool, now: datetime) -> Invitation:
    """Keep an invitation as the one that this site trusts; return it.

    Args:
        home: The site's home.
        data: The bytes of the invitation.
        believed: Whether a person compared the fingerprint.
        now: The present instant.

    Raises:
        ConfigError: It is no invitation, or the disk is full.
        IntegrityError: It was changed.
        Refused: As :func:`weigh_invitation`; or a person's word is needed and was not given.
    """
    with alone(home.root):
        invitation = decode(data, Invitation)
        _check_word(weigh_invitation(home, invitation, now), believed=believed)
        write_private(home.ca_certificate, invitation.ca.encode())
        write_private(home.invitation, data)
    return invitation


def weigh_peer(home: SiteHome, peer: Request) -> Word:
    """Return whether another site's request needs a person's word before its key is trusted.

    Raises:
        Refused: It is this site's own, has a key that another peer has, or is older than what is known.
        IntegrityError: Its node key is none.
    """
    own = needed_request(home)
    if peer.name == own.name or peer.identity == own.identity:
        hint = "give it the requests of the other sites"
        raise Refused("that is this site itself", code=Code.UNKNOWN_SENDER, hint=hint)
    check_node_public(peer.node)
    peers = home.peer_requests()
    twins = [name for name, it in peers.items() if it.identity == peer.identity and name != peer.name]
    if twins:
        raise Refused(f"{twins[0]} has the same key, and one of the two is lying", code=Code.UNKNOWN_SENDER)
    known = peers.get(peer.name)
    if known is None:
        return Word(peer.identity, needed=True, why=f"{peer.name} was not known before")
    return _weigh_newer(known, peer)


def _weigh_newer(known: Request, peer: Request) -> Word:
    """Return whether a further request of a known site needs a person's word."""
    if known.identity != peer.identity and not leads_from(known.identity, peer.rotations):
        why = f"ANOTHER key of {peer.name} than before, and the old one does not vouch for it"
        return Word(peer.identity, needed=True, why=why)
    check_newer(known, peer)
    return Word(peer.identity, needed=False, why=f"{peer.name} is known, and its own key vouches for this")


def check_newer(known: Request, request: Request) -> None:
    """Return unless a request is older than the one that is known, or another of the same number.

    Raises:
        Refused: It is (code ``replayed``).
    """
    if request.number < known.number or (request.number == known.number and request != known):
        raise Refused(
            f"an older request of {request.name} (number {request.number}) than the known one "
            f"(number {known.number})",
            code=Code.REPLAYED,
            hint="use the newest one",
        )


def accept_peer(home: SiteHome, data: bytes, *, believed: bool) -> Request:
    """Keep another site's key as one that this site trusts; return its request.

    Raises:
        ConfigError: It is no request, or the disk is full.
        IntegrityError: It was changed.
        Refused: As :func:`weigh_peer`; or a person's word is needed and was not given.
    """
    with alone(home.root):
        peer = decode(data, Request)
        _check_word(weigh_peer(home, peer), believed=believed)
        make_folder(home.peers_folder)
        write_private(home.peers_folder / f"{peer.name}.json", data)
    return peer


def _check_word(word: Word, *, believed: bool) -> None:
    if word.needed and not believed:
        raise Refused(
            "nobody compared the fingerprint",
            code=Code.UNKNOWN_SENDER,
            hint="read it to the other side over the telephone, then give it with --fingerprint",
        )


def rotate_site_key(home: SiteHome, kind: SiteKey, now: datetime) -> tuple[Request, bytes]:
    """Change the identity or the node key of a site; return its new request, to be sent to everybody.

    Guarantees:
        - Killed at any point, the same command finishes.

    Edge cases:
        - The coordinator and the peers know the old key until they take the new request: until then they refuse
          what this site sends.

    Raises:
        UsageError: The ledger's key does not change: every entry of the ledger is signed by it.
        ConfigError: A file is missing or cannot be written.
        IntegrityError: A file was changed.
    """
    if kind == "ledger":
        raise UsageError(
            "the ledger's key does not change: it has signed every entry",
            hint="a ledger with another key is another ledger, and its budget begins anew with the data's owner",
        )
    with alone(home.root):
        own = needed_request(home)
        unfinished = own.identity != home.identity().public.hex()  # the key changed, and nobody was told yet
        if kind == "identity" and not unfinished:
            rotate(home.identity_key, home.rotations, role="site", name=own.name, now=now)
        elif kind == "node":
            write_private(home.node_key, make_node_key())
            make_site_key(home, "node")
        return write_request(home, name=own.name, rows=own.rows, persons=own.persons, now=now)


def replace_lost_key(home: SiteHome, kind: SiteKey, now: datetime) -> tuple[Request, bytes]:
    """Make a key in the place of a lost one; return the new request, for which the old key cannot vouch.

    Raises:
        ConfigError: The key is not lost, or a file cannot be written.
        IntegrityError: A file was changed.
    """
    with alone(home.root):
        own = needed_request(home)
        if not make_site_key(home, kind):
            raise ConfigError(
                f"the {kind} key is there", where=home.keys, hint=f"to change it: fedgen keys rotate {kind}"
            )
        return write_request(home, name=own.name, rows=own.rows, persons=own.persons, now=now)


def key_names(home: SiteHome) -> dict[str, str]:
    """Return the fingerprint of each public key of a site, 64 hex digits, by kind.

    Raises:
        ConfigError: A key is missing or open to others.
        IntegrityError: A key is damaged.
    """
    return {
        "identity": home.identity().fingerprint,
        "ledger": home.ledger_signing_key().fingerprint,
        "node": fingerprint("node", _node_line(home).encode()),
    }


def _node_line(home: SiteHome) -> str:
    """Return the public half of the node key, from its private file."""
    return node_public(read_private(home.node_key), where=home.node_key)


def says(home: SiteHome, request: Request, rows: int, persons: int | None) -> bool:
    """Say whether a request still says what holds: these sizes, and the keys that are in the home.

    Raises:
        ConfigError: A key is missing or open to others.
        IntegrityError: A key is damaged.
    """
    return (request.rows, request.persons, request.identity, request.ledger, request.node) == (
        rows,
        persons,
        home.identity().public.hex(),
        home.ledger_signing_key().public.hex(),
        _node_line(home),
    )
