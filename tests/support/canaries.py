"""Every error a site may meet, each carrying a canary; and a search for it in bytes."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import pkgutil
import sqlite3
import struct
from typing import TYPE_CHECKING

import pyarrow as pa
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.exc import OperationalError

import fedgen.errors
import fedgen.ledger
from fedgen.errors import Code, FedgenError, IntegrityError, MissingExtra, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORD = "CANARY-Ünterberg-4711"
ROW = 4711.0815
_ROW_TEXT = "4711.0815"


def tree(root: type[FedgenError] = FedgenError) -> list[type[FedgenError]]:
    """Return every class of the error tree, those of the ledger's and the others' own modules included."""
    for module in pkgutil.iter_modules(fedgen.ledger.__path__):
        importlib.import_module(f"fedgen.ledger.{module.name}")
    found = [root]
    for child in root.__subclasses__():
        found += tree(child)
    return found


def _own(kind: type[FedgenError]) -> FedgenError:
    """Return an error of the tree with the canary in every place it has."""
    if issubclass(kind, MissingExtra):
        error: FedgenError = kind(WORD, needed_for=f"{WORD} {ROW}")
    elif issubclass(kind, Refused):
        error = kind(f"{WORD} {ROW}", code=Code.CONSENT, where=WORD, line=4711, key=WORD, hint=WORD)
    elif issubclass(kind, IntegrityError):
        error = kind(f"{WORD} {ROW}", where=WORD, hint=WORD)
    else:
        error = kind(f"{WORD} {ROW}", where=WORD, line=4711, key=WORD, hint=WORD)
    error.args = (WORD, ROW)
    return error


class Panic(BaseException):
    """What a panic in a Rust extension (pydantic, cryptography, safetensors) looks like to Python."""


class Mute(Exception):
    """An error that cannot be put in words."""

    def __str__(self) -> str:
        raise RuntimeError(WORD)


class _Model(BaseModel):
    model_config = ConfigDict(strict=True)
    visits: int


def _validation() -> ValidationError:
    try:
        _Model.model_validate({"visits": WORD})
    except ValidationError as error:
        return error
    raise AssertionError


def _chained() -> ValueError:
    error = ValueError(WORD, ROW)
    error.__cause__ = KeyError(WORD)
    error.add_note(WORD)
    return error


def foreign() -> list[BaseException]:
    """Return errors this package did not raise itself."""
    return [
        OSError(28, WORD, WORD),
        PermissionError(13, WORD, WORD),
        TimeoutError(WORD),
        ConnectionError(WORD, ROW),
        MemoryError(WORD, ROW),
        ValueError(WORD, ROW),
        TypeError(WORD),
        KeyError(WORD),
        IndexError(ROW),
        AttributeError(WORD),
        AssertionError(WORD),
        RecursionError(WORD),
        ZeroDivisionError(WORD),
        OverflowError(WORD),
        StopIteration(WORD),
        NotImplementedError(WORD),
        RuntimeError(WORD, ROW),
        UnicodeDecodeError("utf-8", WORD.encode(), 0, 1, WORD),
        UnicodeEncodeError("utf-8", WORD + "\udcff", 0, 1, WORD),
        ValueError(f"\udcff a lone surrogate and {WORD}"),
        ValueError(f'{WORD}\n{{"code": "{WORD}"}}\0'),
        ValueError(WORD * 10_000),
        json.JSONDecodeError(WORD, WORD, 0),
        struct.error(WORD),
        _validation(),
        _chained(),
        ExceptionGroup(WORD, [ValueError(WORD), KeyError(ROW)]),
        torch.OutOfMemoryError(WORD),
        torch.linalg.LinAlgError(WORD),
        pa.ArrowInvalid(WORD),
        sqlite3.OperationalError(WORD),
        OperationalError(f"SELECT {WORD}", {"row": ROW}, sqlite3.OperationalError(WORD)),
        asyncio.CancelledError(WORD),
        Mute(WORD),
        SystemExit(WORD),
        GeneratorExit(WORD),
        Panic(WORD, ROW),
    ]


def every_error() -> list[BaseException]:
    """Return every class of the tree and the foreign ones, new objects each time."""
    return [_own(kind) for kind in tree()] + foreign()


def named() -> list[tuple[str, BaseException]]:
    """Return :func:`every_error`, each with a name for a failing test's message."""
    return [(f"{number} {type(error).__name__}", error) for number, error in enumerate(every_error())]


def traces(data: bytes) -> list[str]:
    """Return which spellings of the canary occur in ``data``."""
    spellings: dict[str, bytes] = {}
    for text in (WORD, "CANARY", "nterberg", _ROW_TEXT):
        raw = text.encode()
        spellings |= {
            f"{text} utf-8": raw,
            f"{text} utf-16": text.encode("utf-16-le"),
            f"{text} hex": raw.hex().encode(),
            f"{text} base64": base64.b64encode(raw)[: len(raw) * 4 // 3 - 2],
            f"{text} escaped": json.dumps(text).encode().strip(b'"'),
        }
    spellings["row double"] = struct.pack("<d", ROW)
    spellings["row float"] = struct.pack("<f", ROW)
    # What is shorter occurs in random bytes by chance.
    return [name for name, raw in spellings.items() if len(raw) > 7 and raw in data]


def raising(error: BaseException) -> Callable[..., object]:
    """Return a callable that raises ``error`` whatever it is given."""

    def broken(*_args: object, **_kwargs: object) -> object:
        raise error

    return broken


def words_of(value: object) -> Iterator[str]:
    """Yield every string in a JSON value, keys included."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from words_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from words_of(item)
    else:
        yield str(value)
