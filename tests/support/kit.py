"""The files that are shipped to run fedgen elsewhere: read, rendered, and taken apart for the tests of packaging."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = [ROOT / "server" / "Dockerfile", ROOT / "clients" / "Dockerfile"]
COMPOSE = [ROOT / "server" / "compose.yaml", ROOT / "clients" / "compose.yaml"]
UNITS = sorted((ROOT / "server" / "systemd").glob("*.service")) + sorted(
    (ROOT / "clients" / "systemd").glob("*.service")
)
CHARTS = {
    "coordinator": ROOT / "server" / "helm" / "fedgen-coordinator",
    "site": ROOT / "clients" / "helm" / "fedgen-site",
}
MANIFESTS = sorted((ROOT / "clients" / "retention").glob("*.yaml"))

# Loaded in a process of its own: it is a library in Go, and stays out of the one that runs torch.
_HELM = """
import json, sys
import helm_python
path, values, version = json.load(sys.stdin)
report = helm_python.lint(path, values, strict=True, kube_version=version)
try:
    rendered = helm_python.Chart.load(path).render(values, name="demo", namespace="fedgen")
except Exception as error:
    rendered = {"error": str(error)}
print(json.dumps([report, rendered]))
"""


class Chart:
    """What Helm makes of a chart: what it complains of, and the objects."""

    def __init__(self, name: str, values: dict[str, Any], version: str = "v1.33.0") -> None:
        asked = json.dumps([str(CHARTS[name]), values, version])
        done = subprocess.run(
            [sys.executable, "-c", _HELM], input=asked, capture_output=True, text=True, check=True
        )
        report, rendered = json.loads(done.stdout.splitlines()[-1])
        self.complaints = [it for it in report["messages"] if it["severity"] > 1]
        self.error: str | None = rendered.pop("error", None)
        texts = {path: text for path, text in rendered.items() if path.endswith(".yaml")}
        self.objects = [it for text in texts.values() for it in yaml.safe_load_all(text) if it]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [it for it in self.objects if it["kind"] == kind]


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the pod spec of everything that makes pods."""
    for it in objects:
        spec = it.get("spec", {})
        if it["kind"] == "CronJob":
            yield it["metadata"]["name"], spec["jobTemplate"]["spec"]["template"]["spec"]
        elif it["kind"] == "StatefulSet":
            yield it["metadata"]["name"], spec["template"]["spec"]


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments on one line each; comments are left out."""
    text = "\n".join(
        line
        for line in dockerfile.read_text(encoding="utf-8").splitlines()
        if not line.lstrip().startswith("#")
    )
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word.upper(), rest) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def final_stage(dockerfile: Path) -> list[tuple[str, str]]:
    """Return the instructions of what is shipped."""
    found = instructions(dockerfile)
    last = max(index for index, (word, _) in enumerate(found) if word == "FROM")
    return found[last:]
