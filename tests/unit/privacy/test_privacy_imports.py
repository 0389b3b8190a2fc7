import subprocess
import sys

import pytest

PROGRAM = """
import sys
import fedgen.privacy.plan, fedgen.privacy.budget, fedgen.privacy.statement, fedgen.privacy.events
heavy = {"dp_accounting", "scipy", "numpy", "torch", "opacus"} & set(sys.modules)
assert not heavy, heavy

import logging
from fedgen.privacy.accountant import epsilon, epsilon_rdp
from fedgen.privacy.events import PoissonGaussian
work = [(PoissonGaussian(0.1, 1.0), 500)]  # several Rényi orders do not converge here
assert epsilon(work, 1e-5).epsilon < epsilon_rdp(work, 1e-5).epsilon
assert not logging.root.handlers and logging.root.level == logging.WARNING and not logging.root.disabled
assert "torch" not in sys.modules
print("quiet", file=sys.stderr)

import dp_accounting as dpa
dpa.rdp.RdpAccountant().compose(dpa.PoissonSampledDpEvent(0.1, dpa.GaussianDpEvent(1.0)), 500)
"""


@pytest.mark.process
def test_the_core_imports_nothing_heavy_and_leaves_logging_alone() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, _, after = done.stderr.partition("quiet\n")
    assert before == ""
    assert "failed to converge" in after  # whoever uses dp_accounting for himself still hears it
