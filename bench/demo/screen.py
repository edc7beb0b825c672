"""The live screen, or a line a second where there is no terminal.

Owns: what is shown during the run and the table at its end. Invariant: it reads figures and changes nothing.
"""
from types import TracebackType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bench.demo import story
from bench.demo.figures import Figures, Sample, percentile, share
from bench.demo.plan import KINDS, Plan
from bench.load.tally import ATTEMPTED, SERVED, UNSENT

GATEWAY_COLUMNS = ("served", "throttled", "denied", "dropped")


def rates(samples: list[Sample]) -> dict[str, float]:
    """The gateway's counters, a second, over about the last one."""
    names = (*GATEWAY_COLUMNS, "kernel_packets")
    if len(samples) < 2:
        return dict.fromkeys(names, 0.0)
    last = samples[-1]
    first = next((one for one in reversed(samples[:-1]) if last.at_s - one.at_s >= 0.9), samples[0])
    took_s = max(0.001, last.at_s - first.at_s)
    return {name: (getattr(last, name) - getattr(first, name)) / took_s for name in names}


class Screen:
    """Shows a run as it goes. A context manager; call show() as often as you like."""

    def __init__(self, plan: Plan, figures: Figures, console: Console) -> None:
        self.plan = plan
        self.figures = figures
        self.console = console
        self.live: Live | None = None
        self.said_s = -1

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self.live = Live(console=self.console, refresh_per_second=4, transient=True)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def show(self, at_s: float) -> None:
        """The state of things at a time after t0."""
        if self.live is not None:
            self.live.update(self.picture(at_s))
        elif int(at_s) > self.said_s and at_s >= 1:
            self.said_s = int(at_s)
            self.console.print(self.line(at_s), soft_wrap=True, highlight=False)

    def people_now(self, at_s: float) -> tuple[int, float, float, float]:
        """Requests, success, p50 and p99 of the last two whole seconds."""
        second = int(at_s)
        requests = list(self.figures.requests(second - 2, second))
        good = [one.latency_ms for one in requests if not one.failed]
        return len(requests) // 2, share(len(good), len(requests)), percentile(good, 0.5), percentile(good, 0.99)

    def line(self, at_s: float) -> str:
        """Everything in one line."""
        asked, success, _, p99 = self.people_now(at_s)
        gateway, second = rates(self.figures.samples), int(at_s) - 1
        flood = self.figures.rows([kind.name for kind in KINDS if not kind.below_limits], second, second + 1)
        last = self.figures.samples[-1] if self.figures.samples else Sample(0.0)
        counts = " ".join(f"{name} {gateway[name]:.0f}/s" for name in GATEWAY_COLUMNS)
        kernel = f"kernel {last.in_force} drops {gateway['kernel_packets']:.0f}/s | " if self.plan.place.victim else ""
        given_up = self.figures.victim.asked_s is not None
        upstream = f" | upstream: {story.victim(self.plan, self.figures, at_s)}" if given_up else ""
        return (
            f"{second:3d} s  people {asked}/s ok {success:.1%} p99 {p99:.0f} ms | {counts} blocked {last.blocks} | "
            f"{kernel}"
            f"flood {flood[ATTEMPTED]}/s served {share(flood[SERVED], flood[ATTEMPTED]):.1%} | "
            f"{self.story(at_s)}{upstream}"
        )

    def story(self, at_s: float) -> str:
        """What is happening now."""
        return story.now(self.plan, self.figures, at_s)

    def picture(self, at_s: float) -> Panel:
        """The whole screen."""
        below = ("", self._below(at_s)) if self.plan.place.victim else ()
        story_now = Text(self.story(at_s), style="bold")
        parts = (self._bar(at_s), "", self._top(at_s), *below, "", self._kinds(at_s), "", story_now)
        title = f"scrubber demo  {max(0, min(int(at_s), self.plan.seconds))} of {self.plan.seconds} s"
        return Panel(Group(*parts), title=title, border_style="cyan")

    def _bar(self, at_s: float) -> Text:
        """The run's seconds, the flood's in red, those to come dim."""
        bar = Text()
        for second in range(self.plan.seconds):
            colour = "red" if self.plan.flood.start_s <= second < self.plan.flood.stop_s else "green"
            bar.append("━━", style=colour if second < at_s else "bright_black")
        return bar

    def _top(self, at_s: float) -> Table:
        asked, success, p50, p99 = self.people_now(at_s)
        total, failed = self.figures.asked, self.figures.failures.total()
        gateway = rates(self.figures.samples)
        last = self.figures.samples[-1] if self.figures.samples else Sample(0.0)
        table = Table(expand=True, box=None, pad_edge=False)
        for title in ("gateway", "a second", "in all", "", "people", "now", "in all"):
            table.add_column(title, justify="left" if title in ("gateway", "people") else "right")
        style = "green" if success >= 0.999 else "red"
        people = [
            ("requests", f"{asked}/s", f"{total:,}"),
            ("success", f"[{style}]{success:.2%}[/]" if asked else "-", f"{share(total - failed, total):.3%}"),
            ("failed", "", f"{failed:,}"),
            ("latency p50", f"{p50:.1f} ms", ""),
            ("latency p99", f"{p99:.1f} ms", ""),
        ]
        ours = [(name, f"{gateway[name]:,.0f}", f"{getattr(last, name):,}") for name in GATEWAY_COLUMNS]
        ours.append(("blocked", "", f"{last.blocks} sources"))
        for left, right in zip(ours, people, strict=True):
            table.add_row(*left, "", *right)
        return table

    def _below(self, at_s: float) -> Table:
        """What happens to the flood before it reaches the gateway."""
        last = self.figures.samples[-1] if self.figures.samples else Sample(0.0)
        per_s = rates(self.figures.samples)["kernel_packets"]
        table = Table.grid(padding=(0, 2))
        dropped = f"{per_s:,.0f} packets/s, {last.kernel_packets:,} in all, before any process sees them"
        table.add_row("kernel", f"drops what {last.in_force} blocked sources send: {dropped}")
        table.add_row("upstream", story.victim(self.plan, self.figures, at_s))
        return table

    def _kinds(self, at_s: float) -> Table:
        table = Table(expand=True, box=None, pad_edge=False)
        table.add_column("attack")
        table.add_column("what", overflow="ellipsis", no_wrap=True, ratio=1)
        for title in ("addresses", "tried/s", "served/s", "served"):
            table.add_column(title, justify="right")
        second, start_s = int(at_s) - 1, self.plan.flood.start_s
        for kind in self.plan.place.kinds:
            row = self.figures.rows([kind.name], second, second + 1)
            whole = self.figures.rows([kind.name], start_s, second + 1)
            part = share(whole[SERVED], whole[ATTEMPTED])
            table.add_row(
                kind.name, kind.says, str(kind.addresses), f"{row[ATTEMPTED]:,}", f"{row[SERVED]:,}",
                f"{part:.2%}" if whole[ATTEMPTED] else "-",
            )
        unsent = self.figures.rows([kind.name for kind in self.plan.place.kinds], second, second + 1)[UNSENT]
        if unsent:
            table.add_row("", f"({unsent:,}/s more than this machine could send)", "", "", "", "", style="dim")
        return table


