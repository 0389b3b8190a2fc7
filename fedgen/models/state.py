"""Weights on disk: safetensors with one typed, bounded header, written all or nothing; no pickle anywhere.

A file is an ordinary safetensors file whose metadata has the single key ``fedgen``: canonical JSON of the
format version, the caller's header and a SHA-256 over header and tensors. The digest catches damage, not
malice: whoever can write the file can write the digest too. Against malice the run folder's signed record
names the file's hash.

Format: https://huggingface.co/docs/safetensors (8-byte little-endian header length, JSON header, raw
tensors).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fedgen import _files
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.messages import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fedgen.models.base import GenerativeModel

FORMAT: Final = 1
MAX_HEADER: Final = 2**20  # names and shapes of some thousand tensors, and the header's strings
MAX_FILE: Final = 2**32
_KEY: Final = "fedgen"
_LENGTH: Final = 8
_ROUND: Final = re.compile(r"[0-9]{1,18}")
_DTYPES: Final = (torch.float32, torch.float64, torch.int64)


@dataclass(frozen=True, slots=True)
class StateHeader:
    """What a saved model says about itself.

    Attributes:
        model: Name of the model.
        layout: From :func:`layout_digest`.
        study_hash: Of the resolved study; empty outside a study.
        round: Rounds done.
    """

    model: str
    layout: str
    study_hash: str = ""
    round: int = 0

    @classmethod
    def of(cls, model: GenerativeModel, *, study_hash: str = "", rounds: int = 0) -> StateHeader:
        """Return the header of ``model`` after ``rounds`` rounds."""
        return cls(model=model.name, layout=layout_digest(model), study_hash=study_hash, round=rounds)

    def to_strings(self) -> dict[str, str]:
        """Return the header as strings; inverse of :meth:`from_strings`."""
        return {name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_strings(cls, strings: Mapping[str, str]) -> StateHeader:
        """Return the header that ``strings`` spell; inverse of :meth:`to_strings`.

        Raises:
            IntegrityError: A field is missing, unknown or not a number where one is due.
        """
        names = {field.name for field in fields(cls)}
        if set(strings) != names or not _ROUND.fullmatch(strings["round"]):
            raise IntegrityError("a model file without the header of a model", code=Code.MALFORMED)
        return cls(
            model=strings["model"],
            layout=strings["layout"],
            study_hash=strings["study_hash"],
            round=int(strings["round"]),
        )


def layout_digest(model: GenerativeModel) -> str:
    """Return the SHA-256 of a model's layout and options, hex: equal digests mean interchangeable weights."""
    described = {
        "layout": {"kind": type(model.layout).__name__, **asdict(model.layout)},
        "options": model.options.model_dump(mode="json"),
    }
    return hashlib.sha256(canonical(described)).hexdigest()


def save(path: Path, model: GenerativeModel, header: StateHeader) -> None:
    """Write the weights of ``model``; inverse of :func:`load`.

    Guarantees:
        - The file appears whole or not at all.

    Args:
        path: Target; its folder exists.
        model: Any model.
        header: From :meth:`StateHeader.of`.

    Raises:
        ConfigError: The file cannot be written.
    """
    save_tensors(path, model.state_dict(), header.to_strings())


