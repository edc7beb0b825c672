"""What is written of a measurement: results.json, RESULTS.md, a plot. Rendered, never typed.

Invariant: every number of RESULTS.md and of the plot comes from the rows of results.json.
"""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench.macro.aims import OURS, AtLeast, judged
from bench.macro.measure import Rounds
from bench.macro.procs import cores
from bench.macro.scenario import METRICS
from bench.macro.stats import paired_ratio
from bench.macro.systems import version

BESIDE_MAX = 10  # groups of bars that stand side by side


def rows_of(rounds: Rounds) -> list[dict[str, Any]]:
    """The rows of a scenario: a system and a metric each. Ours have `ratio_to` and its 95 % interval, `ratio_95`."""
    values: dict[tuple[str, str], list[float]] = {}
    for name, runs in rounds.runs.items():
        for run in runs:
            for metric, value in run.metrics.items():
                values.setdefault((name, metric), []).append(value)
    rows = []
    for (name, metric), measured in values.items():
        row: dict[str, Any] = {
            "scenario": rounds.scenario.name,
            "system": name,
            "metric": metric,
            "unit": METRICS[metric],
            "value": median(measured),
            "min": min(measured),
            "max": max(measured),
            "runs": len(measured),
            "values": measured,
            "ratio_to": {},
        }
        if name == OURS:
            ratios = {
                other: paired_ratio(measured, values[other, metric])
                for other in rounds.runs
                if other != OURS and (other, metric) in values and min(values[other, metric]) > 0
            }
            row["ratio_to"] = {other: ratio.value for other, ratio in ratios.items()}
            row["ratio_95"] = {other: [ratio.low, ratio.high] for other, ratio in ratios.items()}
        rows.append(row)
    return rows


def machine() -> dict[str, Any]:
    """What this was measured on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_kib = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1])
    return {
        "cpu": model or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "proxy_core": cores()[0],
        "load_core": cores()[1],
        "load_average_before": os.getloadavg()[0],
    }


def results(rounds: Sequence[Rounds], about: dict[str, Any]) -> dict[str, Any]:
    """The tree of results.json."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    alone = about["proxy_core"] == about["load_core"]
    return {
        "date": date,
        "machine": about,
        "versions": {name: version(name) for name in dict.fromkeys(name for each in rounds for name in each.runs)},
        "scenarios": {
            each.scenario.name: {
                "title": each.scenario.title,
                "method": each.scenario.method,
                "date": date,
                "warnings": each.warnings(),
                "machine": about,
            }
            for each in rounds
        },
        "warnings": ["one core only: proxy, load and origin shared it"] if alone else [],
        "rows": [row for each in rounds for row in rows_of(each)],
    }


def alike(about: dict[str, Any]) -> tuple[Any, ...]:
    """What two runs have in common where their figures may stand in one table. Of the kernel its version: what follows
    tells builds for one virtual machine apart, and each scenario has its peers from its own run."""
    return about["cpu"], about["cores"], about["kernel"].partition("-")[0], about["python"]


