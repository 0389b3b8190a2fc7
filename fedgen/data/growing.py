"""An array that grows row by row: in memory while it is small, then in a file without a name."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

SPILL_BYTES: Final = 256 * 2**20
_CHUNK_BYTES: Final = 8 * 2**20


class GrowingArray:
    """Rows of one width and type, appended in blocks and read once they are all there.

    Guarantees:
        - Up to ``spill_bytes`` the rows are in memory, with an eighth to spare; beyond, they are in a file
          that has no name (nobody else can open it, and it is gone with the process) and memory holds one
          block.
        - The result cannot be written to.

    Edge cases:
        ==========================  ===========================================
        no rows                     an array of shape ``(0, *shape)``
        rows of width zero          kept as a count
        ==========================  ===========================================

    Args:
        dtype: Type of the elements.
        shape: Shape of one row.
        spill_bytes: From which size on rows go to the file, at least zero.

    Raises:
        OSError: The disk is full; the message names the folder and how to choose another.
    """

    def __init__(
        self, dtype: npt.DTypeLike, shape: tuple[int, ...] = (), *, spill_bytes: int = SPILL_BYTES
    ) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = shape
        self._spill_bytes = spill_bytes
        self._held: npt.NDArray[Any] = np.empty((0, *shape), self.dtype)
        self._file: Any = None
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(self, block: npt.NDArray[Any]) -> None:
        """Add rows of shape ``(n, *shape)``; the type is converted only if no value can change.

        Raises:
            TypeError: The type could change a value.
            ValueError: The shape does not fit.
        """
        if block.shape[1:] != self.shape:
            raise ValueError(f"rows must have the shape {self.shape}, not {block.shape[1:]}")
        block = np.ascontiguousarray(block.astype(self.dtype, casting="safe", copy=False))
        total = self._rows + len(block)
        if self._file is None and total * self._row_bytes > self._spill_bytes:
            self._spill()
        if self._file is None:
            self._reserve(total)
            self._held[self._rows : total] = block
        else:
            self._write(block)
        self._rows = total

    def finish(self) -> npt.NDArray[Any]:
        """Return all rows, shape ``(n, *shape)``, read-only; the growing array is empty afterwards."""
        if self._file is None:
            result = self._held
            result.resize((self._rows, *self.shape), refcheck=False)
        else:
            self._file.flush()
            result = np.memmap(self._file, self.dtype, mode="r", shape=(self._rows, *self.shape))
            self._file.close()
        self._held, self._file, self._rows = np.empty((0, *self.shape), self.dtype), None, 0
        result.setflags(write=False)
        return result

    @property
    def _row_bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))

    def _reserve(self, rows: int) -> None:
        """Make room; growing by an eighth lets the allocator extend in place instead of copying."""
        if rows > len(self._held):
            room = max(rows, len(self._held) + len(self._held) // 8)
            self._held.resize((room, *self.shape), refcheck=False)

    def _spill(self) -> None:
        """Move what is held to a file."""
        self._file = tempfile.TemporaryFile(prefix="fedgen-")  # noqa: SIM115 - it lives as long as the rows
        self._write(self._held[: self._rows])
        self._held = np.empty((0, *self.shape), self.dtype)

    def _write(self, block: npt.NDArray[Any]) -> None:
        """Write in chunks; say what to do when the disk is full."""
        step = max(1, _CHUNK_BYTES // max(1, self._row_bytes))
        try:
            for start in range(0, len(block), step):
                self._file.write(block[start : start + step].tobytes())
        except OSError as error:
            folder = tempfile.gettempdir()
            what = f"no room for encoded rows ({os.strerror(error.errno or 0)}); TMPDIR names another folder"
            raise OSError(error.errno, what, folder) from None


class GrowingTexts:
    """Fixed-width bytes of growing width, in a :class:`GrowingArray`.

    Guarantees:
        - Values are kept byte for byte.
        - The width is a multiple of eight, so that it grows rarely.

    Args:
        spill_bytes: As in :class:`GrowingArray`.
    """

    def __init__(self, *, spill_bytes: int = SPILL_BYTES) -> None:
        self._spill_bytes = spill_bytes
        self._rows = GrowingArray("S8", spill_bytes=spill_bytes)

    def append(self, block: npt.NDArray[np.bytes_]) -> None:
        """Add values, shape ``(n,)``, of any width."""
        if block.dtype.itemsize > self._rows.dtype.itemsize:
            self._widen(-(-block.dtype.itemsize // 8) * 8)
        self._rows.append(block)

    def finish(self) -> npt.NDArray[np.bytes_]:
        """Return all values, shape ``(n,)``, read-only."""
        return self._rows.finish()

    def _widen(self, width: int) -> None:
        """Copy what is there into wider cells, chunk by chunk."""
        narrow = self._rows.finish()
        self._rows = GrowingArray(f"S{width}", spill_bytes=self._spill_bytes)
        step = _CHUNK_BYTES // width
        for start in range(0, len(narrow), step):
            self._rows.append(narrow[start : start + step])
