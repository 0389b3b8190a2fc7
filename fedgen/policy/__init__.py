"""What a site may use: consent now; packs, rights and retention in later versions.

:class:`ConsentLog` answers one question, :meth:`~ConsentLog.decide`, with a :class:`Decision`. The gate
that obeys it is :mod:`fedgen.data.gate`.
"""

from fedgen.policy.consent import ConsentLog, Decision, Regime
from fedgen.policy.reasons import MEANINGS, Reason

__all__ = ["MEANINGS", "ConsentLog", "Decision", "Reason", "Regime"]