def most_common(found: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    counted = Counter(found).most_common(1)
    return counted[0][0] if counted else ()


def merged(former: dict[str, Any], tree: dict[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """The tree with those scenarios of a former one that were not measured anew, in that order, each with the machine
    of its own run; as it is where the former one is of other versions."""
    if any(former["versions"].get(name, said) != said for name, said in tree["versions"].items()):
        return tree
    before = {name: {"machine": former["machine"], **found} for name, found in former["scenarios"].items()}
    scenarios = before | tree["scenarios"]
    kept = [row for row in former["rows"] if row["scenario"] not in tree["scenarios"]]
    places = {name: place for place, name in enumerate(order)}
    return tree | {
        "versions": former["versions"] | tree["versions"],
        "scenarios": {name: scenarios[name] for name in order if name in scenarios},
        "rows": sorted(
            (row for row in kept + tree["rows"] if row["scenario"] in places), key=lambda row: places[row["scenario"]]
        ),
    }


METHOD = """Everything runs on this one machine over loopback: the proxy on core {proxy_core} (one worker), load and a
light native origin on core {load_core}. In each round every system runs once, one after the other, freshly started and
warmed up, as root in a network namespace of its own (so that the sockets in TIME_WAIT that one leaves cost the next one
nothing); the order is the same in each round, and ratios are taken round by round. Each system has equal protection
(limits, caps, deadlines) and a buffered access log; its configuration is in `bench/macro/SCENARIO/`, or in
`bench/macro/clean/`, over TLS in `bench/macro/tls_clean/`.

`cpu_us` is the time of all the proxy's processes and threads (`/proc/PID/task/*/schedstat`), helpers included, by the
requests answered. `core_busy_us` is the busy time of the proxy's whole core, so that kernel work outside its processes
(softirq) is seen too. Figures are medians of the runs with least and most; ratios are medians of paired rounds with
a bootstrapped 95 % interval."""


NOWHERE = {"ended_s": "not ended"}  # what it means that a system has no row where others have one


def cell(row: dict[str, Any]) -> str:
    return f"{number(row['value'])} ({number(row['min'])}–{number(row['max'])})"


def number(value: float) -> str:
    """Three significant digits or all of a whole number."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def table(tree: dict[str, Any], scenario: str) -> list[str]:
    """A scenario's rows: metrics down, systems across, our ratios at the end where we are one of them."""
    rows = [row for row in tree["rows"] if row["scenario"] == scenario]
    systems = list(dict.fromkeys(row["system"] for row in rows))
    others = [name for name in systems if name != OURS] if OURS in systems else []
    lines = [
        "| | unit | " + " | ".join([*systems, *(f"{OURS} / {name}" for name in others)]) + " |",
        "|" + "---|" * (2 + len(systems) + len(others)),
    ]
    for metric in METRICS:
        by_system = {row["system"]: row for row in rows if row["metric"] == metric}
        if not by_system:
            continue
        ours = by_system.get(OURS, {"ratio_to": {}, "ratio_95": {}})
        cells = [cell(by_system[name]) if name in by_system else NOWHERE.get(metric, "–") for name in systems]
        for name in others:
            if name in ours["ratio_to"]:
                low, high = ours["ratio_95"][name]
                cells.append(f"{ours['ratio_to'][name]:.2f} [{low:.2f}, {high:.2f}]")
            else:
                cells.append("–")
        lines.append(f"| {metric} | {METRICS[metric]} | " + " | ".join(cells) + " |")
    return lines


def described(about: dict[str, Any]) -> str:
    """A machine in a line."""
    return (
        f"{about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB; "
        f"Linux {about['kernel'].partition('-')[0]}, Python {about['python']}"
    )


def markdown(tree: dict[str, Any], plots: Sequence[str] = ()) -> str:
    """RESULTS.md."""
    about = tree["machine"]
    machines = {name: each.get("machine", about) for name, each in tree["scenarios"].items()}
    usual = most_common(alike(each) for each in machines.values())
    where = next((each for each in machines.values() if alike(each) == usual), about)
    warnings = [*tree["warnings"], *(each for scenario in tree["scenarios"].values() for each in scenario["warnings"])]
    lines = [
        "# Results",
        "",
        "Generated by `make bench`; do not edit.",
        "",
        METHOD.format(proxy_core=about["proxy_core"], load_core=about["load_core"]),
        "",
        f"{described(where)}. Where a scenario says otherwise, it ran on another machine: its ratios are of that one, "
        "its figures are not to be compared with those of others.",
        "; ".join(dict.fromkeys(tree["versions"].values())) + ".",
        "",
    ]
    if warnings:
        lines += ["**Disturbed runs:** the figures of these are less certain than their intervals say.", ""]
        lines += [f"- {warning}" for warning in warnings] + [""]
    if found := judged(tree["rows"], tree["machine"]["cores"]):
        lines += [
            "## Aims",
            "",
            "Judged is our median against the best run of each peer, or as it is; `paired`: the ratio round by round.",
            "",
        ]
        lines += ["| scenario | figure | aim | measured | paired | |", "|---|---|---|---|---|---|"]
        for aim, value, paired, wanted, said in found:
            sign = "≥" if isinstance(aim, AtLeast) else "≤"
            both = [number(value), "" if paired is None else number(paired)]
            cells = [aim.scenario, aim.what, f"{sign} {number(wanted)}", *both, said]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    lines += [f"![{Path(plot).stem}]({plot})\n" for plot in plots]
    for name, scenario in tree["scenarios"].items():
        rows = [row for row in tree["rows"] if row["scenario"] == name]
        when = f"{scenario['date'][:10]}, {rows[0]['runs']} runs." if rows else ""
        if alike(machines[name]) != usual:
            when += f" **On {described(machines[name])}.**"
        lines += [f"## {name}: {scenario['title']}", "", f"{scenario['method']} {when}", "", *table(tree, name), ""]
    return "\n".join(lines)


def write(tree: dict[str, Any], directory: Path) -> None:
    """results.json, RESULTS.md and, where matplotlib is there, the plots."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    plots = [plot.file for plot in PLOTS if draw(tree, plot, directory / plot.file)]
    (directory / "RESULTS.md").write_text(markdown(tree, plots), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture: one group of axes a metric, of scenarios whose names begin so."""

    file: str
    title: str
    metrics: tuple[str, ...]
    scenarios: str = ""
    but: str = "-"  # scenarios whose names begin so are left out

    def shows(self, scenario: str) -> bool:
        return scenario.startswith(self.scenarios) and not scenario.startswith(self.but)


PLOTS = (
    # A handshake costs ten times what a request does: in one picture with it nobody would see the others.
    Plot(
        "cpu.png",
        "CPU of the proxy's processes (median, least, most)",
        ("cpu_us", "cpu_s_per_gb"),
        but="tls-handshake",
    ),
    Plot(
        "handshake.png",
        "CPU of the proxy's processes a TLS handshake (median, least, most)",
        ("cpu_us",),
        scenarios="tls-handshake",
    ),
    Plot(
        "flood.png",
        "People under attack (median, least, most)",
        ("people_success", "latency_ms_p99"),
        scenarios="flood-",
    ),
)


def draw(tree: dict[str, Any], plot: Plot, path: Path) -> bool:
    """Bars by scenario and system, least and most as whiskers. False: nothing to draw, or matplotlib is missing."""
    drawn = {}
    for metric in plot.metrics:
        rows = [row for row in tree["rows"] if row["metric"] == metric and plot.shows(row["scenario"])]
        if rows:
            drawn[metric] = rows
    try:
        import matplotlib as mpl  # noqa: PLC0415 - results without a plot need no matplotlib
    except ImportError:
        return False
    if not drawn:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    counts = [len({row["scenario"] for row in rows}) for rows in drawn.values()]
    tall = max(counts) > BESIDE_MAX  # one below the other
    shape = (len(drawn), 1) if tall else (1, len(drawn))
    size = (1.4 * max(counts) + 2, 3.4 * len(drawn)) if tall else (2.4 * len(drawn) + 2.2 * sum(counts), 4)
    figure, all_axes = plt.subplots(*shape, figsize=size, width_ratios=None if tall else counts, squeeze=False)
    for (metric, rows), axes in zip(drawn.items(), all_axes.flat, strict=True):
        bars_of(axes, metric, rows)
    figure.suptitle(plot.title)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return True


def bars_of(axes: Any, metric: str, rows: Sequence[dict[str, Any]]) -> None:
    """A group of bars a scenario, a bar a system."""
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    width = 0.8 / max(len(systems), 1)
    for k, name in enumerate(systems):
        own = {row["scenario"]: row for row in rows if row["system"] == name}
        at = [i + (k - (len(systems) - 1) / 2) * width for i, scenario in enumerate(scenarios) if scenario in own]
        found = [own[scenario] for scenario in scenarios if scenario in own]
        heights = [row["value"] for row in found]
        whiskers = [[row["value"] - row["min"] for row in found], [row["max"] - row["value"] for row in found]]
        bars = axes.bar(at, heights, width * 0.92, yerr=whiskers, capsize=3, label=name)
        axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
    axes.set_xticks(range(len(scenarios)), scenarios)
    axes.set_ylabel(f"{metric} ({METRICS[metric]})")
    axes.legend()
