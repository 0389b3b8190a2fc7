"""Turn what pydantic found wrong into one line that says where, what, and how to mend it."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

from fedgen.errors import ConfigError
from fedgen.schema.lines import Key, Lines, dotted

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

Name = TypeVar("Name", bound=str)

_CHOICES: Final = ("literal_error", "enum", "union_tag_invalid", "union_tag_not_found")

_WORDS: Final = {
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_too_short": "must not be empty",
    "too_short": "has too few entries",
    "too_long": "has too many entries",
    "finite_number": "must be a finite number",
}


class Flaw(ValueError):
    """What a validator of ours found wrong, with the key below it and the way to mend it.

    Args:
        what: The fault in one clause.
        key: Path below the value that is being validated.
        hint: How to mend it, in one clause.
    """

    def __init__(self, what: str, *, key: Key = (), hint: str | None = None) -> None:
        super().__init__(what)
        self.key = key
        self.hint = hint


def nearest(name: str, known: Iterable[Name]) -> Name | None:
    """Return the known name that ``name`` was most likely meant to be, or None if none is near.

    Guarantees:
        - Case and the choice between ``-``, ``_`` and a space never matter.
    """
    plain = {_plain(each): each for each in known}
    found = difflib.get_close_matches(_plain(name), list(plain), n=1, cutoff=0.6)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[-\s]", "_", name.casefold())


def explain(error: ValidationError, lines: Lines, where: str | Path | None, model: Any) -> ConfigError:
    """Return the one error a person should mend first.

    Guarantees:
        - An unknown key comes before anything else, for it is often the cause of the rest; then the order of
          the file decides.
        - The key holds names of the file only: no tag of a union, no name of a class.
        - The nearest known name is in the hint of an unknown key and of a choice that does not exist.

    Args:
        error: What ``model`` raised.
        lines: The lines of the file the data came from; ``Lines()`` where there are none.
        where: The file.
        model: The model or annotation that was validated.
    """
    problems = [_problem(detail, model) for detail in error.errors(include_url=False)]
    first = min(_deepest(problems), key=lambda problem: problem.rank(lines))
    return ConfigError(
        first.what, where=where, line=lines.of(first.path), key=dotted(first.path) or None, hint=first.hint
    )


@dataclass(frozen=True, slots=True)
class _Problem:
    """One fault, in the terms of the file."""

    path: Key
    what: str
    hint: str | None
    unknown: bool = False

    def rank(self, lines: Lines) -> tuple[bool, int]:
        return (not self.unknown, lines.of(self.path) or 0)


def _deepest(problems: Sequence[_Problem]) -> list[_Problem]:
    """Leave out what only follows from a fault further in: a list is too short for want of good items."""
    above = {problem.path[:size] for problem in problems for size in range(len(problem.path))}
    return [problem for problem in problems if problem.unknown or problem.path not in above] or list(problems)


def _problem(detail: ErrorDetails, model: Any) -> _Problem:
    kind = detail["type"]
    path, owner = _trace(model, detail["loc"])
    if kind == "extra_forbidden":
        path = path if path[-1:] == detail["loc"][-1:] else (*path, detail["loc"][-1])
        return _Problem(path, "unknown key", _suggest(str(path[-1]), _keys(owner)), unknown=True)
    if kind == "missing":
        return _Problem(path, "this key is missing", None)
    if kind in _CHOICES:
        return _choice(detail, path)
    return _fault(detail, path)


def _fault(detail: ErrorDetails, path: Key) -> _Problem:
    """Say what is wrong with a value, in our validator's words if one of ours refused it."""
    kind, value = detail["type"], detail.get("input")
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Flaw):
        return _Problem((*path, *cause.key), str(cause), cause.hint)
    if isinstance(cause, ValueError):
        return _Problem(path, str(cause), None)
    text = _WORDS.get(kind) or detail["msg"].replace("Input should be", "must be").rstrip(".")
    hint = "put it in quotes" if kind == "string_type" and isinstance(value, (bool, int, float)) else None
    text = text[:1].lower() + text[1:]
    if value is None and text.startswith(
        "must be "
    ):  # `key:` with nothing behind it, as a drafted file has it
        text = f"is not filled in; it {text}"
    return _Problem(path, text, hint)


def _choice(detail: ErrorDetails, path: Key) -> _Problem:
    context = detail["ctx"]
    if detail["type"] == "union_tag_not_found":
        return _Problem((*path, str(context["discriminator"]).strip("'")), "this key is missing", None)
    known = re.findall(r"'([^']*)'", str(context.get("expected") or context.get("expected_tags")))
    value: Any = detail.get("input")
    if detail["type"] == "union_tag_invalid":
        tag = str(context["discriminator"]).strip("'")
        path, value = (*path, tag), context["tag"]
    guess = nearest(value, known) if isinstance(value, str) else None
    hint = None if guess is None else f"did you mean {guess!r}?"
    return _Problem(path, f"must be one of: {', '.join(known)}", hint)


def _suggest(name: str, known: Sequence[str]) -> str:
    guess = nearest(name, known)
    return f"did you mean {guess!r}?" if guess else f"known here: {', '.join(known)}"


def _keys(owner: type[BaseModel] | None) -> list[str]:
    fields = owner.model_fields if owner else {}
    return [field.alias or name for name, field in fields.items()]


def _trace(annotation: Any, loc: Sequence[str | int]) -> tuple[Key, type[BaseModel] | None]:
    """Follow pydantic's location through the annotations; return the file's own path and the last model."""
    path: list[str | int] = []
    arms = _arms(annotation)
    owner: type[BaseModel] | None = None
    for part in loc:
        models = [arm for arm in arms if isinstance(arm, type) and issubclass(arm, BaseModel)]
        chosen = [arm for arm in models if _is_tag(arm, part)]
        if isinstance(part, int):
            path.append(part)
            arms = _inside(arms, part)
        elif len(models) == 1 and part in _keys(models[0]):
            owner = models[0]
            path.append(part)
            arms = _arms(_field(owner, part))
        elif chosen:
            arms, owner = chosen[:1], chosen[0]
        elif any(_is_mapping(arm) for arm in arms) and part != "[key]":
            path.append(part)
            arms = _inside(arms, part)
        elif len(models) == 1:
            owner = models[0]
    return tuple(path), owner


def _is_tag(model: type[BaseModel], part: str | int) -> bool:
    """Tell whether pydantic names this arm of a union by ``part``: its literal field, or its own name."""
    literals = [f.annotation for f in model.model_fields.values() if get_origin(f.annotation) is Literal]
    return part == model.__name__ or any(part in get_args(literal) for literal in literals)


def _field(model: type[BaseModel], key: str) -> Any:
    return next(f.annotation for name, f in model.model_fields.items() if (f.alias or name) == key)


def _arms(annotation: Any) -> list[Any]:
    """Return the members of a union, flat and without their metadata."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _arms(get_args(annotation)[0])
    if origin in {Union, types.UnionType}:
        return [arm for member in get_args(annotation) for arm in _arms(member)]
    return [annotation]


def _is_mapping(arm: Any) -> bool:
    origin = get_origin(arm) or arm
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _inside(arms: list[Any], part: str | int) -> list[Any]:
    """Return the arms of the items of the collections among ``arms``."""
    inner: list[Any] = []
    for arm in arms:
        members = [member for member in get_args(arm) if member is not Ellipsis]
        if not members or (_is_mapping(arm) is isinstance(part, int)):
            continue
        fixed = get_origin(arm) is tuple and len(members) > 1
        index = part if fixed and isinstance(part, int) and part < len(members) else -1
        inner += _arms(members[index])
    return inner
