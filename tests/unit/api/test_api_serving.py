"""What a site checks before it listens: anything missing, damaged or open to others, and nothing is served."""

from __future__ import annotations

import os
import pwd
import shutil
from typing import TYPE_CHECKING

import pytest
import yaml
from support.federation import _SCHEMA, Desk, small_study
from support.site_homes import invite, know_peer, make_home, write_file, write_table

import fedgen.api.serving as serving_module
from fedgen.api.owner import approve, look
from fedgen.api.serving import check_reach, composed, served_by, serving_alone, users_of
from fedgen.api.site_daemon import serve
from fedgen.config.site import load_site
from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code, ConfigError, FedgenError, IntegrityError, Refused
from fedgen.ledger.verify import read
from fedgen.messages import Confirmed, Joined, Refusal, Trained
from fedgen.runs.atomic import write_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedgen.enrolment.site_home import SiteHome
    from fedgen.messages import Wire


@pytest.fixture
def desk() -> Desk:
    return Desk(small_study())


@pytest.fixture
def home(tmp_path: Path, desk: Desk) -> SiteHome:
    return make_home(tmp_path / "home", desk)


@pytest.fixture(autouse=True)
def _cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warming up is tried by the process tests; here it costs time."""
    monkeypatch.setattr(serving_module, "warm", lambda _schema: None)


def _said(home: SiteHome, desk: Desk, *requests: bytes) -> list[Wire]:
    with composed(home) as serving:
        return [desk.read(serving.site.handle(it), home.identity())[0] for it in requests]


def test_a_home_that_is_whole_is_served(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    with composed(home) as serving:
        assert (serving.name, serving.rows) == ("site-01", 40)
    said = _said(home, desk, desk.join(), desk.train(1), desk.confirm(1))
    assert [type(it) for it in said] == [Joined, Trained, Confirmed]


def test_another_process_goes_on_where_the_first_one_was(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    assert isinstance(_said(home, desk, desk.join())[0], Joined)
    said = _said(home, desk, desk.train(1))
    assert isinstance(said[0], Trained)
    assert isinstance(_said(home, desk, desk.confirm(1))[0], Confirmed)


def test_an_update_of_other_rows_is_not_confirmed(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    _said(home, desk, desk.join(), desk.train(1))
    write_table(home.root, seed=5)
    (refusal,) = _said(home, desk, desk.confirm(1))
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.STALE_ROUND


def test_nobody_approved_means_no_and_the_study_waits(home: SiteHome, desk: Desk) -> None:
    (refusal,) = _said(home, desk, desk.join())
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.NOT_APPROVED
    assert [it.name for it in home.pending.iterdir()] == [f"{desk.study.study_hash}.json"]


def test_a_study_is_let_in_under_the_ceilings_of_the_file_only(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    write_file(home, ceilings={"epsilon_per_study": 0.1, "epsilon_life": 0.2, "delta": 1e-5})
    (refusal,) = _said(home, desk, desk.join())
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.BUDGET


def test_a_seeded_study_is_served_by_a_rehearsing_site_only(home: SiteHome) -> None:
    desk_seeded = Desk(small_study(privacy={"insecure_seed": 1}))
    invite(home, desk_seeded)
    write_file(home, rehearsal_seed=1)
    seen = look(home, desk_seeded.study)
    assert dict(seen.lines)["noise"].startswith("NOT PRIVATE")
    approve(home, seen)
    assert isinstance(_said(home, desk_seeded, desk_seeded.join())[0], Joined)
    private = Desk(small_study())
    invite(home, private)
    with pytest.raises(Refused, match="rehearses"):
        approve(home, look(home, private.study))
    (refusal,) = _said(home, private, private.join())
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.STUDY_REFUSED


def test_no_ledger_holds_both_rehearsals_and_real_studies(home: SiteHome, desk: Desk, tmp_path: Path) -> None:
    """What a rehearsal spent protects nobody: in a ledger of real studies its ε would be a lie."""
    approve(home, look(home, desk.study))
    assert isinstance(_said(home, desk, desk.join(), desk.train(1))[1], Trained)
    write_file(home, rehearsal_seed=1)
    with pytest.raises(ConfigError, match="has served real studies") as caught, composed(home):
        pass
    assert caught.value.key == "rehearsal_seed"
    write_file(home)
    assert isinstance(_said(home, desk, desk.join())[0], Joined)

    seeded = Desk(small_study(privacy={"insecure_seed": 1}))
    stage = make_home(tmp_path / "stage", seeded, rehearsal_seed=1)
    approve(stage, look(stage, seeded.study))
    assert isinstance(_said(stage, seeded, seeded.join(), seeded.train(1))[1], Trained)
    assert next(iter(read(stage.ledger))).entry.origin == "fedgen/rehearsal/site-01"  # type: ignore[union-attr]
    write_file(stage)
    with pytest.raises(ConfigError, match="has rehearsed"), composed(stage):
        pass
    # Nor where what the home remembers of its ledger was taken away.
    for path in (stage.state / "ledger.checkpoint", stage.state / "dataset.json"):
        path.unlink()
    with pytest.raises(IntegrityError, match="another origin"), composed(stage):
        pass


def test_a_seeded_study_is_never_served(home: SiteHome) -> None:
    desk_seeded = Desk(small_study(privacy={"insecure_seed": 1}))
    invite(home, desk_seeded)
    (refusal,) = _said(home, desk_seeded, desk_seeded.join())
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.STUDY_REFUSED


def test_under_distributed_trust_every_other_site_is_known_from_here(tmp_path: Path) -> None:
    desk = Desk(small_study(sites=3, privacy={"trust": "distributed", "noise_multiplier": 5.0}))
    home = make_home(tmp_path / "home", desk)
    approve(home, look(home, desk.study))
    know_peer(home, "site-02")
    (refusal,) = _said(home, desk, desk.join())
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.STUDY_REFUSED
    know_peer(home, "site-03")
    assert isinstance(_said(home, desk, desk.join())[0], Joined)


def test_leaving_and_expiry_take_effect_between_two_messages(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    with composed(home) as serving:
        ask: Callable[[bytes], Wire] = lambda it: desk.read(serving.site.handle(it), home.identity())[0]  # noqa: E731
        assert isinstance(ask(desk.join()), Joined)
        assert isinstance(ask(desk.train(1)), Trained)
        invite(home, desk, days=-1)
        expired = ask(desk.train(2))
        assert isinstance(expired, Refusal)
        assert expired.code is Code.NOT_ADMITTED
        home.invitation.unlink()
        left = ask(desk.train(2))
        assert isinstance(left, Refusal)
        assert left.code is Code.NOT_ADMITTED
        invite(home, Desk(desk.study))
        other = ask(desk.train(2))
        assert isinstance(other, Refusal)
        assert other.code is Code.NOT_ADMITTED
        invite(home, desk)
        assert isinstance(ask(desk.train(2)), Trained)


def test_a_sites_file_that_was_changed_holds_before_a_restart(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    with composed(home) as serving:
        ask: Callable[[bytes], Wire] = lambda it: desk.read(serving.site.handle(it), home.identity())[0]  # noqa: E731
        assert isinstance(ask(desk.join()), Joined)
        assert isinstance(ask(desk.train(1)), Trained)
        write_file(home, ceilings={"epsilon_per_study": 0.1, "epsilon_life": 0.2, "delta": 1e-5})
        refused = ask(desk.train(2))
        assert isinstance(refused, Refusal)
        assert refused.code is Code.NOT_ADMITTED
        write_file(home, declared={"rows": 40})
        assert isinstance(ask(desk.train(2)), Trained)


def test_a_thief_of_the_coordinators_signing_key_reads_no_update(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    thief = Desk(desk.study, signing=desk.signing)
    (refusal,) = _said(home, thief, thief.join())
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.NOT_ADMITTED
    invite(home, thief)  # what the owner accepts is another matter
    assert isinstance(_said(home, thief, thief.join())[0], Joined)


def _fails(home: SiteHome, kind: type[FedgenError], match: str) -> None:
    with pytest.raises(kind, match=match), composed(home):
        pass


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda home: home.root.chmod(0o755), "open to others"),
        (lambda home: home.keys.chmod(0o750), "open to others"),
        (lambda home: home.approvals.chmod(0o770), "open to others"),
        (lambda home: home.identity_key.chmod(0o640), "open to others"),
        (lambda home: home.ledger_key.chmod(0o644), "open to others"),
        (lambda home: home.identity_key.unlink(), "cannot open the key file"),
        (lambda home: home.ledger_key.unlink(), "cannot open the key file"),
        (lambda home: home.config.unlink(), "is no home of a site"),
        (lambda home: home.invitation.unlink(), "no invitation was accepted"),
        (lambda home: (home.root / "rows.csv").unlink(), "rows.csv"),
        (lambda home: (home.root / "rows.csv").write_text("person,visits,ward,sick\n"), "no rows"),
        (lambda home: (home.root / "rows.csv").write_text("person,visits\np,1\n"), "no such column"),
        (lambda home: (home.root / "schema.yaml").unlink(), "schema.yaml"),
        (lambda home: write_file(home, schema=None), "a schema is needed"),
        (lambda home: write_file(home, consent="none.csv"), "none.csv"),
        (lambda home: write_file(home, durable=False), "only a simulation"),
        (lambda home: write_file(home, keys="/tmp/other"), "kept in its home"),  # noqa: S108
        (lambda home: write_file(home, nme="x"), "nme"),
    ],
)
def test_what_is_not_as_it_must_be_stops_it(
    home: SiteHome, spoil: Callable[[SiteHome], object], match: str
) -> None:
    spoil(home)
    _fails(home, ConfigError, match)


def test_packs_without_a_store_or_without_people_stop_it(home: SiteHome) -> None:
    records = {"legal_basis": "consent", "collected_at": "2025-01-01T00:00:00Z"}
    write_file(home, policy={"packs": ["gdpr"], "store": "consent.db", "records": records})
    _fails(home, ConfigError, "no such consent store")
    nameless = {key: value for key, value in _SCHEMA.items() if key != "subject"}
    (home.root / "schema.yaml").write_text(yaml.safe_dump(nameless))
    _fails(home, ConfigError, "which column names the person")


def test_an_invitation_for_another_key_stops_it(home: SiteHome) -> None:
    home.identity_key.unlink()
    SigningKey.generate().save(home.identity_key)
    _fails(home, Refused, "another key")


def test_a_changed_invitation_stops_it(home: SiteHome) -> None:
    data = home.invitation.read_bytes()
    write_private(home.invitation, data.replace(b"example.org", b"example.com"))
    _fails(home, IntegrityError, "signature")


def _spent(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    assert isinstance(_said(home, desk, desk.join(), desk.train(1))[1], Trained)


def test_a_ledger_that_is_gone_stops_it(home: SiteHome, desk: Desk) -> None:
    _spent(home, desk)
    home.ledger.unlink()
    _fails(home, IntegrityError, "was there and cannot be read")


def test_a_ledger_that_was_rolled_back_stops_it(home: SiteHome, desk: Desk, tmp_path: Path) -> None:
    with composed(home):
        pass
    for old in home.root.glob("ledger.db*"):
        shutil.copy(old, tmp_path / old.name)
    _spent(home, desk)
    with composed(home):
        pass  # keeps a checkpoint of what was spent
    for now in home.root.glob("ledger.db*"):
        now.unlink()
    for old in tmp_path.glob("ledger.db*"):
        shutil.copy(old, home.root / old.name)
    _fails(home, IntegrityError, "does not verify")


def test_a_ledger_of_another_key_stops_it(home: SiteHome, desk: Desk) -> None:
    _spent(home, desk)
    home.ledger_key.unlink()
    SigningKey.generate().save(home.ledger_key)
    _fails(home, IntegrityError, "ledger")


def test_the_budget_outlives_the_rows(home: SiteHome, desk: Desk) -> None:
    _spent(home, desk)
    write_table(home.root, rows=50, seed=9)
    assert isinstance(_said(home, desk, desk.train(2))[0], Trained)
    charged = {it.entry.dataset for it in read(home.ledger) if it.entry.kind == "reserved"}  # type: ignore[union-attr]
    assert len(charged) == 1


def test_one_daemon_holds_a_home(home: SiteHome) -> None:
    assert served_by(home) is None
    with serving_alone(home) as lock:
        assert served_by(home) == 0
        os.pwrite(lock, b"4711\n", 0)
        assert served_by(home) == 4711
        with pytest.raises(ConfigError, match="already"), serving_alone(home):
            pass
    assert served_by(home) is None


def test_who_may_connect_is_named_or_numbered(home: SiteHome) -> None:
    assert users_of(home.spec(), home) == (frozenset({os.getuid()}), None)
    me = pwd.getpwuid(os.getuid()).pw_name
    write_file(home, relay_users=[me, 4711], relay_group=12)
    assert users_of(home.spec(), home) == (frozenset({os.getuid(), 4711}), 12)
    write_file(home, relay_users=["nobody-of-that-name"])
    with pytest.raises(ConfigError, match="no such user"):
        users_of(home.spec(), home)
    write_file(home, relay_group="no-group-of-that-name")
    with pytest.raises(ConfigError, match="no such group"):
        users_of(home.spec(), home)


def test_a_socket_in_the_home_is_refused_where_others_have_to_reach_it(
    home: SiteHome, tmp_path: Path
) -> None:
    check_reach(home.spec(), home)
    write_file(home, relay_users=[os.getuid()])
    check_reach(home.spec(), home)
    write_file(home, relay_users=[4711])
    with pytest.raises(ConfigError, match=r"lies in the home.*name one in a folder that both users reach"):
        check_reach(home.spec(), home)
    before = os.umask(0o022)
    try:
        with pytest.raises(ConfigError, match="lies in the home"):
            serve(home.root)
        assert os.umask(0o022) == 0o022, "it left its own umask behind"
    finally:
        os.umask(before)
    write_file(home, relay_users=[4711], socket=str(tmp_path / "door" / "s"))
    check_reach(home.spec(), home)


def test_root_who_acts_as_the_homes_owner_lets_the_owner_connect(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a relay without a user of its own belongs to the home's user, not to root who wrote it."""
    monkeypatch.setattr(os, "geteuid", lambda: 4712)
    spec = load_site(home.config)
    assert users_of(spec, home) == (frozenset({4712}), None)
