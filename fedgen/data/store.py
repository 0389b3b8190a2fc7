"""Where files lie: this machine, an object store, or whatever else fsspec knows; one way to list and open them.

A store's own errors quote keys, hosts and sometimes a signed request; none of their text gets out of here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from fedgen.errors import ConfigError, DataError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OBJECT_STORES: Final = ("s3", "gs", "abfs", "abfss")
FSSPEC: Final = "fsspec+"

_CONNECT_SECONDS: Final = 10.0
_REQUEST_SECONDS: Final = 60.0
_ATTEMPTS: Final = 3
_OPTIONS: Final = {
    "s3": ("region", "endpoint", "anonymous"),
    "gs": ("endpoint", "anonymous"),
    "abfs": (),
    "abfss": (),
}
_LOGIN: Final = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, or the machine's role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or the machine's account",
    "abfs": "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or the machine's identity",
    "abfss": "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or the machine's identity",
}
_HERE: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # a password behind a colon is none
_CONTAINER: Final = re.compile(r"[A-Za-z0-9$-]+@[A-Za-z0-9-]+\.[A-Za-z0-9.-]+")
_WORD: Final = re.compile(r"[a-z_]{1,24}")
_HOST: Final = re.compile(r"[^@:\s]*(:\d{1,5})?")
_PROTOCOL: Final = re.compile(r"[a-z][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Stat:
    """What a store says of one file, enough to notice that it was replaced.

    Attributes:
        path: Its path in the store.
        size: Bytes.
        changed: When it was last written, in nanoseconds since 1970; None where the store does not say.
    """

    path: str
    size: int
    changed: int | None


@dataclass(frozen=True, slots=True)
class Store:
    """A file or folder in a filesystem of Arrow's.

    Guarantees:
        - Files are opened for reading only.
        - What is shown of it holds no user, password, key or option.

    Attributes:
        files: The filesystem.
        root: Path of the file or folder in it.
        shown: The address, for a person.
        is_here: Whether a look at any place of a file costs nothing: it lies on this machine.
    """

    files: Any = field(repr=False)
    root: str
    shown: str
    is_here: bool = False

    @classmethod
    def local(cls, path: Path) -> Store:
        """Return the store of a path on this machine."""
        from pyarrow import fs

        return cls(fs.LocalFileSystem(), str(path.absolute()), str(path), is_here=True)

    def kind(self) -> str:
        """Return ``file``, ``folder`` or ``nothing``.

        Raises:
            DataError: The store cannot be reached, or does not let one look.
        """
        from pyarrow import fs

        found = self._ask(lambda: self.files.get_file_info(self.root))
        if found.type == fs.FileType.Directory:
            return "folder"
        return "nothing" if found.type == fs.FileType.NotFound else "file"

    def tree(self) -> list[Stat]:
        """Return every file below the root, and every folder (``size`` -1), by path.

        Raises:
            DataError: The store cannot be reached, or does not let one look.
        """
        from pyarrow import fs

        found = self._ask(lambda: self.files.get_file_info(fs.FileSelector(self.root, recursive=True)))
        return sorted((_stat(info) for info in found), key=lambda stat: stat.path)

    def stat(self, path: str) -> Stat | None:
        """Return what the store says of a file now, or None if it is gone."""
        from pyarrow import fs

        found = self._ask(lambda: self.files.get_file_info(path))
        return _stat(found) if found.type == fs.FileType.File else None

    def open_file(self, path: str) -> Any:
        """Open a file for reading at any place; raises what Arrow raises."""
        return self.files.open_input_file(path)

    def open_stream(self) -> Any:
        """Open the root from its begin, unpacked as its suffix says; raises what Arrow raises."""
        return self.files.open_input_stream(self.root, compression="detect")

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except Exception:  # noqa: BLE001, S110 - an fsspec filesystem raises what it likes, with keys in the text
            pass
        hint = "check the address, your rights and the network"
        raise DataError("the store cannot be read", where=self.shown, hint=hint)


def _stat(info: Any) -> Stat:
    size = -1 if info.size is None else int(info.size)
    return Stat(str(info.path), size, info.mtime_ns)


def open_store(address: str) -> Store:
    """Return the file or folder at ``s3:// gs:// abfs:// abfss://`` or ``fsspec+PROTOCOL://``; nothing is read yet.

    Guarantees:
        - No credential is taken from an address: an address with a user, a password or an option that this
          store does not have is refused, by the option's name alone.
        - An ``endpoint`` is spoken to with TLS, or is on this machine.
        - S3 gives up connecting after 10 s and a request after 60 s, three times; Google's after 60 s in all.

    Edge cases:
        ==========================  ================================================================
        ``abfs://``                 ``abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/path``
        ``fsspec+sftp://``          needs fsspec's own package; its settings come from fsspec's files
        chained (``::``)            refused: a cache would write rows to this machine's disk
        ==========================  ================================================================

    Raises:
        ConfigError: Not such an address.
        MissingExtra: fsspec is not installed.
    """
    scheme, _, rest = address.partition("://")
    scheme = scheme.lower()
    if scheme.startswith(FSSPEC):
        return _through_fsspec(scheme.removeprefix(FSSPEC), rest)
    place, _, query = rest.partition("?")
    place = unquote(place).strip("/")
    _check_bucket(scheme, place.partition("/")[0])
    options = _options(scheme, query)
    if scheme in {"abfs", "abfss"}:
        return _azure(scheme, place)
    store = _s3(options) if scheme == "s3" else _google(options)
    return Store(store, place, f"{scheme}://{place}")


def _check_bucket(scheme: str, bucket: str) -> None:
    """Refuse what is no bucket before anything of it is shown: it may be a password."""
    where = f"{scheme}://"
    if not bucket:
        raise ConfigError("the address names no bucket", where=where, hint=f"write {scheme}://BUCKET/PATH")
    if scheme in {"abfs", "abfss"}:
        if not _CONTAINER.fullmatch(bucket):
            hint = f"write {scheme}://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH"
            raise ConfigError("not an address of Azure's", where=where, hint=hint)
    elif "@" in bucket:
        hint = f"they come from {_LOGIN[scheme]}"
        raise ConfigError("an address of a store holds no credentials", where=where, hint=hint)
    elif not _BUCKET.fullmatch(bucket):
        raise ConfigError("not the name of a bucket", where=where, hint=f"write {scheme}://BUCKET/PATH")


def _options(scheme: str, query: str) -> dict[str, str]:
    """Return the options; one of another store is refused by its name, if that is a word."""
    given = parse_qs(query, keep_blank_values=True)
    known = _OPTIONS[scheme]
    for name, values in given.items():
        if name not in known:
            hint = f"options are {', '.join(known)}" if known else "it has none"
            what = f"an option that {scheme}:// does not have"
            shown = name if _WORD.fullmatch(name) else None
            raise ConfigError(what, key=shown, hint=f"{hint}; credentials come from {_LOGIN[scheme]}")
        if len(values) != 1 or not values[0]:
            raise ConfigError("an option needs one value", key=name)
    return {name: values[0] for name, values in given.items()}


def _anonymous(options: dict[str, str]) -> bool:
    value = options.get("anonymous", "no").lower()
    if value not in {"yes", "no"}:
        raise ConfigError("is yes or no", key="anonymous")
    return value == "yes"


def _endpoint(options: dict[str, str]) -> tuple[str, str] | None:
    """Return scheme and host of another endpoint than the provider's; without TLS it must be on this machine."""
    value = options.get("endpoint")
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
        odd = parts.path.strip("/") or parts.query or parts.username is not None or parts.port == 0
    except ValueError:
        host, odd = "", "odd"
    if parts.scheme not in {"https", "http"} or not host or odd:
        raise ConfigError(
            "is not the address of a host", key="endpoint", hint="write https://HOST or https://HOST:PORT"
        )
    if parts.scheme == "http" and host not in _HERE:
        what = "rows would cross the network in clear"
        raise ConfigError(what, key="endpoint", hint="write https://; http:// is for this machine only")
    return parts.scheme, parts.netloc


