"""The keys of a site's file that only a deployment has."""

from __future__ import annotations

from typing import Any

import pytest

from fedgen.config.site import SiteSpec, parse_site
from fedgen.errors import ConfigError

BASE: dict[str, Any] = {
    "name": "hospital-a",
    "source": "csv://rows.csv",
    "schema": "schema.yaml",
    "ceilings": {"epsilon_per_study": 1.0, "epsilon_life": 2.0, "delta": 1e-6},
    "keys": "keys",
    "ledger": "ledger.db",
}
DEPLOYED: dict[str, Any] = {
    "declared": {"rows": 1200, "persons": 900},
    "socket": "/run/fedgen/site.sock",
    "relay_users": ["fedgen-relay", 10002],
    "relay_group": "fedgen-socket",
    "largest_request": 2**27,
    "observe": {"address": "127.0.0.1:9465", "metrics": False},
}


def test_a_deployed_site_is_read_and_written_back() -> None:
    spec = parse_site({**BASE, **DEPLOYED})
    assert spec.relay_users == ("fedgen-relay", 10002)
    assert spec.relay_group == "fedgen-socket"
    assert spec.declared is not None
    assert (spec.declared.rows, spec.declared.persons) == (1200, 900)
    assert parse_site(spec.to_json()) == spec


def test_left_out_they_are_the_strictest() -> None:
    spec = parse_site(BASE)
    assert (spec.relay_users, spec.relay_group, spec.socket, spec.observe) == ((), None, None, None)
    assert spec.largest_request == 2**26
    assert isinstance(spec, SiteSpec)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"declared": {"rows": 10, "persons": 11}}, "declared.persons"),
        ({"declared": {"rows": 0}}, "declared.rows"),
        ({"declared": {"persons": 5}}, "declared.rows"),
        ({"relay_users": ["Root User"]}, "relay_users"),
        ({"relay_users": [-1]}, "relay_users"),
        ({"relay_users": [True]}, "relay_users"),
        ({"relay_users": [2**32 - 1]}, "relay_users"),
        ({"relay_users": list(range(17))}, "relay_users"),
        ({"relay_users": "everybody"}, "relay_users"),
        ({"relay_group": ""}, "relay_group"),
        ({"largest_request": 1000}, "largest_request"),
        ({"largest_request": 2**31}, "largest_request"),
        ({"largest_request": True}, "largest_request"),
        ({"observe": {"address": "0.0.0.0:9464"}}, "observe"),
        ({"socket": ""}, "socket"),
        ({"relay_user": ["x"]}, "relay_user"),
    ],
)
def test_what_is_off_is_named(change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_site({**BASE, **change})
    assert (error.value.key or "").startswith(key)
