"""Fuzz targets, as many at a time as there are cores: `python -m tests.fuzz [TARGET…] --seconds N [--keep FOLDER]`;
`make fuzz` has what it needs.

Each goes on from build/fuzz/TARGET, seeded from what is kept in this folder; --keep puts the smallest set of
inputs that covers as much where it belongs. Exit status 1 where something was found: build/fuzz/found has the input.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS

SCRATCH = Path(os.environ.get("SCRUBBER_FUZZ", "build/fuzz")).resolve()
FOUND = SCRATCH / "found"
LIMITS = ("-timeout=20", "-rss_limit_mb=3000", "-print_final_stats=1")


@dataclass
class Outcome:
    """What a run of one target came to."""

    target: str
    status: int
    output: str
    cpu_s: float

    def figure(self, pattern: str) -> str:
        found = re.findall(pattern, self.output)
        return str(found[-1]) if found else "?"

    def line(self) -> str:
        runs, edges = self.figure(r"number_of_executed_units: (\d+)"), self.figure(r"cov: (\d+)")
        inputs = len(list((SCRATCH / self.target).iterdir()))
        told = "nothing found" if self.status == 0 else f"FOUND: {', '.join(p.name for p in artifacts(self.target))}"
        return f"{self.target:15} {self.cpu_s:6.0f} s {runs:>12} runs {edges:>6} edges {inputs:6} inputs  {told}"


def artifacts(target: str) -> list[Path]:
    return sorted(FOUND.glob(f"{target}-*"))


def libfuzzer(target: str, *arguments: str) -> Outcome:
    command = [sys.executable, "-m", "tests.fuzz.run", target, *arguments]  # what is preloaded is inherited
    log = SCRATCH / f"{target}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Outcome(target, process.returncode, log.read_text(errors="replace"), usage.ru_utime + usage.ru_stime)


def escaped(word: bytes) -> str:
    """As libFuzzer's dictionaries have it."""
    return "".join(rf"\x{byte:02x}" for byte in word)


def fuzz(target: str, seconds: int) -> Outcome:
    folder = SCRATCH / target
    corpus.unpack(target, folder)
    words = SCRATCH / f"{target}.words"  # one at least: libFuzzer takes no empty file
    words.write_text("".join(f'"{escaped(word)}"\n' for word in {*TARGETS[target].words(), bytes(4)}))
    outcome = libfuzzer(
        target,
        f"-max_total_time={seconds}",
        f"-max_len={TARGETS[target].bytes_max}",
        f"-dict={words}",
        f"-artifact_prefix={FOUND / target}-",
        *LIMITS,
        str(folder),
    )
    click.echo(outcome.line())
    return outcome


def merge(target: str, kept: Path) -> None:
    """The smallest set of what covers as much as all of it."""
    folder = SCRATCH / f"{target}.merged"
    folder.mkdir(exist_ok=True)
    libfuzzer(target, "-merge=1", f"-max_len={TARGETS[target].bytes_max}", *LIMITS, str(folder), str(SCRATCH / target))
    click.echo(f"{target:15} {corpus.save(target, corpus.packed(folder), kept)} inputs kept")


@click.command()
@click.argument("targets", nargs=-1, type=click.Choice(list(TARGETS)))
@click.option("--seconds", default=60, show_default=True, help="Of wall time, for each target.")
@click.option("--keep", type=click.Path(path_type=Path), help="Where corpora are kept: put there what covers more.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Targets at a time.")
def main(targets: tuple[str, ...], seconds: int, keep: Path | None, jobs: int) -> None:
    """Fuzz these targets, all where none is named."""
    FOUND.mkdir(parents=True, exist_ok=True)
    names = targets or tuple(TARGETS)
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(lambda name: fuzz(name, seconds), names))
        if keep is not None:
            list(pool.map(lambda name: merge(name, keep), names))
    bad = [outcome for outcome in outcomes if outcome.status]
    for outcome in bad:
        click.echo(f"── {outcome.target}\n{outcome.output[-4000:]}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
