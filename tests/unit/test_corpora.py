"""A run of the suite says whether it has the corpora: without them whole files of tests are skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.files import ROOT


@pytest.mark.parametrize("beside", [[], ["-n", "1"]], ids=["alone", "xdist"])
def test_a_run_says_so_in_its_first_line(tmp_path: Path, beside: list[str]) -> None:
    def first_line() -> str:
        words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *beside, "tests/unit/test_keyed.py"]
        environment = {**os.environ, "SCRUBBER_CORPORA": str(tmp_path)}
        environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("corpora: ")]
        return line

    assert first_line() == f"corpora: none at {tmp_path}, their tests are skipped (set SCRUBBER_CORPORA)"
    (tmp_path / "llhttp.json").write_text("[]")
    assert first_line() == f"corpora: found at {tmp_path} (1)"
