"""Whether the people who answer for a site's data agreed to a study: asked when it joins, and before each round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fedgen.config.resolve import ResolvedStudy
    from fedgen.privacy.plan import Plan


class Approvals(Protocol):
    """What a site asks before it lends its rows to a study."""

    def check(self, study_hash: str, study: ResolvedStudy, plan: Plan) -> None:
        """Return if this very study is approved now.

        Args:
            study_hash: SHA-256 of the study, 64 hex digits.
            study: As the site itself parsed it.
            plan: As the site itself computed it.

        Raises:
            Refused: It is not; the text, for the site alone, says what is missing.
        """
        ...
