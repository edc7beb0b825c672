"""The chart of a run, demo-chart.png: people above, the flood below, by second, phases marked."""
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench.demo.figures import Figures, percentile, share
from bench.demo.plan import KINDS, VICTIM, Plan
from bench.demo.report import fast_flood
from bench.load.tally import ATTEMPTED, SERVED, THROTTLED

KERNEL_APART_S = 1.9  # the enforcer counts once a second
VICTIM_APART_S = 0.9


def draw(path: Path, plan: Plan, figures: Figures, report: dict[str, Any]) -> None:
    """Write the PNG. OSError where the path cannot be written."""
    seconds = list(range(plan.seconds))
    people = [list(figures.requests(second, second + 1)) for second in seconds]
    good = [[one.latency_ms for one in requests if not one.failed] for requests in people]
    asked = [second for second in seconds if people[second]]
    success = [100 * share(len(good[second]), len(people[second])) for second in asked]
    heights = [3, 1.4, 3, 2, *([1.4] if plan.place.victim else [])]
    figure, all_axes = plt.subplots(
        len(heights), 1, figsize=(11, 1.3 * sum(heights)), sharex=True, height_ratios=heights, constrained_layout=True)
    top, middle, bottom, slow, *victim = all_axes
    top.plot(seconds, [max(percentile(g, 0.99), 0.1) for g in good], color="tab:red", label="p99")
    top.plot(seconds, [max(percentile(g, 0.5), 0.1) for g in good], color="tab:blue", label="p50")
    top.set_ylabel("people: latency, ms")
    top.set_yscale("log")
    top.legend(loc="upper left")
    middle.plot(asked, success, color="tab:green")
    middle.set_ylabel("people: success, %")
    middle.set_ylim(min([95.0, *success]) - 0.5, 100.5)
    fast = [kind.name for kind in KINDS if fast_flood(kind)]
    rows = [figures.rows(fast, second, second + 1) for second in seconds]
    bottom.plot(seconds, [max(row[ATTEMPTED], 0.5) for row in rows], color="tab:gray", label="tried")
    bottom.plot(seconds, [max(row[SERVED], 0.5) for row in rows], color="tab:red", label="served")
    bottom.plot(seconds, [max(len(requests), 0.5) for requests in people], color="tab:green", label="people")
    if victim:
        at, dropped = steps([(one.at_s, one.kernel_packets) for one in figures.samples], KERNEL_APART_S)
        bottom.plot(at, [max(per_s, 0.5) for per_s in dropped], color="tab:purple", label="dropped in the kernel")
        draw_victim(victim[0], plan, figures)
    bottom.set_ylabel("fast floods, a second")
    bottom.set_yscale("log")
    bottom.legend(loc="upper left")
    rows = [figures.rows(["slow"], second, second + 1) for second in seconds]
    slow.plot(seconds, [row[ATTEMPTED] for row in rows], color="tab:gray", label="tried")
    slow.plot(seconds, [row[THROTTLED] for row in rows], color="tab:orange", label="429")
    slow.plot(seconds, [row[SERVED] for row in rows], color="tab:red", label="served")
    slow.set_ylabel("slow flood, a second")
    slow.legend(loc="upper left")
    all_axes[-1].set_xlabel("seconds")
    for axes in all_axes:
        axes.axvspan(plan.flood.start_s, plan.flood.stop_s, color="tab:red", alpha=0.07)
        axes.grid(alpha=0.3)
    top.annotate("flood", (plan.flood.start_s + 0.3, 0.9), xycoords=("data", "axes fraction"), color="tab:red")
    kinds = report["attack"]
    figure.suptitle(
        f"people {report['people']['success']:.3%} of {report['people']['requests']:,} requests; "
        f"flood {kinds['fast_requests_per_s']:,.0f}/s, served {kinds['served_share_after_2s']:.2%} after 2 s")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_victim(axes: Axes, plan: Plan, figures: Figures) -> None:
    """Packets to the address that is given up: what was sent, and what our line brought."""
    seconds = list(range(plan.seconds))
    tried = [figures.rows([VICTIM.name], second, second + 1)[ATTEMPTED] for second in seconds]
    axes.plot(seconds, tried, color="tab:gray", label="tried")
    axes.plot(*steps(figures.victim.counted, VICTIM_APART_S), color="tab:red", label="on our line")
    if figures.victim.dropped_s is not None:
        axes.axvline(figures.victim.dropped_s, color="tab:blue", linestyle=":", label="the provider drops it")
    axes.set_ylabel(f"{plan.place.victim},\na second")
    axes.legend(loc="upper left")


def steps(counts: Iterable[tuple[float, int]], apart_s: float) -> tuple[list[float], list[float]]:
    """From sums at times to a rate between two that are so far apart, and the times in the middle."""
    kept: list[tuple[float, int]] = []
    for one in counts:
        if not kept or one[0] - kept[-1][0] >= apart_s:
            kept.append(one)
    pairs = list(itertools.pairwise(kept))
    times = [(one[0] + other[0]) / 2 for one, other in pairs]
    return times, [(other[1] - one[1]) / (other[0] - one[0]) for one, other in pairs]