def _s3(options: dict[str, str]) -> Any:
    from pyarrow import fs

    settings: dict[str, Any] = {
        "anonymous": _anonymous(options),
        "connect_timeout": _CONNECT_SECONDS,
        "request_timeout": _REQUEST_SECONDS,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    }
    if "region" in options:
        settings["region"] = options["region"]
    endpoint = _endpoint(options)
    if endpoint:
        settings["scheme"], settings["endpoint_override"] = endpoint
    return _made(lambda: fs.S3FileSystem(**settings), "s3")


def _google(options: dict[str, str]) -> Any:
    from pyarrow import fs

    settings: dict[str, Any] = {
        "anonymous": _anonymous(options),
        "retry_time_limit": timedelta(seconds=_REQUEST_SECONDS),
    }
    endpoint = _endpoint(options)
    if endpoint:
        settings["scheme"], settings["endpoint_override"] = endpoint
    return _made(lambda: fs.GcsFileSystem(**settings), "gs")


def _azure(scheme: str, place: str) -> Store:
    """Return a folder of a container; its address is the one Spark and Hadoop write."""
    from pyarrow import fs

    top, _, path = place.partition("/")
    container, _, host = top.partition("@")
    account, _, domain = host.partition(".")
    blob = domain.replace("dfs.", "blob.", 1)
    made = _made(
        lambda: fs.AzureFileSystem(
            account, dfs_storage_authority=f".{domain}", blob_storage_authority=f".{blob}"
        ),
        scheme,
    )
    return Store(made, f"{container}/{path}".rstrip("/"), f"{scheme}://{place}")


