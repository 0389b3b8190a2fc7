"""What every benchmark shares: its options, its versions, its table and its targets."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PACKAGES = ("fedgen", "torch", "opacus", "flwr", "ray", "dp-accounting", "numpy", "pydantic", "cryptography")


@dataclass(frozen=True, slots=True)
class Target:
    """One promise and what was measured.

    Attributes:
        what: The quantity, with its unit; says "at least" or "at most".
        target: The promised bound.
        got: The measured value, or None when it could not be measured.
        at_most: Whether the bound is an upper one.
    """

    what: str
    target: float
    got: float | None
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the promise is kept; what could not be measured is not."""
        if self.got is None:
            return False
        return self.got <= self.target if self.at_most else self.got >= self.target

    def to_json(self) -> dict[str, Any]:
        """Return ``what``, ``target``, ``got`` and ``met``."""
        return {"what": self.what, "target": self.target, "got": self.got, "met": self.met}


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has: ``--json`` and ``--quick``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.add_argument("--quick", action="store_true", help="a smaller run, for a first impression")
    return parser


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of Python, the machine and ``packages``, as far as they are installed."""
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0))),
    }
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def publish(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    targets: Sequence[Target],
    *,
    as_json: bool,
    **more: float | None,
) -> int:
    """Print a benchmark's result: a table and one line per target, or one JSON document.

    Args:
        name: Of the benchmark.
        rows: The table; the columns are the keys, in the order in which they first appear.
        targets: The promises.
        as_json: Print the document instead.
        more: Figures of this benchmark that scripts read at the top of its document.

    Returns:
        Zero: a missed target is a result, not a failure.
    """
    if as_json:
        document = {
            "name": name,
            "versions": versions(),
            **more,
            "rows": [dict(row) for row in rows],
            "targets": [target.to_json() for target in targets],
            "targets_met": all(target.met for target in targets),
        }
        print(json.dumps(document, ensure_ascii=False))
        return 0
    print(f"{name}: " + ", ".join(f"{package} {number}" for package, number in versions().items()))
    print(table(rows))
    print(
        table(
            [{**target.to_json(), "met": "met" if target.met else "MISSED"} for target in targets],
            columns=("what", "target", "got", "met"),
        )
    )
    return 0


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Return ``rows`` as aligned text, numbers to the right; empty for no rows."""
    names = list(columns) if columns else list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(names, *cells, strict=True)]
    numeric = [
        all(isinstance(row.get(name), int | float | None) for row in rows) and bool(rows) for name in names
    ]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in [names, *cells]
    ]
    return "\n".join(lines) if rows else ""


def _cell(value: object) -> str:
    """Return a value as a person reads it: four significant digits, a dash for nothing."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
    return str(value)
