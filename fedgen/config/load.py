"""Read a study file, with the changes of the command line, and say in one line what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from fedgen.config.overrides import OVERRIDE, apply, parse_override
from fedgen.config.study import Study
from fedgen.config.toml_lines import toml_lines
from fedgen.errors import ConfigError
from fedgen.schema.yamlsource import explain, load_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.schema.lines import Key, Lines

SUFFIXES: Final = (".yaml", ".yml", ".toml", ".json")


@dataclass(frozen=True, slots=True)
class StudyFile:
    """A study and where it was read, so that later errors can still name file and line.

    Attributes:
        study: The study, with the changes of the command line.
        path: The file.
        lines: Line of each key.
        overrides: The keys that the command line changed.
    """

    study: Study
    path: Path
    lines: Lines
    overrides: frozenset[Key]

    @property
    def base(self) -> Path:
        """The folder that relative paths in the study start from."""
        return self.path.parent

    def file(self, written: str) -> Path:
        """Return a path of the study, such as ``data.schema``, as a path of this machine."""
        return self.base / Path(written).expanduser()

    def locate(self, error: ConfigError) -> ConfigError:
        """Return ``error``, which names a key of the study, with the file and line of that key.

        An error that already names a file is returned as it is.
        """
        if error.where is not None or error.key is None:
            return error
        return _placed(error, self.path, self.lines, self.overrides)


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyFile:
    """Return the study in a YAML, TOML or JSON file (by suffix), with ``overrides`` applied.

    Guarantees:
        - The study is whole: an unknown key, a value out of bounds or a broken rule refuses all of it.
        - An error names the file and line of the key, or the override that set it.

    Edge cases:
        - An override to ``null`` takes a key away: ``privacy.noise_multiplier=null``.

    Args:
        path: The file.
        overrides: Each ``a.b=c``, the value read as YAML.

    Raises:
        ConfigError: With file, line, key and a hint; an unknown key gets the nearest known name.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            "is not a study file by its name", where=path, hint=f"study files end in {', '.join(SUFFIXES)}"
        )
    data, lines = load_yaml(path)
    if path.suffix.lower() == ".toml":
        lines = toml_lines(path.read_text(encoding="utf-8-sig"))
    if not isinstance(data, dict):
        raise ConfigError("a study is a mapping of keys", where=path, line=lines.of(()))
    changes = [parse_override(text) for text in overrides]
    apply(data, changes)
    applied = frozenset(change.key for change in changes)
    try:
        study = Study.model_validate(data)
    except ValidationError as error:
        fault = _placed(explain(error, lines, path, Study), path, lines, applied)
        raise fault from None
    return StudyFile(study=study, path=path, lines=lines, overrides=applied)


def _placed(error: ConfigError, path: Path, lines: Lines, overrides: frozenset[Key]) -> ConfigError:
    """Return ``error`` with the place where its key was set: the command line, or a line of the file."""
    parts = (error.key or "").split(".") if error.key else []
    key: Key = tuple(int(part) if part.isdecimal() else part for part in parts)
    changed = any(key[:size] in overrides for size in range(1, len(key) + 1))
    # A key that only the command line spells, such as a section with a slip in its name, is not in the file.
    changed = changed or (key not in lines.places and any(set_[: len(key)] == key for set_ in overrides))
    where, line = (OVERRIDE, None) if changed else (path, lines.of(key))
    return ConfigError(error.what, where=where, line=line, key=error.key, hint=error.hint)
