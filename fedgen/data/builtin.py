"""Two public data sets that travel with packages of the ``examples`` extra.

``builtin:randhie``
    Visits to physicians under different insurance plans: :mod:`fedgen.data.randhie`.

``builtin:digits``
    1,797 grey images of handwritten digits, 8 by 8 pixels of 0 to 16. Each image is its own subject: the
    file does not say who wrote it. Source: scikit-learn, ``datasets/data/digits.csv.gz``; Alpaydin and
    Kaynak (1998), UCI Machine Learning Repository, "Optical Recognition of Handwritten Digits" (CC BY 4.0).

The files are found without importing their packages, which would cost seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.data.csv_source import CsvSource
from fedgen.data.randhie import persons, randhie_schema
from fedgen.data.source import Source
from fedgen.errors import ConfigError, DataError, MissingExtra
from fedgen.schema.explain import nearest
from fedgen.schema.table import ImageSchema, TableSchema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt
    import pyarrow as pa

DIGITS_ROWS: Final = 1797


@dataclass(frozen=True, slots=True)
class _Known:
    """A data set: where its file lies, who each row is of, and what is publicly known of it.

    Attributes:
        package: The package that brings the file.
        file: The file's path inside the package.
        has_header: Whether the file names its columns; else they are those of the schema.
        schema: Makes the schema.
        numbers: Makes the number of each row's subject, from 1.
        form: How a number becomes an identifier.
    """

    package: str
    file: str
    has_header: bool
    schema: Callable[[], TableSchema | ImageSchema]
    numbers: Callable[[], npt.NDArray[np.int64]]
    form: str


def _digits_schema() -> ImageSchema:
    return ImageSchema(
        height=8,
        width=8,
        max_value=16,
        classes=tuple("0123456789"),
        subject="image",
        description="Handwritten digits, 8 by 8 (UCI Optical Recognition of Handwritten Digits)",
    )


def _digits_numbers() -> npt.NDArray[np.int64]:
    return np.arange(1, DIGITS_ROWS + 1)


_KNOWN: Final = {
    "randhie": _Known(
        "statsmodels", "datasets/randhie/randhie.csv", True, randhie_schema, persons, "p{:05d}"
    ),
    "digits": _Known(
        "sklearn", "datasets/data/digits.csv.gz", False, _digits_schema, _digits_numbers, "d{:04d}"
    ),
}
BUILTINS: Final = tuple(_KNOWN)


def builtin_schema(name: str) -> TableSchema | ImageSchema:
    """Return the public schema of a built-in data set; its package need not be installed.

    Raises:
        ConfigError: No such data set.
    """
    return _known(name).schema()


def builtin_source(name: str) -> Source:
    """Return the rows of a built-in data set, with a column that says whose each row is.

    Args:
        name: ``randhie`` or ``digits``.

    Raises:
        ConfigError: No such data set.
        MissingExtra: The package that brings it is not installed.
    """
    return BuiltinSource(name)


class BuiltinSource(Source):
    """A data set of another package, and the identifiers of its subjects as one more column, the last.

    Args:
        name: ``randhie`` or ``digits``.

    Raises:
        ConfigError: No such data set.
        MissingExtra: The package that brings it is not installed.
    """

    def __init__(self, name: str) -> None:
        known = _known(name)
        self._name = name
        self._form = known.form
        self._numbers = known.numbers()
        schema = known.schema()
        self._subject = str(schema.subject)
        path = _locate(known, name)
        self._table = CsvSource(path, names=None if known.has_header else list(schema.names))

    @property
    def columns(self) -> list[str]:
        """Names in the file, and the subject's column."""
        return [*self._table.columns, self._subject]

    @property
    def describe(self) -> str:
        """The address."""
        return f"builtin:{self._name}"

    def _read(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        inner = [name for name in columns if name != self._subject] or self._table.columns[:1]
        seen = 0
        for batch in self._table.batches(inner, batch_rows):
            numbers = self._numbers[seen : seen + batch.num_rows]
            if len(numbers) < batch.num_rows:
                break
            seen += batch.num_rows
            people = pa.array([self._form.format(number) for number in numbers], pa.string())
            arrays = [people if name == self._subject else batch.column(name) for name in columns]
            yield pa.RecordBatch.from_arrays(arrays, names=columns)
        else:
            if seen == len(self._numbers):
                return
        what = f"the installed file has not the {len(self._numbers)} rows it is known for"
        raise DataError(what, where=self.describe, hint="install the releases that pyproject.toml names")


def _known(name: str) -> _Known:
    """Return what is known of a data set."""
    if name not in _KNOWN:
        guess = nearest(name, _KNOWN)
        hint = f"did you mean builtin:{guess}?" if guess else f"known: {', '.join(_KNOWN)}"
        raise ConfigError("no built-in data set of this name", where=f"builtin:{name}", hint=hint)
    return _KNOWN[name]


def _locate(known: _Known, name: str) -> Path:
    """Return the path of the file inside its package, without importing the package."""
    spec = find_spec(known.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, known.file)
        if path.is_file():
            return path
    raise MissingExtra("examples", needed_for=f"builtin:{name}")
