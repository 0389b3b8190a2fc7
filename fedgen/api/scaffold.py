"""``init``: a study folder to start from, drafted from a header and types, never from values."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedgen.errors import ConfigError
from fedgen.runs.atomic import write_text

if TYPE_CHECKING:
    from pathlib import Path

_STUDY: Final = """\
# A federated, differentially private study. Check it with: fedgen check study.yaml
study: {name}
data:
  source: {source}
{schema}  sites: {{count: 4, split: iid}}      # how a simulation cuts the table; a deployment has real sites
  holdout: 0.2                        # rows no site trains on, for the evaluation (simulation only)
model: {{name: {model}}}
privacy:
  unit: record                        # what is protected as a whole
  trust: local                        # every site adds its own noise; central: the coordinator adds it
  epsilon: 3.0                        # what may be spent over the whole study
  delta: 1.0e-5                       # keep it below one over the number of records
  clip: 1.0
training: {{rounds: 100, sample_rate: 0.1, optimizer: {{name: adam, lr: 5.0e-3}}}}
policy: {{purpose: train_generator}}
release: {{rows: 1000, formats: [parquet, csv]}}
"""


@dataclass(frozen=True, slots=True)
class Scaffold:
    """What was made, and what a person must fill in."""

    files: tuple[Path, ...]
    to_do: list[str]


def scaffold(directory: Path, source: Path | None = None) -> Scaffold:
    """Make a study folder.

    Guarantees:
        - No value of ``source`` is read: two files with one header and types give the same draft.
        - An existing study or schema is never overwritten.

    Args:
        directory: Folder to make or fill.
        source: CSV or Parquet; None gives a study of the builtin RAND HIE table.

    Raises:
        ConfigError: The folder holds a study, or the file cannot be read.
    """
    study_path, schema_path = directory / "study.yaml", directory / "schema.yaml"
    for path in (study_path, schema_path):
        if path.exists():
            raise ConfigError("exists already and is not overwritten", where=path, hint="name another folder")
    fill = {"name": _slug(directory.resolve().name), "model": "tabular-vae"}
    if source is None:
        text = _STUDY.format(source="builtin:randhie", schema="", **fill)
        directory.mkdir(parents=True, exist_ok=True)
        write_text(study_path, text)
        return Scaffold(files=(study_path,), to_do=["nothing: the builtin source brings its own schema"])
    from fedgen.schema.draft import draft_schema

    drafted, to_do = draft_schema(source)
    kind = "parquet" if source.suffix == ".parquet" else "csv"
    address = json.dumps(f"{kind}://{source.resolve()}", ensure_ascii=False)  # JSON's quoting is YAML's too
    text = _STUDY.format(source=address, schema="  schema: schema.yaml\n", **fill)
    directory.mkdir(parents=True, exist_ok=True)
    write_text(schema_path, drafted)
    try:
        write_text(study_path, text)
    except ConfigError:
        schema_path.unlink(missing_ok=True)  # half a study would stand in the way of a second try
        raise
    return Scaffold(files=(study_path, schema_path), to_do=list(to_do))


def _slug(name: str) -> str:
    """Return a study's name made from a folder's: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63] or "study"
