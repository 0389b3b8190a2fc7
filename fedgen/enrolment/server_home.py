"""A coordinator's home: where its file, its keys and certificates, the enrolled sites and its runs lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fedgen.config.password import address_of, check_closed, check_takes_password
from fedgen.config.server import ServerSpec, load_server
from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.enrolment.places import check_folder, check_home
from fedgen.enrolment.records import EnrolledSite, read_record

if TYPE_CHECKING:
    from collections.abc import Mapping


class KeyAndCertificate(NamedTuple):
    """Paths of a private key and of its certificate, both PEM.

    Attributes:
        key: The private key, mode 0600.
        certificate: The certificate.
    """

    key: Path
    certificate: Path


@dataclass(frozen=True, slots=True)
class ServerHome:
    """The folder of one coordinator, mode 0700; everything below is a path in it, or read from it.

    Attributes:
        root: The folder.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The server's file."""
        return self.root / "server.yaml"

    @property
    def keys(self) -> Path:
        """Folder of the private keys."""
        return self.root / "keys"

    @property
    def identity_key(self) -> Path:
        """The key that signs what the coordinator sends."""
        return self.keys / "identity.key"

    @property
    def sealing_key(self) -> Path:
        """The key that opens what sites seal."""
        return self.keys / "sealing.key"

    @property
    def ca(self) -> KeyAndCertificate:
        """The certificate authority that the sites trust, made here for this coordinator alone."""
        return KeyAndCertificate(self.keys / "ca.key", self.keys / "ca.crt")

    @property
    def tls(self) -> KeyAndCertificate:
        """The server's own key and certificate, which sites see."""
        return KeyAndCertificate(self.keys / "tls.key", self.keys / "tls.crt")

    @property
    def superlink_tls(self) -> KeyAndCertificate:
        """Key and certificate of Flower's SuperLink, for loopback alone."""
        return KeyAndCertificate(self.keys / "superlink.key", self.keys / "superlink.crt")

    @property
    def superexec_secret(self) -> Path:
        """What Flower's SuperExec shows to the SuperLink."""
        return self.keys / "superexec.secret"

    @property
    def rotations(self) -> Path:
        """The rotations of this coordinator's identity so far."""
        return self.root / "rotations.json"

    @property
    def sites_folder(self) -> Path:
        """Folder of the enrolled sites, one ``<name>.json`` each."""
        return self.root / "sites"

    @property
    def superlink_db(self) -> Path:
        """Database of Flower's SuperLink."""
        return self.root / "superlink.db"

    @property
    def flower(self) -> Path:
        """``FLWR_HOME`` of every Flower process here."""
        return self.root / "flower"

    @property
    def nginx(self) -> Path:
        """The reverse proxy's configuration."""
        return self.root / "nginx.conf"

    @property
    def runs(self) -> Path:
        """Folder of the run folders."""
        return self._inside(self.spec().runs)

    @property
    def state_url(self) -> str:
        """Where the durable state lies: a URL, with the password where one is named, or ``sqlite:///`` and a path."""
        spec = self.spec()
        if "://" not in spec.state:
            return f"sqlite:///{self._inside(spec.state)}"
        key = "state_password"
        return address_of(spec.state, spec.state_password, base=self.root, where=self.config, key=key)

    def spec(self) -> ServerSpec:
        """Return the server's file, read now.

        Raises:
            ConfigError: The home or the file is missing, not valid, or open to others though it should not be.
        """
        check_home(self.config, "coordinator", "server init")
        spec = load_server(self.config)
        check_closed(self.config, spec.state)
        check_takes_password(spec.state, spec.state_password, where=self.config, key="state_password")
        return spec

    def identity(self) -> SigningKey:
        """Return the identity key.

        Raises:
            ConfigError: It is missing, or open to others.
        """
        return SigningKey.load(self.identity_key)

    def sealing(self) -> SealingKey:
        """Return the sealing key.

        Raises:
            ConfigError: It is missing, or open to others.
        """
        return SealingKey.load(self.sealing_key)

    def sites(self) -> Mapping[str, EnrolledSite]:
        """Return every site that was ever enrolled, by name; look at ``active`` before letting one take part.

        Raises:
            ConfigError: The folder is open to others, or holds something else.
            IntegrityError: A record was changed.
        """
        if not self.sites_folder.exists():
            return {}
        check_folder(self.sites_folder)
        paths = sorted(path for path in self.sites_folder.glob("*.json") if not path.name.startswith("."))
        return {path.stem: read_record(path) for path in paths}

    def _inside(self, written: str) -> Path:
        """Return a path of the server's file; a relative one starts from the home."""
        return self.root.absolute() / Path(written).expanduser()