def below(kernel: dict[str, Any], upstream: dict[str, Any]) -> tuple[str, str]:
    """What kernel and provider have kept from the gateway."""
    dropped = (
        f"kernel: {kernel['in_force']} of {kernel['blocked']} blocked sources; {kernel['packets']:,} of their packets "
        f"dropped before any process saw them, {kernel['packets_per_s_after_2s']:,.0f}/s"
    )
    victim, per_s = upstream["victim"], upstream["packets_per_s"]
    if upstream["dropped_after_s"] is None:
        why = upstream["answer"] or "the provider does not drop it"
        return dropped, f"upstream: {victim} could not be given up: {why}"
    return dropped, (
        f"upstream: {victim} given up at {upstream['asked_at_s']:.0f} s, dropped by the provider's kernel "
        f"{upstream['dropped_after_s'] * 1000:.0f} ms later; packets to it that reach our line: "
        f"before {per_s['before']:,.0f}/s, after {per_s['after']:,.0f}/s"
    )


def closing(report: dict[str, Any], console: Console) -> None:
    """The table at the end, and whether every condition was met."""
    people, attack = report["people"], report["attack"]
    table = Table(title="attack by kind", box=SIMPLE_HEAD, pad_edge=False)
    counted = ("429", "403", "reset", "no answer", "other")
    for title in ("kind", "addresses", "tried", "tried/s", "served", "after 2 s", *counted):
        table.add_column(title, justify="left" if title == "kind" else "right")
    for name, kind in attack["kinds"].items():
        table.add_row(
            name, str(kind["addresses"]), f"{kind['requests']:,}", f"{kind['requests_per_s']:,.0f}",
            f"{kind['served']:,}", f"{kind['served_share_after_2s']:.2%}",
            *(f"{kind[name]:,}" for name in ("throttled", "denied", "reset", "timeouts")),
            f"{kind['other'] + kind['refused']:,}",
        )
    console.print(table)
    p50, p99 = people["latency_ms_p50"], people["latency_ms_p99"]
    console.print(
        f"people: {people['people']} with {people['requests']:,} requests, {people['success']:.3%} answered whole; "
        f"latency before and under the flood: p50 {p50['before']} and {p50['under_flood']} ms, "
        f"p99 {p99['before']} and {p99['under_flood']} ms",
        highlight=False, soft_wrap=True,
    )
    if report["kernel"] and report["upstream"]:
        for line in below(report["kernel"], report["upstream"]):
            console.print(line, highlight=False, soft_wrap=True)
    for one in report["conditions"]:
        mark = "[green]met[/]   " if one["met"] else "[red]FAILED[/]"
        console.print(f"{mark} {one['name']}: {one['found']} (wanted {one['wanted']})", highlight=False, soft_wrap=True)
    if report["rush_before_flood"]:
        console.print("the area-wide limit shed people before the flood came, so nobody was known when it did: its "
                      "limit is too low for so many people (configs/demo-mandate.toml)", style="yellow", soft_wrap=True)
