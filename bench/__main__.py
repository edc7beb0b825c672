"""`python -m bench [SCENARIO …] --runs N`: Scrubber, nginx and HAProxy side by side; writes its results to bench/.

`--smoke`: a few hundred requests a scenario, into a scratch directory: whether everything still works, no figures.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path

import click

from bench.load.guard import LoadRefused
from bench.macro.measure import measure
from bench.macro.report import machine, merged, results, write
from bench.macro.scenario import Effort
from bench.macro.scenarios import GROUPS, SCENARIOS
from bench.macro.systems import SYSTEMS, BenchError, program

HERE = Path(__file__).parent


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("scenarios", nargs=-1, type=click.Choice([*SCENARIOS, *GROUPS]))
@click.option("--runs", type=click.IntRange(1, 100), default=5, show_default=True, help="Paired rounds a scenario.")
@click.option("--smoke", is_flag=True, help="A few hundred requests each; figures are not kept.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=HERE, help="Where results go.")
@click.option("--system", "systems", multiple=True, type=click.Choice(SYSTEMS), help="Only these (default: all).")
def main(scenarios: tuple[str, ...], runs: int, smoke: bool, out: Path, systems: tuple[str, ...]) -> None:
    """Measure SCENARIOS (default: all) against nginx and HAProxy on this machine. Results of others, measured before on
    the same machine with the same versions, are kept."""
    names = dict.fromkeys(each for name in scenarios or SCENARIOS for each in GROUPS.get(name, (name,)))
    chosen = [SCENARIOS[name] for name in names]
    missing = [name for name in ("nginx", "haproxy", "taskset", "slowhttptest", "valgrind") if not installed(name)]
    if missing and smoke:
        click.echo(f"bench-smoke skipped: not installed: {', '.join(missing)}", err=True)
        return
    about = machine()
    try:
        effort = Effort.quick() if smoke else Effort.full()
        found = measure(chosen, systems, 1 if smoke else runs, effort, lambda line: click.echo(line, err=True))
        tree = results(found, about)
    except (BenchError, LoadRefused) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    if smoke:
        with tempfile.TemporaryDirectory() as scratch:
            write(tree, Path(scratch))
        click.echo(f"bench-smoke: {', '.join(s.name for s in chosen)}: well")
        return
    with contextlib.suppress(OSError, ValueError, KeyError):
        tree = merged(json.loads((out / "results.json").read_text(encoding="utf-8")), tree, list(SCENARIOS))
    write(tree, out)
    click.echo(f"written: {out / 'RESULTS.md'}, {out / 'results.json'}")
    for warning in (warning for each in found for warning in each.warnings()):
        click.echo(f"warning: {warning}", err=True)


def installed(name: str) -> bool:
    try:
        program(name)
    except BenchError:
        return False
    return True


if __name__ == "__main__":
    main()
