"""A site's home: where its file, its keys, its invitation and what it remembers lie."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - a field of the public class
from typing import TYPE_CHECKING, Final

from fedgen.config.password import address_of, check_closed, check_takes_password
from fedgen.config.site import SiteSpec, load_site
from fedgen.crypto.keys import SigningKey
from fedgen.enrolment.documents import Invitation, Request
from fedgen.enrolment.places import check_folder, check_home
from fedgen.enrolment.signed import decode, read_bounded
from fedgen.errors import Code, ConfigError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PEERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class SiteHome:
    """The folder of one site, mode 0700; everything below is a path in it, or read from it.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The site's file."""
        return self.root / "site.yaml"

    @property
    def keys(self) -> Path:
        """Folder of the private keys."""
        return self.root / "keys"

    @property
    def identity_key(self) -> Path:
        """The key that signs what the site sends and approves."""
        return self.keys / "identity.key"

    @property
    def ledger_key(self) -> Path:
        """The key that signs the ledger."""
        return self.keys / "ledger.key"

    @property
    def node_key(self) -> Path:
        """Flower's node key, OpenSSH EC P-384; the relay reads it."""
        return self.keys / "node.key"

    @property
    def node_public(self) -> Path:
        """Public half of the node key, one line of OpenSSH."""
        return self.keys / "node.pub"

    @property
    def ca_certificate(self) -> Path:
        """The coordinator's CA certificate, PEM; written when the invitation is accepted."""
        return self.keys / "ca.crt"

    @property
    def invitation(self) -> Path:
        """The accepted invitation."""
        return self.root / "invitation.json"

    @property
    def request(self) -> Path:
        """The newest request of this site, as it was sent."""
        return self.root / "request.json"

    @property
    def rotations(self) -> Path:
        """The rotations of this site's identity so far."""
        return self.root / "rotations.json"

    @property
    def peers_folder(self) -> Path:
        """Folder of the other sites' requests, one ``<name>.json`` each."""
        return self.root / "peers"

    @property
    def approvals(self) -> Path:
        """Folder of the owner's approvals, one for each study hash."""
        return self.root / "approvals"

    @property
    def pending(self) -> Path:
        """Folder of the studies that wait for the owner."""
        return self.root / "pending"

    @property
    def ledger(self) -> Path:
        """The ledger, unless the site's file names another place."""
        return self.root / "ledger.db"

    @property
    def consent(self) -> Path:
        """The consent store, unless the site's file names another place."""
        return self.root / "consent.db"

    @property
    def state(self) -> Path:
        """Folder of what the daemon remembers between messages."""
        return self.root / "state"

    @property
    def run(self) -> Path:
        """Folder of the socket."""
        return self.root / "run"

    @property
    def socket(self) -> Path:
        """The Unix socket of the daemon."""
        return self.run / "site.sock"

    def spec(self) -> SiteSpec:
        """Return the site's file, read now.

        Raises:
            ConfigError: The home or the file is missing, open to others, or not valid.
        """
        check_home(self.config, "site", "site init")
        spec = load_site(self.config)
        check_closed(
            self.config, spec.source, spec.ledger, None if spec.policy is None else spec.policy.store
        )
        check_takes_password(spec.source, spec.source_password, where=self.config, key="source_password")
        return spec

    def source_address(self, spec: SiteSpec | None = None) -> str:
        """Return the address of the site's table, with the password where one is named: it is never shown.

        Args:
            spec: The site's file, where it was read already.

        Raises:
            ConfigError: As :meth:`spec`; or the password is not where it should be, or open to others.
        """
        spec = self.spec() if spec is None else spec
        key = "source_password"
        return address_of(spec.source, spec.source_password, base=self.root, where=self.config, key=key)

    def identity(self) -> SigningKey:
        """Return the identity key.

        Raises:
            ConfigError: It is missing, or open to others.
        """
        return SigningKey.load(self.identity_key)

    def ledger_signing_key(self) -> SigningKey:
        """Return the key that signs the ledger.

        Raises:
            ConfigError: It is missing, or open to others.
        """
        return SigningKey.load(self.ledger_key)

    def accepted(self) -> Invitation | None:
        """Return the accepted invitation, expired or not, or None if none was accepted yet.

        Raises:
            ConfigError: The file is no invitation.
            IntegrityError: It was changed.
        """
        if not self.invitation.exists() and not self.invitation.is_symlink():
            return None
        data = read_bounded(self.invitation, follow=False)
        return decode(data, Invitation, where=self.invitation)

    def coordinator(self, now: datetime | None = None) -> Invitation:
        """Return the accepted invitation if it holds now for this site and its identity key.

        Args:
            now: The instant it must hold at; None is the present one.

        Raises:
            ConfigError: None was accepted, or the file is no invitation.
            IntegrityError: It was changed.
            Refused: It is for another site or key, or expired.
        """
        found = self.accepted()
        if found is None:
            raise ConfigError(
                "no invitation was accepted yet",
                where=self.invitation,
                hint="send the request to the coordinator, then: fedgen site join INVITATION",
            )
        found.check_for(self.spec().name, self.identity().public, now or datetime.now(UTC))
        return found

    def peer_requests(self) -> Mapping[str, Request]:
        """Return what is known of each other site, by name.

        Raises:
            ConfigError: A file is no request, or the folder is open to others.
            IntegrityError: One was changed, or names another site than its file does.
        """
        if not self.peers_folder.exists():
            return {}
        check_folder(self.peers_folder)
        found = {}
        for path in sorted(self.peers_folder.glob("*.json"))[:MAX_PEERS]:
            if path.name.startswith("."):
                continue
            request = decode(read_bounded(path, follow=False), Request, where=path)
            if request.name != path.stem:
                what = "the file's name is not that of the site in it"
                raise IntegrityError(what, code=Code.UNKNOWN_SENDER, where=path)
            found[request.name] = request
        return found

    def peers(self) -> Mapping[str, bytes]:
        """Return the identity key of each other site that the owner has let in, by name; 32 bytes each.

        Raises:
            ConfigError: As :meth:`peer_requests`.
            IntegrityError: As :meth:`peer_requests`.
        """
        return {name: bytes.fromhex(it.identity) for name, it in self.peer_requests().items()}
