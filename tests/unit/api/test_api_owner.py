"""What an owner is shown and does: approve, take back, stand, leave, wipe."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.federation import Desk, small_study
from support.site_homes import invite, make_home, write_file

import fedgen.api.serving as serving_module
from fedgen.api.leaving import kept_by_wipe, leave, wipe
from fedgen.api.owner import approve, find_study, look, revoke, standing
from fedgen.api.owner_words import lines_of
from fedgen.api.serving import approval_book, composed, serving_alone
from fedgen.config.plan import plan_of
from fedgen.enrolment.documents import Rotation, SignedRotation
from fedgen.errors import Code, ConfigError, Refused, UsageError
from fedgen.ledger.verify import verify
from fedgen.messages import Joined, Refusal
from fedgen.privacy.accountant import epsilon

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.enrolment.site_home import SiteHome


@pytest.fixture
def desk() -> Desk:
    return Desk(small_study())


@pytest.fixture
def home(tmp_path: Path, desk: Desk) -> SiteHome:
    return make_home(tmp_path / "home", desk)


@pytest.fixture(autouse=True)
def _cold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "warm", lambda _schema: None)


def _serve(home: SiteHome, *requests: bytes) -> None:
    with composed(home) as serving:
        for request in requests:
            serving.site.handle(request)


def _line(home: SiteHome, desk: Desk, title: str) -> str:
    return dict(look(home, desk.study).lines)[title]


def test_an_owner_sees_what_a_study_will_do(home: SiteHome, desk: Desk) -> None:
    looked = look(home, desk.study)
    said = dict(looked.lines)
    assert said["purpose"] == "train_generator"
    assert "tabular-vae" in said["model"]
    assert "3 rounds, with 2 sites" in said["model"]
    assert said["columns"].startswith("visits, ward, sick; person only to tell people apart")
    assert "any one record" in said["protects"]
    assert "coordinator.example.org:8443" in said["updates go"]
    assert "noised here" in said["noise"]
    assert "NOT ASKED" in said["consent"]
    assert said["packs"] == "none of this site; the study asks for none"
    assert "ledger" in said["retention"]
    assert looked.refused is None
    assert looked.decision is None
    assert looked.before == 0
    assert looked.epsilon == plan_of(desk.study).epsilon_of(3)
    assert looked.after == pytest.approx(looked.epsilon, rel=1e-6)
    assert json.loads(json.dumps(looked.to_json()))["study_hash"] == desk.study.study_hash


def test_what_was_spent_before_is_counted(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    _serve(home, desk.join(), desk.train(1), desk.train(2))
    other = small_study(training={"rounds": 5})
    looked = look(home, other)
    plan = plan_of(other)
    event, steps = plan_of(desk.study).event_per_round()
    assert looked.before == epsilon(((event, 2 * steps),), 1e-5).epsilon
    own, each = plan.event_per_round()
    assert looked.after == epsilon(((event, 2 * steps), (own, 5 * each)), 1e-5).epsilon
    assert looked.before < looked.epsilon < looked.after


def test_an_alarming_study_says_so(home: SiteHome) -> None:
    central = small_study(privacy={"trust": "central"}, policy={"packs": []})
    assert "WITHOUT noise" in dict(look(home, central).lines)["noise"]
    person = small_study(privacy={"unit": "person", "rows_per_person": 1})
    assert "one person" in dict(look(home, person).lines)["protects"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ceilings": {"epsilon_per_study": 0.1, "epsilon_life": 1.0, "delta": 1e-5}}, "one study"),
        ({"ceilings": {"epsilon_per_study": 50.0, "epsilon_life": 50.0, "delta": 1e-9}}, "delta"),
        ({"name": "site-09"}, "roster"),
    ],
)
def test_what_the_sites_own_rules_refuse_cannot_be_approved(
    home: SiteHome, desk: Desk, change: dict[str, object], why: str
) -> None:
    write_file(home, **change)
    looked = look(home, desk.study)
    assert why in (looked.refused or "")
    with pytest.raises(Refused, match="would refuse"):
        approve(home, looked)
    assert not list(home.approvals.iterdir())


def test_what_would_pass_the_ceiling_for_life_cannot_be_approved(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    _serve(home, desk.join(), desk.train(1), desk.train(2), desk.train(3))
    cost = look(home, desk.study).before
    write_file(home, ceilings={"epsilon_per_study": cost * 1.01, "epsilon_life": cost * 1.02, "delta": 1e-5})
    other = small_study(training={"rounds": 2})
    assert "for the life of the data" in (look(home, other).refused or "")


def test_a_study_is_found_by_the_first_digits_of_its_hash_or_by_its_file(
    home: SiteHome, desk: Desk, tmp_path: Path
) -> None:
    _serve(home, desk.join())
    assert find_study(home, desk.study.study_hash[:6]) == desk.study
    assert find_study(home, desk.study.study_hash[:6].upper()) == desk.study
    (tmp_path / "study.yaml").write_text(desk.study.to_yaml(), encoding="utf-8")
    assert find_study(home, str(tmp_path / "study.yaml")) == desk.study
    for wrong in ("ffff", desk.study.study_hash[:3], "", "../x"):
        with pytest.raises(ConfigError):
            find_study(home, wrong)
    book = approval_book(home, "site-01")
    twin = desk.study.study_hash[:8] + "0" * 56
    (home.pending / f"{twin}.json").write_bytes(b"{}")
    with pytest.raises(UsageError, match="fits 2 studies"):
        find_study(home, desk.study.study_hash[:8])
    assert twin in book.waiting()


def test_a_few_digits_are_not_enough_to_say_yes_without_looking(home: SiteHome, desk: Desk) -> None:
    _serve(home, desk.join())
    with pytest.raises(UsageError, match="too few"):
        find_study(home, desk.study.study_hash[:11], unseen=True)
    assert find_study(home, desk.study.study_hash[:12], unseen=True) == desk.study


def test_digits_mean_what_waits_and_no_file_of_that_name(
    home: SiteHome, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working folder may be anybody's; with `--yes` nobody would see that it is another study."""
    _serve(home, desk.join())
    monkeypatch.chdir(tmp_path)
    other = small_study(training={"rounds": 2})
    digits = desk.study.study_hash[:12]
    (tmp_path / digits).write_text(other.to_yaml(), encoding="utf-8")
    assert find_study(home, digits, unseen=True) == desk.study
    assert find_study(home, f"./{digits}") == other  # a path is a path


