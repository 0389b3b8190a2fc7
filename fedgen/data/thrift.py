"""Reading Thrift's compact protocol: just enough to look at a Parquet file's own words before Arrow believes them.

Source: Apache Thrift, "Thrift Compact protocol encoding".
"""

from __future__ import annotations

import struct
from typing import Any, Final

_MAX_DEPTH: Final = 16
_TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 11, 12


class Torn(ValueError):
    """The bytes end too early, or are no struct of Thrift's."""


class Compact:
    """A place in bytes that hold structs; each becomes a dictionary from field number to value.

    Guarantees:
        - Any bytes give a struct or :class:`Torn`; memory and time are bounded by the number of bytes.

    Args:
        data: The bytes.
        at: Where to begin.
    """

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the struct that begins here; afterwards ``at`` is behind it.

        Raises:
            Torn: There is none.
        """
        if depth > _MAX_DEPTH:
            raise Torn("too deep")
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            kind, step = head & 15, head >> 4
            number = number + step if step else self._zigzag()
            fields[number] = kind == _TRUE if kind in {_TRUE, _FALSE} else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:  # noqa: PLR0911 - one for each type
        if _BYTE < kind <= _I64:
            return self._zigzag()
        if kind == _BINARY:
            return self._take(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in {_LIST, _SET}:
            return self._list(depth)
        if kind == _DOUBLE:
            return struct.unpack("<d", self._take(8))[0]
        if kind in {_TRUE, _FALSE, _BYTE}:  # in a list a boolean takes a byte
            return self._byte()
        if kind == _MAP:
            return self._map(depth)
        raise Torn("no such type")

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size = head >> 4
        size = self._varint() if size == 15 else size  # noqa: PLR2004 - then the size stands behind
        if size > len(self._data) - self.at:
            raise Torn("more elements than bytes")
        return [self._value(head & 15, depth + 1) for _ in range(size)]

    def _map(self, depth: int) -> list[tuple[Any, Any]]:
        size = self._varint()
        if not size:
            return []
        if size > len(self._data) - self.at:
            raise Torn("more elements than bytes")
        kinds = self._byte()
        return [(self._value(kinds >> 4, depth + 1), self._value(kinds & 15, depth + 1)) for _ in range(size)]

    def _byte(self) -> int:
        try:
            value = self._data[self.at]
        except IndexError:
            raise Torn("too short") from None
        self.at += 1
        return value

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self.at:
            raise Torn("too short")
        self.at += size
        return self._data[self.at - size : self.at]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004 - the last byte of a number
                return value
        raise Torn("a number without an end")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
