"""The administrator's side: who is let in on whose word, what is kept, who is put out and how one comes back."""

from __future__ import annotations

import stat
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from support.enrolling import LATER, NOW, enroll, join, make_server, make_site

from fedgen.enrolment import server_side, site_side
from fedgen.enrolment.documents import Invitation, Request, instant
from fedgen.enrolment.signed import decode, encode
from fedgen.errors import ConfigError, IntegrityError, Refused, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.enrolment.server_home import ServerHome
    from fedgen.enrolment.site_home import SiteHome


@pytest.fixture
def site(tmp_path: Path) -> SiteHome:
    return make_site(tmp_path / "a")


@pytest.fixture
def server(tmp_path: Path) -> ServerHome:
    return make_server(tmp_path / "server")


def weigh(server: ServerHome, site: SiteHome) -> site_side.Word:
    return server_side.weigh_request(server.sites(), site_side.needed_request(site))


def test_a_home_is_whole_and_private(server: ServerHome, tmp_path: Path) -> None:
    for path in [server.root, *server.root.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert server.state_url == f"sqlite:///{tmp_path}/server/state.db"
    assert server.runs == tmp_path / "server" / "runs"
    secret = server.superexec_secret.read_bytes()
    assert len(set(secret)) > 8
    assert len(secret) == 64
    assert secret != make_server(tmp_path / "other").superexec_secret.read_bytes()
    assert set(server_side.server_key_names(server)) == {"identity", "sealing", "tls", "ca"}
    assert server.sites() == {}


def test_a_site_is_let_in_on_a_persons_word_and_kept_as_it_signed(server: ServerHome, site: SiteHome) -> None:
    assert weigh(server, site).needed
    with pytest.raises(Refused, match="nobody compared"):
        server_side.enroll(server, site.request.read_bytes(), believed=False, now=NOW)
    assert server.sites() == {}
    data = enroll(server, site)
    record = server.sites()["hospital-a"]
    assert record.active
    assert record.request == site_side.needed_request(site)
    assert record.identity == site.identity().public
    invitation = decode(data, Invitation)
    assert invitation.site_key == site.identity().fingerprint
    assert (invitation.number, invitation.expires) == (1, record.expires)
    assert instant(invitation.expires) == NOW + timedelta(days=365)
    assert stat.S_IMODE((server.sites_folder / "hospital-a.json").stat().st_mode) == 0o600


def test_once_more_is_another_invitation_and_needs_no_word(server: ServerHome, site: SiteHome) -> None:
    enroll(server, site)
    assert not weigh(server, site).needed
    record, data = server_side.enroll(server, site.request.read_bytes(), believed=False, now=LATER, days=7)
    assert decode(data, Invitation).number == 2
    assert instant(record.expires) == LATER + timedelta(days=7)
    assert server_side.invite(server, "hospital-a", now=LATER)[0].invitations == 3


def test_a_site_that_rotates_is_followed_and_an_older_request_is_refused(
    server: ServerHome, site: SiteHome
) -> None:
    old = site.request.read_bytes()
    enroll(server, site)
    for number in range(3):  # the coordinator missed two of them
        _, data = site_side.rotate_site_key(site, "identity", NOW + timedelta(hours=number))
    server_side.enroll(server, data, believed=False, now=LATER)
    assert server.sites()["hospital-a"].identity == site.identity().public
    for believed in (False, True):
        with pytest.raises(Refused, match="does not come back"):
            server_side.enroll(server, old, believed=believed, now=LATER)


def test_a_replayed_request_of_the_same_key_is_refused(server: ServerHome, site: SiteHome) -> None:
    old = site.request.read_bytes()
    enroll(server, site)
    _, data = site_side.rotate_site_key(site, "node", LATER)
    server_side.enroll(server, data, believed=False, now=LATER)
    with pytest.raises(Refused, match="older request"):
        server_side.enroll(server, old, believed=True, now=LATER)
    request = site_side.needed_request(site)
    twin = encode(request.model_copy(update={"rows": 1300}), site.identity())
    with pytest.raises(Refused, match="older request"):  # two requests under one number
        server_side.enroll(server, twin, believed=True, now=LATER)


def test_another_key_for_a_known_name_is_refused_whatever_a_person_says(
    server: ServerHome, site: SiteHome, tmp_path: Path
) -> None:
    enroll(server, site)
    impostor = make_site(tmp_path / "x", "hospital-a")
    for believed in (False, True):
        with pytest.raises(Refused, match="does not vouch"):
            server_side.enroll(server, impostor.request.read_bytes(), believed=believed, now=LATER)
    assert server.sites()["hospital-a"].identity == site.identity().public


@pytest.mark.parametrize("key", ["identity", "ledger", "node"])
def test_a_key_is_one_sites_alone(key: str, server: ServerHome, site: SiteHome, tmp_path: Path) -> None:
    enroll(server, site)
    own = site_side.needed_request(site)
    other = make_site(tmp_path / "b", "hospital-b")
    stolen = site_side.needed_request(other).model_copy(update={key: getattr(own, key)})
    signer = site.identity() if key == "identity" else other.identity()
    with pytest.raises(Refused, match="same key"):
        server_side.enroll(server, encode(stolen, signer), believed=True, now=LATER)
    assert set(server.sites()) == {"hospital-a"}


def test_another_ledger_key_needs_a_persons_word(server: ServerHome, site: SiteHome) -> None:
    enroll(server, site)
    site.ledger_key.unlink()
    _, data = site_side.replace_lost_key(site, "ledger", LATER)
    word = weigh(server, site)
    assert word.needed
    assert "ANOTHER LEDGER KEY" in word.why
    with pytest.raises(Refused, match="nobody compared"):
        server_side.enroll(server, data, believed=False, now=LATER)
    server_side.enroll(server, data, believed=True, now=LATER)


# -- revocation --------------------------------------------------------------------------------------


def test_who_is_revoked_is_out_and_is_not_invited(server: ServerHome, site: SiteHome) -> None:
    enroll(server, site)
    record = server_side.revoke(server, "hospital-a", now=LATER)
    assert not record.active
    assert not server.sites()["hospital-a"].active
    assert server_side.revoke(server, "hospital-a", now=LATER + timedelta(days=9)) == record
    with pytest.raises(Refused, match="revoked"):
        server_side.invite(server, "hospital-a", now=LATER)


def test_a_revoked_key_never_comes_back(server: ServerHome, site: SiteHome, tmp_path: Path) -> None:
    enroll(server, site)
    server_side.revoke(server, "hospital-a", now=LATER)
    other = make_site(tmp_path / "b", "hospital-b")
    own = site_side.needed_request(site)
    renamed = encode(own.model_copy(update={"name": "hospital-c", "number": 9}), site.identity())
    node = site_side.needed_request(other).model_copy(update={"node": own.node})
    for data in (site.request.read_bytes(), renamed, encode(node, other.identity())):
        with pytest.raises(Refused, match="does not come back"):
            server_side.enroll(server, data, believed=True, now=LATER)


def test_a_revoked_identity_does_not_come_back_with_another_node_key(
    server: ServerHome, site: SiteHome, tmp_path: Path
) -> None:
    enroll(server, site)
    server_side.revoke(server, "hospital-a", now=LATER)
    request, data = site_side.rotate_site_key(site, "node", LATER)
    elsewhere = encode(request.model_copy(update={"name": "hospital-c"}), site.identity())
    for document in (data, elsewhere):
        with pytest.raises(Refused, match="identity key was revoked"):
            server_side.enroll(server, document, believed=True, now=LATER)
    assert not server.sites()["hospital-a"].active


def test_a_revoked_site_returns_with_new_keys_and_a_persons_word(server: ServerHome, site: SiteHome) -> None:
    enroll(server, site)
    stolen = site.identity()
    server_side.revoke(server, "hospital-a", now=LATER)
    site_side.rotate_site_key(site, "identity", LATER)
    with pytest.raises(Refused, match="node key"):
        enroll(server, site, LATER)
    _, data = site_side.rotate_site_key(site, "node", LATER)
    assert weigh(server, site).needed  # a revoked key vouches for nothing
    with pytest.raises(Refused, match="nobody compared"):
        server_side.enroll(server, data, believed=False, now=LATER)
    record, _ = server_side.enroll(server, data, believed=True, now=LATER)
    assert record.active
    assert record.enrolled.startswith(LATER.strftime("%Y-%m-%d"))
    assert [it.revoked for it in record.former] == [True]
    assert record.former[0].identity == stolen.public.hex()
    join(server, site, LATER)  # and is a site as any other
    # The thief of the old keys has nothing: neither under the old name nor under another one.
    for name in ("hospital-a", "hospital-z"):
        thief = record.request.model_copy(
            update={"identity": stolen.public.hex(), "name": name, "number": 99, "rotations": ()}
        )
        with pytest.raises(Refused, match="does not come back"):
            server_side.enroll(server, encode(thief, stolen), believed=True, now=LATER)


def test_an_unknown_name_gets_the_nearest_known_one(server: ServerHome, site: SiteHome) -> None:
    enroll(server, site)
    with pytest.raises(ConfigError) as error:
        server_side.revoke(server, "hospital-b", now=NOW)
    assert "hospital-a" in str(error.value.hint)


# -- records on the disk -----------------------------------------------------------------------------


def test_a_record_that_was_changed_renamed_or_linked_is_noticed(server: ServerHome, site: SiteHome) -> None:
    enroll(server, site)
    path = server.sites_folder / "hospital-a.json"
    text = path.read_text()
    for other in (text.replace('"rows": 1200', '"rows": 1300'), "{}", text.replace('"number"', '"nmber"')):
        path.write_text(other)
        with pytest.raises(IntegrityError):
            server.sites()
    path.write_text(text)
    path.rename(server.sites_folder / "hospital-b.json")
    with pytest.raises(IntegrityError, match="file's name"):
        server.sites()
    path.symlink_to(server.sites_folder / "hospital-b.json")
    with pytest.raises((ConfigError, IntegrityError)):
        server.sites()


# -- keys of the coordinator -------------------------------------------------------------------------


def test_keys_are_made_once(server: ServerHome) -> None:
    before = {path.name: path.read_bytes() for path in server.keys.iterdir()}
    server_side.make_server_keys(server, LATER)
    assert {path.name: path.read_bytes() for path in server.keys.iterdir()} == before


@pytest.mark.parametrize("key", ["identity_key", "sealing_key"])
def test_a_key_that_sites_trust_is_not_made_again_in_silence(
    key: str, server: ServerHome, site: SiteHome
) -> None:
    enroll(server, site)
    getattr(server, key).unlink()
    with pytest.raises(ConfigError, match="sites are enrolled"):
        server_side.make_server_keys(server, LATER)
    kind = key.removesuffix("_key")
    server_side.replace_lost_key(server, kind)
    with pytest.raises(ConfigError, match="is there"):
        server_side.replace_lost_key(server, kind)
    with pytest.raises(UsageError, match="rotate tls"):
        server_side.replace_lost_key(server, "tls")


def test_an_authority_that_sites_trust_is_not_made_again_in_silence(
    server: ServerHome, site: SiteHome
) -> None:
    enroll(server, site)
    server.ca.certificate.unlink()
    with pytest.raises(ConfigError, match="trust it"):
        server_side.make_server_keys(server, LATER)
    server_side.rotate_server_key(server, "ca", LATER)
    server_side.make_server_keys(server, LATER)


@pytest.mark.parametrize(
    ("kind", "changed", "told"),
    [
        ("identity", {"identity"}, True),
        ("sealing", {"sealing"}, True),
        ("tls", {"tls"}, False),
        ("ca", {"ca", "tls"}, True),
        ("superexec", set(), False),
    ],
)
def test_each_key_changes_alone_and_says_whether_sites_must_hear_of_it(
    kind: server_side.ServerKey, changed: set[str], told, server: ServerHome
) -> None:
    before, secret = server_side.server_key_names(server), server.superexec_secret.read_bytes()
    assert server_side.rotate_server_key(server, kind, LATER) is told
    after = server_side.server_key_names(server)
    assert {name for name in after if after[name] != before[name]} == changed
    assert (server.superexec_secret.read_bytes() != secret) is (kind == "superexec")


def test_a_coordinator_that_rotates_vouches_for_itself(server: ServerHome, site: SiteHome) -> None:
    join(server, site)
    old = server.identity().public
    server_side.rotate_server_key(server, "identity", LATER)
    _, data = server_side.invite(server, "hospital-a", now=LATER)
    accepted = site_side.accept_invitation(site, data, believed=False, now=LATER)
    assert accepted.coordinator_key == server.identity().public != old


def test_a_stranger_cannot_vouch_for_itself_with_somebody_elses_rotation(
    server: ServerHome, site: SiteHome, tmp_path: Path
) -> None:
    join(server, site)
    server_side.rotate_server_key(server, "identity", LATER)
    _, honest = server_side.invite(server, "hospital-a", now=LATER)
    stranger = make_server(tmp_path / "stranger")
    forged = decode(honest, Invitation).model_dump()
    forged["coordinator"] = stranger.identity().public.hex()
    with pytest.raises(ValueError, match="do not lead"):
        Invitation.model_validate(forged)
    enroll(stranger, site, LATER)
    record, data = server_side.invite(stranger, "hospital-a", now=LATER)
    assert record.active
    with pytest.raises(Refused, match="nobody compared"):
        site_side.accept_invitation(site, data, believed=False, now=LATER)


def test_a_request_is_never_an_invitation(server: ServerHome, site: SiteHome) -> None:
    with pytest.raises(ConfigError, match="another kind"):
        decode(site.request.read_bytes(), Invitation)
    with pytest.raises(ConfigError, match="another kind"):
        server_side.enroll(server, enroll(server, site), believed=True, now=NOW)
    assert decode(site.request.read_bytes(), Request).name == "hospital-a"