def test_an_approval_is_taken_back_and_no_is_said_to_one_that_waits(home: SiteHome, desk: Desk) -> None:
    other = desk.of(study=small_study(training={"rounds": 2}))
    _serve(home, desk.join(), other.join())
    approve(home, look(home, desk.study))
    assert revoke(home, desk.study.study_hash[:8]).decision == "revoked"
    assert revoke(home, other.study.study_hash[:8]).decision == "revoked"
    stands = standing(home)
    assert stands.approved == ()
    assert set(stands.revoked) == {desk.study.study_hash, other.study.study_hash}
    assert stands.waiting == ()
    with pytest.raises(ConfigError, match="no study that was approved or waits"):
        revoke(home, "0123")


def test_where_a_site_stands(home: SiteHome, desk: Desk) -> None:
    first = standing(home)
    assert (first.site, first.daemon, first.process, first.trouble) == ("site-01", "stopped", None, None)
    assert first.coordinator is not None
    assert first.coordinator["address"] == "coordinator.example.org:8443"
    assert first.studies == 0
    approve(home, look(home, desk.study))
    _serve(home, desk.join(), desk.train(1), desk.of(study=small_study(training={"rounds": 7})).join())
    with serving_alone(home):
        second = standing(home)
    assert second.daemon == "starting"
    assert second.studies == 1
    assert second.approved == (desk.study.study_hash,)
    assert [name for _, name in second.waiting] == ["small"]
    assert json.loads(json.dumps(second.to_json()))["site"] == "site-01"
    home.invitation.unlink()
    third = standing(home)
    assert third.coordinator is None
    assert "no invitation" in (third.trouble or "")


