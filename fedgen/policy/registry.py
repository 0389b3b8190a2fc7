"""Every rule there is: importing this registers them all."""

from __future__ import annotations

import fedgen.policy.rules_baseline
import fedgen.policy.rules_ccpa
import fedgen.policy.rules_gdpr
import fedgen.policy.rules_shared  # noqa: F401 - importing registers the rules
from fedgen.policy.rules import RULES, Rule

__all__ = ["RULES", "Rule"]
