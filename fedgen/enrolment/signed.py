"""A signed document: a small JSON file that says who made it, and shows any change to it.

``{"format": "fedgen-<kind>-1", "body": {...}, "signature": "<hex>"}``. What is signed is the body in canonical JSON
under a label of its kind, so a signature of one kind never passes for another. The signature shows that the holder of
the key named in the body wrote it, and nothing more: whose key that is, a person decides. Spec: docs/spec/enrolment.md.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedgen.crypto.keys import SigningKey, VerifyKey
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.messages import Hex32, canonical

MAX_DOCUMENT: Final = 64 * 2**10
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class Signed(BaseModel):
    """The body of a signed document: frozen, closed, strict.

    Attributes:
        kind: Word that names the kind in the file and separates its signatures from others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)
    kind: ClassVar[str]

    @property
    def signer(self) -> Hex32:
        """The public key that must have signed, hex."""
        raise NotImplementedError


B = TypeVar("B", bound=Signed)


def label_of(form: type[Signed]) -> str:
    """Return the label under which a kind of document is signed."""
    return f"enrolment/{form.kind}"


def signature_of(body: Signed, key: SigningKey) -> str:
    """Return the signature of a body, hex.

    Raises:
        ValueError: The key is not the one that the body names.
    """
    if key.public.hex() != body.signer:
        raise ValueError("a document is signed by the key it names")
    return key.sign(label_of(type(body)), canonical(body.model_dump(mode="json"))).hex()


def check_signature(body: Signed, signature: str) -> None:
    """Return if the key named in the body made this signature over it.

    Raises:
        IntegrityError: It did not (code ``bad-signature``), or it is no key (``malformed``).
    """
    key = VerifyKey(bytes.fromhex(body.signer))
    key.verify(label_of(type(body)), canonical(body.model_dump(mode="json")), bytes.fromhex(signature))


def encode(body: Signed, key: SigningKey) -> bytes:
    """Return the signed document as the bytes of its file; inverse of :func:`decode`.

    Raises:
        ValueError: The key is not the one that the body names, or the document is too long to be read back.
    """
    document = {
        "format": f"fedgen-{body.kind}-1",
        "body": body.model_dump(mode="json"),
        "signature": signature_of(body, key),
    }
    data = (json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode()
    if len(data) > MAX_DOCUMENT:
        raise ValueError("the document is over the size limit")
    return data


def decode(data: bytes, form: type[B], *, where: str | Path | None = None) -> B:
    """Return the body of a signed document whose signature is good; inverse of :func:`encode`.

    Guarantees:
        - The size is bounded before anything is parsed; a key that is unknown, missing or there twice is refused.
        - The signature is checked before the body is returned.

    Edge cases:
        - White space between the parts may differ: mail programs touch it. The signature does not cover it.

    Args:
        data: The bytes of the file.
        form: The kind that is expected.
        where: What to call the file in an error.

    Raises:
        ConfigError: It is a document of another kind, or no document at all.
        IntegrityError: The form or the signature is not good.
    """
    outer = _outer(data, form, where)
    try:
        # Through JSON again: strict reading of JSON values takes lists for tuples, and nothing else for anything.
        body = form.model_validate_json(json.dumps(outer["body"]))
        check_signature(body, outer["signature"])
    except ValidationError as error:
        raise IntegrityError(_flaw(error, form), code=Code.MALFORMED, where=where, hint=_AGAIN) from None
    except IntegrityError as error:
        raise IntegrityError(error.what, code=error.code, where=where, hint=_AGAIN) from None
    return body


def signature_in(data: bytes) -> str:
    """Return the signature that stands in a document which :func:`decode` has accepted, hex."""
    return str(json.loads(data.decode("utf-8-sig"))["signature"])


_AGAIN: Final = "the file was changed or damaged on its way: ask for it again"


def _outer(data: bytes, form: type[Signed], where: str | Path | None) -> dict[str, Any]:
    """Return the document's three parts, the body not yet looked at."""
    if len(data) > MAX_DOCUMENT:
        raise IntegrityError(
            f"is over {MAX_DOCUMENT // 1024} KiB: no document of this kind", code=Code.TOO_LARGE, where=where
        )
    try:
        outer = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        outer = None
    wanted = f"fedgen-{form.kind}-1"
    found = outer.get("format") if isinstance(outer, dict) else None
    if not isinstance(outer, dict) or not isinstance(found, str) or not found.startswith("fedgen-"):
        raise ConfigError("is not a document of fedgen", where=where, hint=f"a file {wanted} is needed here")
    if found != wanted:
        what = f"is a document of another kind or version ({found[:40]})"
        raise ConfigError(what, where=where, hint=f"a file {wanted} is needed here")
    signature = outer.get("signature")
    if set(outer) != {"format", "body", "signature"} or not _is_signature(signature):
        raise IntegrityError(
            "does not have the parts of a signed document", code=Code.MALFORMED, where=where, hint=_AGAIN
        )
    return outer


def _is_signature(value: object) -> bool:
    return isinstance(value, str) and len(value) == 128 and set(value) <= set("0123456789abcdef")  # noqa: PLR2004


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a mapping; a key that is there twice would mean one thing here and another elsewhere."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_number(_word: str) -> None:
    raise ValueError("not a number of JSON")


def _flaw(error: ValidationError, form: type[Signed]) -> str:
    """Return the first thing that is wrong with a body, without a value of it."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    place = ".".join(str(part)[:40] for part in first["loc"])
    return f"is no valid {form.kind}: {place or 'body'}: {first['msg'][:120]}"


def read_bounded(path: str | os.PathLike[str], *, most: int = MAX_DOCUMENT, follow: bool = True) -> bytes:
    """Return the bytes of a plain file of bounded size.

    Args:
        path: The file.
        most: Longest file that makes sense, in bytes.
        follow: Whether the path may be a symbolic link; inside a home it may not.

    Raises:
        ConfigError: The file is missing, not a plain file, a link where none may be, or cannot be read.
        IntegrityError: It is longer than that (code ``too-large``).
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        what = "is a symbolic link, and none is followed here" if _is_link(path, error) else None
        what = what or f"cannot be read: {(error.strerror or 'no reason given').lower()}"
        raise ConfigError(what, where=Path(path), hint="check the path and its permissions") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigError("is not a plain file", where=Path(path))
        data = _read(descriptor, most + 1)
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise IntegrityError(
            f"is over {most // 1024} KiB: no file of this kind", code=Code.TOO_LARGE, where=Path(path)
        )
    return data


def _read(descriptor: int, most: int) -> bytes:
    """Return at most so many bytes of an open file; a read may be short."""
    parts = b""
    while len(parts) < most and (part := os.read(descriptor, most - len(parts))):
        parts += part
    return parts


def _is_link(path: str | os.PathLike[str], error: OSError) -> bool:
    return not isinstance(error, FileNotFoundError) and Path(path).is_symlink()