def load(path: Path, model: GenerativeModel, *, study_hash: str | None = None) -> StateHeader:
    """Read weights into ``model``, in place; inverse of :func:`save`.

    Guarantees:
        - ``model`` is changed only if everything fits.

    Args:
        path: Of the file.
        model: Built with the layout and options that the file must have.
        study_hash: If given, the file must belong to this study.

    Raises:
        ConfigError: The file is missing, of another format version, or of another model, layout or study.
        IntegrityError: The file is damaged, or its tensors do not have the model's names and shapes.
    """
    tensors, strings = load_tensors(path)
    header = StateHeader.from_strings(strings)
    expected = StateHeader.of(model, study_hash=header.study_hash if study_hash is None else study_hash)
    for name in ("model", "layout", "study_hash"):
        if getattr(header, name) != getattr(expected, name):
            told = name.replace("_", " ")
            raise ConfigError(
                f"weights of another {told}", where=path, hint="give the study they were made in"
            )
    own = model.state_dict()
    if own.keys() != tensors.keys() or any(
        (own[name].shape, own[name].dtype) != (value.shape, value.dtype) for name, value in tensors.items()
    ):
        raise _damaged(path, "tensors that do not fit the model", Code.WRONG_SHAPE)
    with torch.no_grad():
        for name, value in tensors.items():
            own[name].copy_(value)
    return header


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write named tensors and a header of strings; inverse of :func:`load_tensors`.

    Guarantees:
        - The file appears whole or not at all: written beside its target, flushed, renamed, and the folder
          flushed.
        - Equal tensors and headers give equal bytes.

    Args:
        path: Target; its folder exists.
        tensors: Name to tensor of float32, float64 or int64, any shape.
        header: Name to text.

    Raises:
        ConfigError: The header is over 1 MiB, or the file cannot be written.
        TypeError: A tensor has another type.
    """
    data = dump_tensors(tensors, header, where=path)
    try:
        _files.write(path, data, private=False)
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno else "failed").lower()
        raise ConfigError(f"cannot be written: {reason}", where=path, hint="choose another folder") from error


def dump_tensors(
    tensors: Mapping[str, Tensor], header: Mapping[str, str], *, where: Path | None = None
) -> bytes:
    """Return what :func:`save_tensors` writes; inverse of :func:`parse_tensors`."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    for name, value in plain.items():
        if value.dtype not in _DTYPES:
            raise TypeError(f"{name} is {value.dtype}, not one of {_DTYPES}")
    envelope = {"format": FORMAT, "header": dict(header), "digest": _digest(header, plain)}
    data: bytes = safetensors.torch.save(plain, {_KEY: canonical(envelope).decode()})
    if int.from_bytes(data[:_LENGTH], "little") > MAX_HEADER:
        raise ConfigError("the header of a model file is over its limit", where=where)
    return data


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the header of a file; inverse of :func:`save_tensors`.

    Guarantees:
        - Lengths are checked before anything is parsed; nothing in the file is executed.
        - What is returned is what was saved, or an error is raised: one changed byte is noticed.

    Raises:
        ConfigError: The file is missing or of another format version.
        IntegrityError: The file is damaged, truncated, or not a fedgen model file.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise _damaged(path, "over the size limit", Code.TOO_LARGE)
        data = path.read_bytes()
    except OSError as error:
        reason = (os.strerror(error.errno) if error.errno else "failed").lower()
        raise ConfigError(f"cannot be read: {reason}", where=path) from error
    return parse_tensors(data, where=path)


def parse_tensors(data: bytes, *, where: Path | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the header of a file's bytes; inverse of :func:`dump_tensors`.

    Raises:
        ConfigError: See :func:`load_tensors`.
        IntegrityError: See :func:`load_tensors`.
    """
    envelope = _envelope(where, data)
    version = envelope["format"]
    if version != FORMAT:
        raise ConfigError(
            f"format version {version} of a model file, not {FORMAT}", where=where, hint="update fedgen"
        )
    header: dict[str, str] = envelope["header"]
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise _damaged(where, "tensors that cannot be read") from error
    if _digest(header, tensors) != envelope["digest"]:
        raise _damaged(where, "contents that do not match their digest")
    return tensors, header


def _envelope(path: Path | str, data: bytes) -> dict[str, Any]:
    """Return the metadata of a file, checked field by field before any tensor is looked at."""
    size = int.from_bytes(data[:_LENGTH], "little")
    if len(data) < _LENGTH or size > min(MAX_HEADER, len(data) - _LENGTH):
        raise _damaged(path, "a header longer than allowed or than the file")
    try:
        envelope = json.loads(json.loads(data[_LENGTH : _LENGTH + size])["__metadata__"][_KEY])
        whole = envelope.keys() == {"format", "header", "digest"} and isinstance(envelope["format"], int)
        header = envelope["header"]
        strings = all(isinstance(value, str) for value in header.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, "a header that is not fedgen's") from error
    if not (whole and strings):
        raise _damaged(path, "a header that is not fedgen's")
    checked: dict[str, Any] = envelope
    return checked


def _digest(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over format, header and tensors in the order of their names."""
    shapes = {name: [str(value.dtype), *map(str, value.shape)] for name, value in tensors.items()}
    digest = hashlib.sha256(canonical({"format": FORMAT, "header": dict(header), "tensors": shapes}))
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _damaged(path: Path | str, what: str, code: Code = Code.MALFORMED) -> IntegrityError:
    return IntegrityError(f"a model file with {what}", code=code, where=path, hint="restore it from a copy")
