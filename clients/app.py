"""A site as a Flower ClientApp: a relay between Flower and the site's daemon, and nothing else.

What answers is ``fedgen site serve``, another process of another user. Nothing of it is in this bundle.
"""

from __future__ import annotations

from fedgen.flower.relay import relay_app

app = relay_app()
