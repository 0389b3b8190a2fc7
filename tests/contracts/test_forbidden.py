"""What the code must not hold, by a walk over its syntax: no pickle, no eval, no global randomness, no long files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for room in ("fedgen", "server", "clients") for path in (ROOT / room).rglob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "random"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "torch.load",
    "torch.save",
    "torch.manual_seed",
    "torch.seed",
    "torch.random.manual_seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "random.seed",
    "os.system",
    "np.load",
    "numpy.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.full_load",
}
DRAWS = {"randn", "rand", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
MODERN = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox", "BitGenerator"}
MAX_FILE, MAX_FUNCTION = 450, 80


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _call_faults(node: ast.Call) -> list[str]:
    name = _dotted(node.func)
    head, _, last = name.rpartition(".")
    keywords = {keyword.arg for keyword in node.keywords}
    faults = []
    if name in BUILTINS or name in CALLS:
        faults.append(name)
    if name == "yaml.load" and "Loader" not in keywords:
        faults.append("yaml.load without a loader")
    if head == "torch" and last in DRAWS and "generator" not in keywords:
        faults.append(f"{name} without a generator")
    if head in {"np.random", "numpy.random"} and last not in MODERN:
        faults.append(f"{name} draws from global randomness")
    if any(k.arg == "shell" and isinstance(k.value, ast.Constant) and k.value.value for k in node.keywords):
        faults.append("a shell")
    return faults


def faults_of(source: str) -> list[str]:
    """Return everything forbidden in a piece of code."""
    faults: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            faults += [alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            faults.append(str(node.module))
        elif isinstance(node, ast.Call):
            faults += _call_faults(node)
        elif isinstance(node, ast.Assert):
            faults.append("assert checks nothing under -O")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                faults.append(f"{node.name} has {length} lines")
    return faults


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_holds_anything_forbidden(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert faults_of(text) == []
    assert len(text.splitlines()) <= MAX_FILE
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import random",
        "eval('1')",
        "exec('1')",
        "import yaml; yaml.load('x')",
        "import torch; torch.load('x')",
        "import torch; torch.manual_seed(1)",
        "import torch; torch.randn(3)",
        "import numpy as np; np.random.seed(1)",
        "import numpy as np; np.random.normal()",
        "import subprocess; subprocess.run('x', shell=True)",
        "assert True",
        "def long():\n" + "    x = 1\n" * MAX_FUNCTION,
    ],
)
def test_the_walk_finds_what_is_forbidden(code: str) -> None:
    assert faults_of(code)


def test_the_walk_lets_through_what_is_allowed() -> None:
    allowed = (
        "import numpy as np, torch\n"
        "rng = np.random.default_rng()\n"
        "gen = torch.Generator().manual_seed(1)\n"
        "noise = torch.randn(3, generator=gen)\n"
        "model.eval()\n"
    )
    assert faults_of(allowed) == []
