"""The coordinator as a Flower ServerApp: composition only; the library does the work.

``fedgen train`` has Flower start it; ``fedgen simulate`` builds its own apps.
"""

from __future__ import annotations

from fedgen.api.coordinating import coordinate
from fedgen.flower.apps import superlink_app

app = superlink_app(coordinate)