def test_leaving_takes_every_approval_back_and_keeps_the_rest(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    _serve(home, desk.join(), desk.train(1))
    assert leave(home) == (desk.study.study_hash,)
    assert standing(home).approved == ()
    assert not home.invitation.exists()
    assert not home.ca_certificate.exists()
    assert home.identity_key.exists()
    assert verify(home.ledger).ok
    assert leave(home) == ()


def test_wiping_keeps_what_was_spent(home: SiteHome, desk: Desk, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("not the site's")
    (home.root / "link").symlink_to(outside)
    (home.root / "folder").symlink_to(tmp_path)
    approve(home, look(home, desk.study))
    _serve(home, desk.join(), desk.train(1))
    before = standing(home).spent
    kept = wipe(home)
    left = {path for path in home.root.rglob("*") if path.is_file()}
    assert left == set(kept)
    names = {path.name for path in left}
    assert {"ledger.db", "ledger.key", "dataset.json", "ledger.checkpoint", "site.yaml"} <= names
    assert "identity.key" not in names
    assert "node.key" not in names
    assert outside.read_text() == "not the site's"
    assert verify(home.ledger).ok
    assert wipe(home) == kept_by_wipe(home, ledger_too=False)  # again changes nothing
    make_home_again(home, desk)
    assert standing(home).spent == before


def make_home_again(home: SiteHome, desk: Desk) -> None:
    """Begin the site anew where the ledger stayed."""
    from support.site_homes import invite, write_table

    from fedgen.crypto.keys import SigningKey
    from fedgen.enrolment.places import make_folder

    for folder in (home.approvals, home.pending, home.peers_folder):
        make_folder(folder)
    SigningKey.generate().save(home.identity_key)
    write_table(home.root)
    invite(home, desk)
    _serve(home)


def test_wiping_everything_leaves_nothing(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    _serve(home, desk.join(), desk.train(1))
    assert wipe(home, ledger_too=True) == ()
    assert not home.root.exists()


@pytest.mark.parametrize(
    "ledger", ["ledger[1].db", "state/../ledger.db", "kept/ledger.db", "linked/ledger.db"]
)
def test_wiping_keeps_the_ledger_whatever_its_path_looks_like(
    home: SiteHome, desk: Desk, ledger: str
) -> None:
    (home.root / "kept").mkdir(mode=0o700)
    (home.root / "linked").symlink_to(home.root / "kept")
    write_file(home, ledger=ledger)
    approve(home, look(home, desk.study))
    _serve(home, desk.join(), desk.train(1))
    place = (home.root / ledger).resolve()
    wipe(home)
    assert verify(place).ok


@pytest.mark.parametrize("source", ["csv://rows.csv", "rows.csv", "csv://state/../rows.csv"])
def test_wiping_keeps_a_table_that_lies_in_the_home(home: SiteHome, source: str) -> None:
    write_file(home, source=source)
    before = (home.root / "rows.csv").read_bytes()
    wipe(home)
    assert (home.root / "rows.csv").read_bytes() == before


def test_a_yes_is_for_the_coordinator_that_was_shown(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    other = Desk(desk.study)
    invite(home, other)
    with composed(home) as serving:
        said, _ = other.read(serving.site.handle(other.join()), home.identity())
    assert isinstance(said, Refusal)
    assert said.code is Code.NOT_APPROVED
    approve(home, look(home, desk.study))
    with composed(home) as serving:
        said, _ = other.read(serving.site.handle(other.join()), home.identity())
    assert isinstance(said, Joined)


def test_a_yes_holds_for_a_key_that_the_coordinator_vouched_for(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    later = Desk(desk.study)
    rotation = Rotation(
        role="coordinator",
        name="desk",
        number=1,
        old=desk.signing.public.hex(),
        new=later.signing.public.hex(),
        issued="2026-01-31T00:00:00Z",
    )
    invite(home, later, rotations=(SignedRotation.make(rotation, desk.signing),))
    with composed(home) as serving:
        said, _ = later.read(serving.site.handle(later.join()), home.identity())
    assert isinstance(said, Joined)


def test_nothing_is_approved_before_it_is_known_where_updates_go(home: SiteHome, desk: Desk) -> None:
    home.invitation.unlink()
    looked = look(home, desk.study)
    assert "nowhere yet" in dict(looked.lines)["updates go"]
    with pytest.raises(Refused, match="joined no coordinator"):
        approve(home, looked)


def test_a_full_disk_does_not_keep_a_yes_alive(
    home: SiteHome, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    approve(home, look(home, desk.study))

    def full(*_: object) -> None:
        raise ConfigError("no room left to write")

    monkeypatch.setattr("fedgen.site.approval_book._write", full)
    with pytest.raises(ConfigError, match="no room"):
        revoke(home, desk.study.study_hash[:8])
    assert standing(home).approved == ()
    approve_again = look(home, desk.study)
    assert approve_again.decision is None


def test_whom_the_figures_hold_against_is_said(home: SiteHome, desk: Desk) -> None:
    assert "the coordinator included" in _line(home, desk, "ε holds")
    central = small_study(privacy={"trust": "central"}, policy={"packs": []})
    assert "NOTHING IS PROMISED" in dict(look(home, central).lines)["ε holds"]
    many = small_study(sites=3, privacy={"trust": "distributed", "noise_multiplier": 5.0})
    helped = plan_of(many).point.noise.colluders  # type: ignore[union-attr]
    said = dict(look(home, many).lines)["ε holds"]
    assert said.startswith("against the coordinator")
    assert (f"{helped} other site" in said) == (helped > 0)
    seeded = small_study(privacy={"insecure_seed": 1})
    assert dict(look(home, seeded).lines)["ε holds"] == "against nobody"


def test_no_text_of_a_study_commands_the_terminal(home: SiteHome, desk: Desk) -> None:
    study = desk.study
    column = study.data_schema.columns[0].model_copy(update={"name": "a\u202eb\u2028c"})
    schema = study.data_schema.model_copy(update={"columns": (column, *study.data_schema.columns[1:])})
    lines = lines_of(
        None,
        home.spec(),
        study.model_copy(update={"data_schema": schema}),
        plan_of(study),
        (1.0, 0.0, 1.0, 1e-5),
    )
    assert "a\ufffdb\ufffdc" in dict(lines)["columns"]
    assert all(text.isprintable() for _, text in lines)


@pytest.mark.parametrize("blank", [" ", "\u3164", "\u2800", "\u00a0", "\u200b"])
def test_no_text_of_a_study_fills_a_line_with_blanks_and_begins_another(
    home: SiteHome, desk: Desk, blank: str
) -> None:
    forged = f"a{blank * 70}noise         each update is noised here, before it leaves"
    study = desk.study
    policy = study.study.policy.model_copy(update={"packs": (forged,)})
    column = study.data_schema.columns[0].model_copy(update={"name": forged})
    schema = study.data_schema.model_copy(update={"columns": (column, *study.data_schema.columns[1:])})
    changed = {"data_schema": schema, "study": study.study.model_copy(update={"policy": policy})}
    lines = lines_of(
        None, home.spec(), study.model_copy(update=changed), plan_of(study), (1.0, 0.0, 1.0, 1e-5)
    )
    for title in ("packs", "columns"):
        text = dict(lines)[title]
        assert "noise each update is noised here" in text  # it stands where it belongs
        assert "  " not in text
        assert blank == " " or blank not in text


def test_a_site_that_is_served_is_not_wiped(home: SiteHome) -> None:
    with serving_alone(home), pytest.raises(Refused, match="a daemon serves"):
        wipe(home)
    assert home.identity_key.exists()


def test_a_folder_that_is_no_home_is_not_wiped(tmp_path: Path) -> None:
    from fedgen.enrolment.site_home import SiteHome as Home

    (tmp_path / "papers").mkdir(mode=0o700)
    (tmp_path / "papers" / "letter.txt").write_text("keep")
    with pytest.raises(ConfigError):
        wipe(Home(tmp_path / "papers"), ledger_too=True)
    assert (tmp_path / "papers" / "letter.txt").exists()


def test_a_study_that_was_decided_is_said_to_be(home: SiteHome, desk: Desk) -> None:
    digits = desk.study.study_hash[:8]
    with pytest.raises(ConfigError, match="no study that waits begins with"):
        find_study(home, digits)
    approve(home, look(home, desk.study))
    with pytest.raises(ConfigError, match=rf"{digits} was approved on \d.*waiting: none"):
        find_study(home, digits)
    revoke(home, digits)
    with pytest.raises(ConfigError, match=rf"{digits} was revoked on .*run's study.yaml"):
        find_study(home, digits)
    with pytest.raises(ConfigError, match="no study that waits begins with"):
        find_study(home, digits[:3])


def test_where_a_site_stands_says_what_comes_next(home: SiteHome, desk: Desk) -> None:
    assert standing(home).next_step == f"fedgen site serve {home.root}"
    with serving_alone(home):
        assert standing(home).next_step is None
        approval_book(home, "site-01").file(desk.study.study_hash, desk.study)
        digits = desk.study.study_hash[:8]
        assert standing(home).next_step == f"fedgen site approve {digits} --home {home.root}"
    home.invitation.unlink()
    assert standing(home).next_step == f"fedgen site join INVITATION --home {home.root}"
