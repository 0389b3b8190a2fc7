"""A consent store can be begun from the wheel alone: its migrations travel, and end where the store expects."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from fedgen.policy.store.tables import HEAD_REVISION

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path
import fedgen
from fedgen.policy.store import ConsentSaid, ConsentStore
from datetime import UTC, datetime
assert Path(fedgen.__file__).is_relative_to(sys.argv[1]), fedgen.__file__
with ConsentStore.open(Path(sys.argv[2]) / "consent.db") as store:
    store.record(ConsentSaid(subject_id="a", purpose="t", action="given", effective_at=datetime.now(UTC)))
    print(store.verify().size, len(store.columns().consent))
"""


def test_a_store_is_begun_from_the_wheel(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    inside = tmp_path / "inside"
    with zipfile.ZipFile(built) as wheel:
        wheel.extractall(inside)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(inside), str(tmp_path)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(inside)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (0, ["1", "1"]), done.stderr


def test_the_steps_of_the_schema_end_where_the_store_expects() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(ROOT / "fedgen/policy/store/migrations"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD_REVISION]
