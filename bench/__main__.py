"""`python -m bench [SCENARIO …] --runs N`: Scrubber, nginx and HAProxy side by side; writes its results to bench/.

`--smoke`: a few hundred requests a scenario, into a scratch directory: whether everything still works, no figures.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from bench.load.guard import LoadRefused
from bench.macro.measure import Rounds, measure
from bench.macro.report import machine, merged, results, write
from bench.macro.scenario import Effort
from bench.macro.scenarios import GROUPS, SCENARIOS, SMOKE
from bench.macro.systems import SYSTEMS, WAYS, BenchError, program

HERE = Path(__file__).parent
SMOKES = 3  # scenarios at a time, where no figure counts


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("scenarios", nargs=-1, type=click.Choice([*SCENARIOS, *GROUPS]))
@click.option("--runs", type=click.IntRange(1, 100), default=5, show_default=True, help="Paired rounds a scenario.")
@click.option("--smoke", is_flag=True, help="A few hundred requests each; figures are not kept.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=HERE, help="Where results go.")
@click.option(
    "--system", "systems", multiple=True, type=click.Choice([*SYSTEMS, *WAYS]), help="Only these (default: all)."
)
def main(scenarios: tuple[str, ...], runs: int, smoke: bool, out: Path, systems: tuple[str, ...]) -> None:
    """Measure SCENARIOS (default: all) against nginx and HAProxy on this machine. Results of others, measured before
    with the same versions, are kept, each with the machine that it ran on."""
    asked = scenarios or (SMOKE if smoke else SCENARIOS)
    names = dict.fromkeys(each for name in asked for each in GROUPS.get(name, (name,)))
    chosen = [SCENARIOS[name] for name in names]
    missing = [name for name in ("nginx", "haproxy", "taskset", "slowhttptest", "valgrind") if not installed(name)]
    if missing and smoke:
        click.echo(f"bench-smoke skipped: not installed: {', '.join(missing)}", err=True)
        return
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch) if smoke else out
        effort, runs = (Effort.quick(), 1) if smoke else (Effort.full(), runs)
        pool = ThreadPoolExecutor(SMOKES if smoke else 1)  # each with a network of its own
        doing = [pool.submit(measure, scenario, systems, runs, effort, tell) for scenario in chosen]
        try:
            for one in doing:
                try:
                    found = one.result()
                except (BenchError, LoadRefused) as error:
                    tell(f"error: {error}")
                    failed = True
                    continue
                if found.runs:
                    keep(found, where)
                for warning in found.warnings():
                    tell(f"warning: {warning}")
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupt ends what runs, too: it goes to the whole group
    if failed:
        sys.exit(1)
    if smoke:
        click.echo(f"bench-smoke: {', '.join(scenario.name for scenario in chosen)}: well")
    else:
        click.echo(f"written: {out / 'RESULTS.md'}, {out / 'results.json'}")


def tell(line: str) -> None:
    click.echo(line, err=True)


def keep(found: Rounds, where: Path) -> None:
    """Write what was found, beside what is there of other scenarios."""
    tree = results([found], machine())
    with contextlib.suppress(OSError, ValueError, KeyError):
        tree = merged(json.loads((where / "results.json").read_text(encoding="utf-8")), tree, list(SCENARIOS))
    write(tree, where)


def installed(name: str) -> bool:
    try:
        program(name)
    except BenchError:
        return False
    return True


if __name__ == "__main__":
    main()
