"""The protocols of the shared memory, every interleaving of a small case of each, by spin (tests/model/*.pml).

Each model is sound as it stands, and in further cases that its head names (`+DNAME: what is different`). Each also has
broken variants (`-DNAME: what is wrong`), which the checker must find faulty: a model that cannot fail says nothing.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests import wanted

MODELS = sorted(Path(__file__).parent.glob("*.pml"))
VARIANT = re.compile(r"^ \* ([+-])D(\w+):", re.MULTILINE)
# Large enough for every model here, small enough that one that grew out of hand is noticed.
DEPTH, MEMORY_MB = 1_000_000, 700

CASES = [
    (model, name, sign == "+") for model in MODELS for sign, name in (("+", ""), *VARIANT.findall(model.read_text()))
]


def verify(model: Path, variant: str, scratch: Path) -> str:
    """What the checker says of the whole state space, or up to the first fault."""
    spin, gcc = wanted.program("spin"), wanted.program("gcc")
    defines = [f"-D{variant}"] if variant else []
    subprocess.run([spin, "-a", *defines, str(model)], cwd=scratch, check=True, capture_output=True)
    # SAFETY: assertions and invalid end states, no cycles. COLLAPSE: a quarter of the memory.
    flags = ["-O1", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}"]
    subprocess.run([gcc, *flags, "-o", "pan", "pan.c"], cwd=scratch, check=True, capture_output=True)
    done = subprocess.run([scratch / "pan", f"-m{DEPTH}", "-n"], cwd=scratch, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("model", "variant", "sound"), CASES, ids=["-".join(filter(None, (m.stem, v))) for m, v, _ in CASES]
)
def test_model(model: Path, variant: str, sound: bool, tmp_path: Path) -> None:
    said = verify(model, variant, tmp_path)
    errors = re.search(r"errors: (\d+)", said)
    assert errors, said
    if sound:
        assert int(errors[1]) == 0, said
        # A search that was cut short has shown nothing.
        assert "Search not completed" not in said and "depth too small" not in said, said
    else:
        assert int(errors[1]) > 0, f"the checker finds nothing wrong with it: the model is blind\n{said}"


def test_each_model_can_fail() -> None:
    assert MODELS
    assert {model for model, _, sound in CASES if not sound} == set(MODELS)