def _made(make: Callable[[], Any], scheme: str) -> Any:
    """Return a filesystem; what its library says of credentials is not repeated."""
    try:
        return make()
    except Exception:  # noqa: BLE001, S110 - the text may hold a key; anything it raises means one thing here
        pass
    what = f"{scheme}:// cannot be opened"
    raise ConfigError(what, hint=f"check the address; credentials come from {_LOGIN[scheme]}")


def _through_fsspec(protocol: str, rest: str) -> Store:
    """Return a place that fsspec reaches; its settings and credentials come from fsspec's own files."""
    try:
        import fsspec
        from pyarrow import fs
    except ImportError:
        raise MissingExtra("objects", needed_for=f"an fsspec+{protocol}:// source") from None
    shown = f"{FSSPEC}{protocol}://"
    host = rest.partition("/")[0]
    if "@" in host or (
        ":" in host and "@" in rest
    ):  # what stands behind a colon is a password with a slash in it
        hint = "they belong in fsspec's configuration, ~/.config/fsspec"
        raise ConfigError("an address of a store holds no credentials", where=shown, hint=hint)
    if not _PROTOCOL.fullmatch(protocol) or not _HOST.fullmatch(host) or "::" in rest or "?" in rest:
        raise ConfigError(
            "not an address for fsspec", where=shown, hint="write fsspec+PROTOCOL://PATH, not a chain"
        )
    fault: ConfigError | None = None
    try:
        made, path = fsspec.core.url_to_fs(f"{protocol}://{rest}")
    except ImportError:
        hint = f"fsspec's documentation names the package for {protocol}; install it beside fedgen"
        fault = ConfigError("fsspec needs a package for this", where=shown, hint=hint)
    except Exception:  # noqa: BLE001 - a filesystem of somebody else's raises what it likes
        fault = ConfigError("fsspec cannot open this", where=shown, hint="check protocol, host and settings")
    if fault:
        raise fault
    return Store(fs.PyFileSystem(fs.FSSpecHandler(made)), str(path), f"{shown}{rest}")
