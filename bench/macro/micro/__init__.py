"""The core's pieces one by one: time by pytest-benchmark, instructions by callgrind, which noise does not touch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.macro.scenario import Place, Run
from bench.macro.systems import ROOT, BenchError, program

TURNS = 20_000
NAMES = ("parse", "fingerprint", "match", "admit", "prefix")


@dataclass(frozen=True, slots=True)
class Micro:
    """Scrubber alone: the others have no such pieces to be measured."""

    name: str = "micro"
    title: str = "Pieces of the core"
    method: str = (
        "A browser's head parsed and fingerprinted; the conditions of eight rules matched (`match`); the whole judge "
        "under these rules with the account at the end (`admit`); a look-up among 100,000 prefixes. `ns_…` by "
        "pytest-benchmark (the median of its rounds), `instructions_…` by valgrind's callgrind, each a turn."
    )
    systems: tuple[str, ...] = ("scrubber",)

    def run(self, name: str, place: Place) -> Run:
        report = place.scratch / "micro.json"
        pinned = ["taskset", "-c", str(place.proxy_core)]
        options = ["--benchmark-enable", f"--benchmark-json={report}", "-p", "no:cacheprovider", "-p", "no:xdist"]
        options += ["--benchmark-max-time=0.05", "--benchmark-min-rounds=2"] if place.effort.smoke else []
        folder = str(Path(__file__).parent)
        ask([*pinned, sys.executable, "-m", "pytest", *options, folder])
        tree = json.loads(report.read_text(encoding="utf-8"))
        found = {
            f"ns_{each['params']['piece']}": each["stats"]["median"] * 1e9 / each["extra_info"]["turns"]
            for each in tree["benchmarks"]
        }
        for piece in NAMES[:1] if place.effort.smoke else NAMES:
            found[f"instructions_{piece}"] = instructions(piece, place)
        return Run(found)


def instructions(piece: str, place: Place) -> float:
    """Instructions a turn, inside the piece's loop alone."""
    from bench.macro.micro.pieces import PIECES  # noqa: PLC0415 - it needs the core

    turns = 100 if place.effort.smoke else TURNS
    argv = [program("valgrind"), "--tool=callgrind", f"--callgrind-out-file={place.scratch / 'callgrind.out'}"]
    argv += [f"--toggle-collect=__pyx_pw_*{PIECES[piece][1]}", sys.executable, "-m", "bench.macro.micro.pieces"]
    said = ask([*argv, piece, str(turns)])
    match = re.search(r"Collected\s*:\s*(\d+)", said)
    if match is None or int(match[1]) < turns:
        raise BenchError(f"callgrind counted nothing of {piece}: {said[-300:]}")
    return int(match[1]) / turns


def ask(argv: list[str]) -> str:
    """What a program says; BenchError where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT, env=environment)
    if done.returncode:
        raise BenchError(f"{argv[0]} …: {(done.stdout + done.stderr)[-800:]}")
    return done.stdout + done.stderr


MICRO = Micro()
