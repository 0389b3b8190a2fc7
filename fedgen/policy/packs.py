"""Packs from files: read strictly, and believed only if somebody answers for them.

Who answers for a pack:

- The packs that come with fedgen are believed by their digest, which this module holds. Whoever trusts the
  installed package trusts them; no key has to be fetched, and an edited copy is no longer believed.
- Every other pack carries a detached Ed25519 signature beside it, ``NAME.yaml.sig``: the base64 of 64 bytes over
  the digest of the file. It is believed if one of the keys that a site names made it.

A pack that is not believed still loads, with ``trusted`` false. The engine then denies everything with
``PACK_SIGNATURE_INVALID``: an edited rule must not decide, and must not vanish in silence.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from fedgen._resources import kit
from fedgen.crypto.digest import same_digest, sha256_hex
from fedgen.errors import ConfigError, IntegrityError
from fedgen.policy.pack import Pack
from fedgen.schema.explain import explain
from fedgen.schema.yamlsource import MAX_BYTES, parse_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fedgen.crypto.keys import SigningKey, VerifyKey

SHIPPED: Final = ("baseline", "gdpr", "ccpa")
LABEL: Final = "policy/pack"
_MAX_SIGNATURE: Final = 256

PINNED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "baseline": "ccbf703aacaff3f2b5a8aedb876aaf12d6562d451b1006ca2ae7c2e4f00e8686",
        "ccpa": "6498a035e1713155766d77ffe1e9fc69001d254fd2081175c10e2f9145a084ae",
        "gdpr": "0f36a95db582ab427593c55736b4688397911a1ee4b07e1ad5bbe660f8f951f6",
    }
)


@dataclass(frozen=True, slots=True)
class LoadedPack:
    """A pack, the digest of its file, and whether somebody answers for it.

    Attributes:
        pack: The content.
        sha256: Of the file's bytes, hex: what a round's evidence names.
        trusted: Whether the digest is pinned or a known key signed it.
        signer: Fingerprint of the key that signed it; None for a shipped pack, or if nobody did.
    """

    pack: Pack
    sha256: str
    trusted: bool
    signer: str | None = None

    @property
    def reference(self) -> dict[str, str]:
        """What a round summary says of the pack: id, version, sha256."""
        return {"id": self.pack.id, "version": self.pack.version, "sha256": self.sha256}


def load_pack(name: str | Path, keys: Iterable[VerifyKey] = ()) -> LoadedPack:
    """Return a shipped pack by its name, or any pack by its path.

    Guarantees:
        - ``trusted`` only if the digest is pinned in the package, or one of ``keys`` signed these very bytes.
        - At most a mebibyte is read; unknown keys and rules are refused.

    Edge cases:
        - A missing, damaged or foreign signature: loaded, not trusted.

    Args:
        name: ``gdpr``, ``ccpa``, ``baseline``, or a path to a YAML file.
        keys: Keys whose signatures count.

    Raises:
        ConfigError: No such pack, or its content is not one.
    """
    text = str(name)
    path = kit("policies", f"{text}.yaml") if text in SHIPPED else Path(name)
    content = _read(path)
    digest = sha256_hex(content)
    pack = _parse(content, path)
    if same_digest(digest, PINNED.get(pack.id, "")):
        return LoadedPack(pack, digest, trusted=True)
    signer = _signer(path, digest, keys)
    return LoadedPack(pack, digest, trusted=signer is not None, signer=signer)


def load_packs(names: Sequence[str | Path], keys: Iterable[VerifyKey] = ()) -> dict[str, LoadedPack]:
    """Return packs by the law they are for.

    Raises:
        ConfigError: As :func:`load_pack`; or two packs are for one law.
    """
    known = tuple(keys)
    result: dict[str, LoadedPack] = {}
    for name in names:
        loaded = load_pack(name, known)
        if loaded.pack.law in result:
            raise ConfigError(
                f"two packs for the law {loaded.pack.law}", where=str(name), hint="name one pack for each law"
            )
        result[loaded.pack.law] = loaded
    return result


def sign_pack(path: str | Path, key: SigningKey) -> Path:
    """Write ``NAME.yaml.sig`` beside a pack, and return its path.

    Raises:
        ConfigError: The pack cannot be read or is not one, or the signature cannot be written.
    """
    place = Path(path)
    content = _read(place)
    _parse(content, place)
    signature = key.sign(LABEL, sha256_hex(content).encode())
    target = signature_path(place)
    try:
        target.write_text(base64.b64encode(signature).decode() + "\n", encoding="ascii")
    except OSError as error:
        raise ConfigError(f"the signature cannot be written: {error.strerror}", where=target) from None
    return target


def signature_path(path: Path) -> Path:
    """Return where the signature of a pack lies."""
    return path.with_name(path.name + ".sig")


def _signer(path: Path, digest: str, keys: Iterable[VerifyKey]) -> str | None:
    """Return the fingerprint of the key that signed the digest, or None."""
    try:
        with signature_path(path).open("rb") as file:
            signature = base64.b64decode(file.read(_MAX_SIGNATURE).strip(), validate=True)
    except (OSError, binascii.Error, ValueError):
        return None
    for key in keys:
        try:
            key.verify(LABEL, digest.encode(), signature)
        except IntegrityError:
            continue
        return key.fingerprint
    return None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        hint = f"shipped packs are {', '.join(SHIPPED)}; others are named by their path"
        raise ConfigError("no such pack", where=path, hint=hint) from None
    except OSError as error:
        raise ConfigError(f"the pack cannot be read: {error.strerror}", where=path) from None
    if len(content) > MAX_BYTES:
        raise ConfigError("a pack over a mebibyte", where=path, hint="is this the right file?")
    return content


def _parse(content: bytes, path: Path) -> Pack:
    from fedgen.policy.registry import RULES  # late: NumPy is not needed to check a signature

    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8 text", where=path, hint="save the file as UTF-8") from None
    data, lines = parse_yaml(text, path)
    try:
        pack = Pack.model_validate(data)
    except ValidationError as error:
        raise explain(error, lines, path, Pack) from None
    unknown = next((rule for rule in pack.rules if rule not in RULES), None)
    if unknown is not None:
        raise ConfigError(
            f"no rule is called {unknown}", where=path, key="rules", hint="fedgen policy lint lists them"
        )
    return pack
