import re

from fedgen.messages import Trained
from fedgen.policy.fold import CONSENTED, OTHER_PURPOSE, REASON_OF, SILENT, Status
from fedgen.policy.reasons import MEANINGS, Reason


def test_every_reason_has_a_meaning_of_one_line() -> None:
    assert set(MEANINGS) == set(Reason)
    for meaning in MEANINGS.values():
        assert meaning
        assert "\n" not in meaning
        assert len(meaning) <= 100


def test_slugs_are_lower_case_words_and_few_enough_for_a_reply() -> None:
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", reason) for reason in Reason)
    limit = next(m.max_length for m in Trained.model_fields["excluded"].metadata if hasattr(m, "max_length"))
    assert len(Reason) <= limit


def test_every_reason_can_be_reached_from_exactly_one_outcome() -> None:
    assert REASON_OF[CONSENTED] is None
    assert sorted(r for r in REASON_OF if r) == sorted(Reason)
    assert REASON_OF[SILENT] is Reason.CONSENT_MISSING
    assert REASON_OF[OTHER_PURPOSE] is Reason.PURPOSE_NOT_CONSENTED
    assert REASON_OF[Status.WITHDRAWN] is Reason.CONSENT_WITHDRAWN
    assert REASON_OF[Status.OBJECTED] is Reason.OBJECTED
