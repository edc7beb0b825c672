"""The chart of a run, demo-chart.png: people above, the flood below, by second, phases marked."""
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from bench.demo.figures import Figures, percentile, share
from bench.demo.plan import KINDS, Plan
from bench.demo.report import fast_flood
from bench.load.tally import ATTEMPTED, SERVED, THROTTLED


def draw(path: Path, plan: Plan, figures: Figures, report: dict[str, Any]) -> None:
    """Write the PNG. OSError where the path cannot be written."""
    seconds = list(range(plan.seconds))
    people = [list(figures.requests(second, second + 1)) for second in seconds]
    good = [[one.latency_ms for one in requests if not one.failed] for requests in people]
    asked = [second for second in seconds if people[second]]
    success = [100 * share(len(good[second]), len(people[second])) for second in asked]
    figure, (top, middle, bottom, slow) = plt.subplots(
        4, 1, figsize=(11, 12), sharex=True, height_ratios=(3, 1.4, 3, 2), constrained_layout=True)
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
    bottom.set_ylabel("fast floods, a second")
    bottom.set_yscale("log")
    bottom.legend(loc="upper left")
    rows = [figures.rows(["slow"], second, second + 1) for second in seconds]
    slow.plot(seconds, [row[ATTEMPTED] for row in rows], color="tab:gray", label="tried")
    slow.plot(seconds, [row[THROTTLED] for row in rows], color="tab:orange", label="429")
    slow.plot(seconds, [row[SERVED] for row in rows], color="tab:red", label="served")
    slow.set_ylabel("slow flood, a second")
    slow.set_xlabel("seconds")
    slow.legend(loc="upper left")
    for axes in (top, middle, bottom, slow):
        axes.axvspan(plan.flood.start_s, plan.flood.stop_s, color="tab:red", alpha=0.07)
        axes.grid(alpha=0.3)
    top.annotate("flood", (plan.flood.start_s + 0.3, 0.9), xycoords=("data", "axes fraction"), color="tab:red")
    kinds = report["attack"]
    figure.suptitle(
        f"people {report['people']['success']:.3%} of {report['people']['requests']:,} requests; "
        f"flood {kinds['fast_requests_per_s']:,.0f}/s, served {kinds['served_share_after_2s']:.2%} after 2 s")
    figure.savefig(path, dpi=100)
    plt.close(figure)
