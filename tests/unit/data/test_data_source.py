"""What every source promises, by a source made for the purpose."""

from typing import Any

import pyarrow as pa
import pytest

from fedgen.data.source import Source, check_header
from fedgen.errors import DataError


class Listed(Source):
    """Batches from a list."""

    def __init__(self, *sizes: Any) -> None:
        self.sizes = sizes
        self.closed = False

    @property
    def columns(self) -> Any:
        return ["a", "visits"]

    @property
    def describe(self) -> Any:
        return "listed"

    def _read(self, columns: Any, batch_rows: Any) -> Any:
        first = 0
        try:
            for size in self.sizes:
                cells = pa.array(range(first, first + size))
                yield pa.RecordBatch.from_arrays([cells] * len(columns), names=columns)
                first += size
        finally:
            self.closed = True


def rows(batches: Any) -> Any:
    return [v for batch in batches for v in batch.column(0).to_pylist()]


def test_batches_are_no_larger_than_asked_for_and_in_order() -> None:
    batches = list(Listed(10, 0, 3).batches(batch_rows=4))
    assert [b.num_rows for b in batches] == [4, 4, 2, 3]
    assert rows(batches) == list(range(13))


def test_columns_come_as_asked_for() -> None:
    (batch,) = Listed(2).batches(["visits", "a"])
    assert batch.schema.names == ["visits", "a"]


def test_a_table_can_be_read_twice() -> None:
    source = Listed(5)
    assert rows(source.batches()) == rows(source.batches())


@pytest.mark.parametrize("sizes", [(), (0,), (0, 0)])
def test_a_table_without_rows_is_refused_when_exhausted(sizes: Any) -> None:
    batches = Listed(*sizes).batches()
    with pytest.raises(DataError, match="listed: the table has no rows"):
        list(batches)


@pytest.mark.parametrize(
    ("name", "hint"), [("Visits", "did you mean 'visits'?"), ("zzz", "is this the table")]
)
def test_an_unknown_column_is_refused_at_once(name: str, hint: Any) -> None:
    with pytest.raises(DataError) as caught:
        Listed(1).batches(["a", name])
    assert str(caught.value).startswith(f"listed: {name}: the table has no such column")
    assert hint in str(caught.value)


def test_asking_for_nothing_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="at least one column"):
        Listed(1).batches([])
    with pytest.raises(ValueError, match="batch_rows must be positive"):
        Listed(1).batches(batch_rows=0)


def test_stopping_early_closes_the_source() -> None:
    source = Listed(1, 1)
    batches = source.batches()
    next(batches)
    batches.close()
    assert source.closed


def test_a_repeated_column_is_named_with_its_place() -> None:
    with pytest.raises(DataError, match=r"t\.csv: b: column 3 repeats the name of another"):
        check_header(["a", "b", "b"], "t.csv")
    assert check_header(["a", "A"], "t.csv") == ["a", "A"]
