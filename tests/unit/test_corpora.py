"""A run of the suite says whether it has the corpora: without them whole files of tests are skipped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.corpora import corpora_line
from tests.e2e.support import environment
from tests.unit.files import ROOT


def test_whether_they_are_there(tmp_path: Path) -> None:
    missing = f"corpora: none at {tmp_path}, their tests are skipped (set SCRUBBER_CORPORA)"
    assert corpora_line(tmp_path) == missing
    (tmp_path / "llhttp.json").write_text("[]")
    assert corpora_line(tmp_path) == f"corpora: found at {tmp_path} (1)"
    assert "none at" in corpora_line(tmp_path / "elsewhere")


def test_a_run_says_so_at_its_start(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "tests/unit/test_keyed.py"]
    env = {name: value for name, value in environment().items() if not name.startswith("PYTEST_")}
    env["SCRUBBER_CORPORA"] = str(tmp_path)
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    assert done.stdout.splitlines()[0] == corpora_line(tmp_path)
