"""What a coordinator keeps of one site: its newest request, and since when it is in or out.

One JSON file for each site, in the coordinator's home, written atomically. The site's request stays as it was signed,
so who was enrolled, and with which keys, can be shown later.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedgen.enrolment.documents import Moment, NodeKey, Request
from fedgen.enrolment.signed import Signature, check_signature, read_bounded
from fedgen.errors import Code, IntegrityError
from fedgen.messages import Hex32, SiteName
from fedgen.runs.atomic import write_private

if TYPE_CHECKING:
    from pathlib import Path

MAX_RECORD: Final = 256 * 2**10
MAX_FORMER: Final = 256


class Former(BaseModel):
    """A pair of keys that a site had; its identity never comes back.

    Attributes:
        identity: The key, hex.
        node: The node key it had with it.
        ended: When it was revoked or rotated away.
        revoked: Whether it was revoked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    identity: Hex32
    node: NodeKey
    ended: Moment
    revoked: bool


class EnrolledSite(BaseModel):
    """One site, as its coordinator knows it.

    Attributes:
        request: Its newest request.
        signature: The request's signature, hex.
        enrolled: When it was let in.
        invitations: How many invitations were made for it.
        expires: When its newest invitation ends.
        revoked: When it was put out, or None.
        former: Keys it had before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)
    request: Request
    signature: Signature
    enrolled: Moment
    invitations: Annotated[int, Field(ge=0, le=2**31)]
    expires: Moment
    revoked: Moment | None = None
    former: Annotated[tuple[Former, ...], Field(max_length=MAX_FORMER)] = ()

    @property
    def name(self) -> SiteName:
        """The site's name."""
        return self.request.name

    @property
    def identity(self) -> bytes:
        """The key that the site signs with, 32 bytes."""
        return bytes.fromhex(self.request.identity)

    @property
    def active(self) -> bool:
        """Whether it may take part; that its invitation has not expired is another question."""
        return self.revoked is None


def write_record(path: Path, record: EnrolledSite) -> None:
    """Put the record in place; inverse of :func:`read_record`.

    Raises:
        ConfigError: The disk is full, or the place cannot be written.
    """
    text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=True) + "\n"
    write_private(path, text.encode())


def read_record(path: Path) -> EnrolledSite:
    """Return the record in a file, its request checked against its signature again.

    Raises:
        ConfigError: The file is missing, a link, or not a plain file.
        IntegrityError: It has another form, names another site than its file does, or was changed.
    """
    data = read_bounded(path, most=MAX_RECORD, follow=False)
    try:
        record = EnrolledSite.model_validate_json(data)
        check_signature(record.request, record.signature)
    except ValidationError:
        raise IntegrityError(
            "is no record of a site", code=Code.MALFORMED, where=path, hint="restore the file"
        ) from None
    except IntegrityError as error:
        raise IntegrityError(error.what, code=error.code, where=path, hint="restore the file") from None
    if record.name != path.stem:
        what = "the file's name is not that of the site in it"
        raise IntegrityError(what, code=Code.UNKNOWN_SENDER, where=path, hint="restore the file")
    return record
