"""The shipped files, read by the tools of their trade: hadolint, docker-compose, Helm, kubernetes-validate, systemd."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from support import kit, tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.deployment

HEART: dict[str, Any] = {"coordinator": {}, "site": {"coordinator": {"cidr": "203.0.113.7/32"}}}
FULL: dict[str, Any] = {
    "coordinator": {
        "image": {"repository": "registry.example.org/fedgen-coordinator", "digest": "sha256:" + "a" * 64},
        "imagePullSecrets": [{"name": "pull"}],
        "service": {"type": "LoadBalancer", "port": 443, "annotations": {"a": "b"}},
        "persistence": {"storageClass": "fast"},
        "postgres": {"existingSecret": "pg", "cidr": "192.0.2.0/24", "port": 5433},
        "metrics": {"enabled": True, "serviceMonitor": {"enabled": True}},
        "networkPolicy": {"ingressFrom": [{"ipBlock": {"cidr": "198.51.100.0/24"}}]},
        "podDisruptionBudget": {"maxUnavailable": 1},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
    },
    "site": {
        "coordinator": {"cidr": "203.0.113.7/32", "port": 443},
        "data": {"existingClaim": "claims"},
        "database": {"existingSecret": "pg", "cidr": "192.0.2.7/32"},
        "metrics": {"enabled": True, "serviceMonitor": {"enabled": True}},
        "retention": {"enabled": True},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "a", "operator": "Exists"}],
    },
}
SETUP = {name: {**values, "setup": True} for name, values in HEART.items()}
CASES = [(name, values) for family in (HEART, FULL, SETUP) for name, values in family.items()]
IDS = [f"{name}-{which}" for which in ("least", "full", "setup") for name in HEART]


@pytest.mark.needs("hadolint")
@pytest.mark.parametrize("path", kit.DOCKERFILES, ids=["coordinator", "site"])
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    words = [str(tools.program("hadolint")), "--no-color", "--failure-threshold", "style", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.needs("hadolint")
def test_hadolint_finds_what_is_wrong(tmp_path: Path) -> None:
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nADD x /x\nRUN cd /x && sudo true\n")
    done = subprocess.run(
        [str(tools.program("hadolint")), str(bad)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1


@pytest.mark.needs("docker-compose")
@pytest.mark.parametrize("path", kit.COMPOSE, ids=["coordinator", "site"])
def test_compose_takes_the_file(path: Path, tmp_path: Path) -> None:
    words = [str(tools.program("docker-compose")), "-f", str(path), "config"]
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**clean, "FEDGEN_SECRETS": "/x"}
    )
    assert done.returncode == 0, done.stderr
    without = subprocess.run(words, capture_output=True, text=True, check=False, env=clean)
    assert without.returncode != 0
    assert "FEDGEN_SECRETS" in without.stderr


@pytest.fixture(scope="module", params=CASES, ids=IDS)
def chart(request: pytest.FixtureRequest) -> kit.Chart:
    name, values = request.param
    return kit.Chart(name, values)


@pytest.mark.needs("helm")
def test_helm_lints_and_renders_without_a_complaint(chart: kit.Chart) -> None:
    assert chart.error is None
    assert chart.complaints == []
    assert {"StatefulSet", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= {
        it["kind"] for it in chart.objects
    }


@pytest.mark.needs("helm", "kubernetes-validate")
@pytest.mark.parametrize("version", ["1.29", "1.33"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_object_fits_kubernetes_schema(chart: kit.Chart, version: str) -> None:
    import kubernetes_validate

    for it in chart.objects:
        if (
            it["kind"] != "ServiceMonitor"
        ):  # of the Prometheus operator; its schema is not published with the others
            kubernetes_validate.validate(it, version, strict=True)


@pytest.mark.needs("kubernetes-validate")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_plain_job_fits_and_a_slip_would_not() -> None:
    import kubernetes_validate
    import yaml

    job = yaml.safe_load((kit.ROOT / "clients" / "retention" / "cronjob.yaml").read_text(encoding="utf-8"))
    kubernetes_validate.validate(job, "1.33", strict=True)
    job["spec"]["scedule"] = job["spec"].pop("schedule")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.33", strict=True)


@pytest.mark.needs("helm")
def test_every_pod_meets_the_restricted_standard(chart: kit.Chart) -> None:
    for name, pod in kit.pods(chart.objects):
        _restricted(name, pod)


def test_the_plain_job_and_the_workflow_meet_it_too() -> None:
    import yaml

    for path in kit.MANIFESTS:
        it = yaml.safe_load(path.read_text(encoding="utf-8"))
        if it["kind"] == "CronJob":
            pod = it["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        else:
            spec = it["spec"]["workflowSpec"]
            containers = [
                step["container"] | {"name": step["name"]}
                for step in spec["templates"]
                if "container" in step
            ]
            pod = {**spec, "containers": containers}
        _restricted(path.name, pod)


def _restricted(name: str, pod: dict[str, Any]) -> None:
    # Source: Kubernetes, Pod Security Standards, level "restricted"; and what we ask for beyond it.
    assert pod["securityContext"]["runAsNonRoot"] is True, name
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert {kind for volume in pod["volumes"] for kind in set(volume) - {"name"}} <= {
        "emptyDir", "secret", "persistentVolumeClaim",
    }  # fmt: skip
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert {**pod["securityContext"], **context}["runAsUser"] >= 10_000
        assert container["resources"]["limits"]["memory"]
        assert not container["image"].endswith(":latest")
        assert ":" in container["image"]
        assert not [it for it in container.get("env", ()) if "valueFrom" in it]


@pytest.mark.needs("helm")
def test_the_relay_has_neither_data_nor_home_and_another_user() -> None:
    (found,) = kit.Chart("site", FULL["site"]).of("StatefulSet")
    containers = {it["name"]: it for it in found["spec"]["template"]["spec"]["containers"]}
    mounts = {name: {mount["name"] for mount in it["volumeMounts"]} for name, it in containers.items()}
    assert mounts["daemon"] & mounts["relay"] == {"socket"}
    assert not mounts["relay"] & {"home", "data", "database"}
    assert (
        containers["daemon"]["securityContext"]["runAsUser"]
        != containers["relay"]["securityContext"]["runAsUser"]
    )
    data = next(it for it in containers["daemon"]["volumeMounts"] if it["name"] == "data")
    assert data["readOnly"] is True
    assert found["spec"]["template"]["spec"]["shareProcessNamespace"] is False


@pytest.mark.needs("helm")
def test_nobody_calls_a_site_and_a_site_calls_its_coordinator_only() -> None:
    (policy,) = kit.Chart("site", HEART["site"]).of("NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["ingress"] == []
    blocks = [
        to["ipBlock"]["cidr"] for rule in policy["spec"]["egress"] for to in rule["to"] if "ipBlock" in to
    ]
    assert blocks == ["203.0.113.7/32"]
    (service,) = kit.Chart("site", HEART["site"]).of("Service")
    assert "ports" not in service["spec"]


@pytest.mark.needs("helm")
def test_a_coordinator_is_reached_at_its_proxy_and_calls_its_database_only() -> None:
    (policy,) = kit.Chart("coordinator", HEART["coordinator"]).of("NetworkPolicy")
    assert [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]] == [8443]
    assert policy["spec"]["egress"] == []
    (policy,) = kit.Chart("coordinator", FULL["coordinator"]).of("NetworkPolicy")
    assert [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]] == [8443, 9464]
    assert policy["spec"]["egress"][0]["ports"] == [{"protocol": "TCP", "port": 5433}]


@pytest.mark.needs("helm")
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("coordinator", {"image": {"repository": "x", "tag": "latest"}}),
        ("coordinator", {"image": {"repository": "x", "digest": "sha256:short"}}),
        ("coordinator", {"replicas": 3}),
        ("coordinator", {"metrics": {"port": 0}}),
        ("coordinator", {"service": {"type": "ExternalName"}}),
        ("coordinator", {"persistence": {"accessModes": ["ReadWriteMany"]}}),
        ("site", {}),
        ("site", {"coordinator": {"cidr": "everywhere"}}),
        ("site", {"coordinator": {"cidr": "203.0.113.7/32"}, "relay": {"existingSecret": ""}}),
        (
            "site",
            {"coordinator": {"cidr": "203.0.113.7/32"}, "retention": {"store": "/data/../etc"}, "extra": 1},
        ),
    ],
)
def test_values_that_make_no_sense_are_refused(name: str, values: dict[str, Any]) -> None:
    assert kit.Chart(name, values).error


@pytest.mark.needs("helm")
def test_the_sweep_takes_every_run_folder_and_none(tmp_path: Path) -> None:
    (job,) = kit.Chart("coordinator", HEART["coordinator"]).of("CronJob")
    ((_, pod),) = kit.pods([job])
    script = pod["containers"][0]["command"][-1].replace("/var/lib/fedgen/home", str(tmp_path))
    fake = tmp_path / "bin" / "fedgen"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    fake.chmod(0o755)
    words = ["/bin/sh", "-euc", script]
    path = {"PATH": f"{fake.parent}:/usr/bin:/bin"}
    done = subprocess.run(words, env=path, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    for name in ("run a", "run-b", "not-one"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    for name in ("run a", "run-b"):
        (tmp_path / "runs" / name / "study.yaml").touch()
    done = subprocess.run(words, env=path, capture_output=True, text=True, check=True)
    runs = f"{tmp_path}/runs"
    assert done.stdout.splitlines() == [
        "retention", "sweep", "--run", f"{runs}/run a/", "--run", f"{runs}/run-b/", "--json",
    ]  # fmt: skip


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("path", kit.UNITS, ids=lambda path: path.stem)
def test_systemd_understands_the_unit_and_finds_it_tight(path: Path, tmp_path: Path) -> None:
    unit = tmp_path / path.name
    unit.write_text(path.read_text(encoding="utf-8").replace("/opt/fedgen/bin/fedgen", "/bin/true"))
    analyze = str(tools.program("systemd-analyze"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if path.name in line]
    assert ours == []
    # Exposure, in tenths: 0 is none, 100 is a service without any setting. Ours are below 20.
    words = [analyze, "security", "--offline=true", "--threshold=20", str(unit)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-500:]


@pytest.mark.needs("systemd-analyze")
def test_systemd_finds_what_is_wrong(tmp_path: Path) -> None:
    unit = tmp_path / "loose.service"
    unit.write_text("[Service]\nExecStart=/bin/true\nProtectSytem=strict\n")
    analyze = str(tools.program("systemd-analyze"))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert "ProtectSytem" in done.stdout + done.stderr
    words = [analyze, "security", "--offline=true", "--threshold=20", str(unit)]
    assert subprocess.run(words, capture_output=True, check=False).returncode != 0
