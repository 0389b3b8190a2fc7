"""Makes ``tests/support`` importable, plain builders that several rooms' tests share; and keeps torch to one thread.

Tests compute on tensors of a few hundred numbers; more threads would only wait for each other.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is first imported
sys.path.insert(0, str(Path(__file__).parent))
