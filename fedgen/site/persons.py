"""Whose the permitted rows are, worked out once for as long as the same rows are permitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.crypto.digest import sha256_hex
from fedgen.dpsgd.persons import PersonIndex
from fedgen.errors import Code, Refused
from fedgen.privacy.units import Unit
from fedgen.training.learner import Persons

if TYPE_CHECKING:
    from fedgen.config.resolve import ResolvedStudy
    from fedgen.data.gate import PermittedTable

_NOTHING: Final = ("", "")


class PersonBook:
    """Makes the person index of a permitted table, and keeps the last one.

    Telling a million identifiers apart takes seconds; a digest of them takes milliseconds. So what is kept is found
    again by the identifiers themselves, row by row, and never by a table's address or a round's number: another
    row, another order or another spelling is another index.

    Guarantees:
        - Rows have one person exactly if their identifiers are equal, byte for byte.
        - Numbers of persons mean nothing outside of one index, and never leave the site.
    """

    def __init__(self) -> None:
        self._key = _NOTHING
        self._index: PersonIndex | None = None

    def of(self, study: ResolvedStudy, table: PermittedTable) -> Persons | None:
        """Return whose each permitted row is, or None where the study does not protect persons.

        Raises:
            Refused: ``data``: the study protects persons, and the rows do not say whose they are.
        """
        privacy = study.study.privacy
        if privacy.unit is not Unit.PERSON:
            return None
        subjects, most = table.subjects, privacy.rows_per_person
        if subjects is None or most is None:
            raise Refused(
                "the study protects persons, and the rows do not say whose they are", code=Code.DATA
            )
        subjects = np.ascontiguousarray(subjects)
        key = (str(subjects.dtype), sha256_hex(subjects.view(np.uint8).data))
        if self._index is None or key != self._key:
            _names, person = np.unique(subjects, return_inverse=True)
            self._index, self._key = PersonIndex.of(person), key
        return Persons(index=self._index, rows_each=most)
