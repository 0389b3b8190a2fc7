"""Sums without masks refuse what the server's end refuses."""

from __future__ import annotations

import numpy as np
import pytest
from support.secagg import terms_for

from fedgen.errors import Code, IntegrityError, QuorumLost
from fedgen.secagg.plain import PlainSum


def test_strangers_repeats_and_other_shapes_are_refused() -> None:
    plain = PlainSum(terms_for(4, dropouts=1))
    with pytest.raises(IntegrityError) as error:
        plain.begin(1, 1, ["site-000", "site-001", "nobody"])
    assert error.value.code is Code.UNKNOWN_SENDER
    plain.begin(1, 1)
    ones = np.ones(32, np.uint32)
    plain.add("site-000", ones)
    for name, values, code in (
        ("site-000", ones, Code.REPLAYED),
        ("nobody", ones, Code.UNKNOWN_SENDER),
        ("site-001", np.ones(31, np.uint32), Code.WRONG_SHAPE),
        ("site-001", np.ones(32, np.uint64), Code.WRONG_SHAPE),
    ):
        with pytest.raises(IntegrityError) as error:
            plain.add(name, values)
        assert error.value.code is code
    plain.add("site-001", ones)
    plain.add("site-002", ones)
    assert plain.finish().values.tolist() == [3] * 32
    with pytest.raises(QuorumLost):
        plain.finish()
