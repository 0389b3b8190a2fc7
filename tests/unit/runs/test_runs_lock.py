"""One process at a time in a run folder."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fedgen.errors import ConfigError
from fedgen.runs.lock import locked

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys
from pathlib import Path
from fedgen.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_holder_is_refused_with_the_number_of_the_first(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "run"),
        pytest.raises(ConfigError, match=rf"\(process {os.getpid()}\)") as caught,
        locked(tmp_path / "run"),
    ):
        pass
    assert caught.value.where == str(tmp_path / "run")
    assert caught.value.exit_code == 3


def test_the_lock_is_free_after_the_block_even_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        pass


@pytest.mark.process
def test_another_process_is_kept_out_until_the_first_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match=rf"process {first.pid}"), locked(tmp_path):
            pass
        first.kill()
        first.wait()
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text(encoding="utf-8") == f"{os.getpid()}\n"


def test_a_lock_file_that_says_nothing_names_nobody(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / ".lock").write_text("gibberish", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"another run is using this folder \(wait"), locked(tmp_path):
            pass


def test_a_place_that_cannot_be_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match="in the way"), locked(tmp_path / "file" / "run"):
        pass
