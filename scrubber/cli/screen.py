"""How a gateway's answers look on a terminal. Owns no meaning: figures and texts are the gateway's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from scrubber.cli.output import count_text, problem_text
from scrubber.errors import Problem
from scrubber.units import NS_PER_S, format_duration

ACTS_SHOWN = 8
WIDTH_MAX = 500


def show_status(console: Console, status: Mapping[str, Any]) -> None:
    """First the answer, then areas, workers, and what is happening."""
    people = status["people"]
    answer, _, figure = people["text"].partition(", ")
    colour = "bold green" if people["through"] else "bold red"
    console.print(Text.assemble(("Do people get through? ", "bold"), (answer, colour), f", {figure}"))
    for notice in status["notices"]:
        console.print(Text(f"note: {notice}", "yellow"))
    tables = [_areas(status), _children(status)]
    origins = status["origins"]
    if len(origins) > len(status["areas"]) or any(_worth_showing(each) for each in origins):
        tables.insert(1, _origins(status))
    for table in tables:
        _print_whole(console, table)
    console.print(Text(f"{_count_of_blocks(status['blocks']['in_force'])} in force, {_mandates(status)}"))
    if status["enforcer"]:
        console.print(_enforcer(status["enforcer"]))
    console.print(_log(status["log"]))
    acts = status["acts"][-ACTS_SHOWN:]
    if acts:
        console.print(Text("what happened last:", "bold"))
    for act in acts:
        console.print(Text(f"  {act_line(act)}"))


def _print_whole(console: Console, table: Table) -> None:
    """No figure is cut short for a narrow terminal, nor where there is none: lines may be longer than it is."""
    width = console.width
    console.width = max(width, Measurement.get(console, console.options.update(width=WIDTH_MAX), table).maximum)
    console.print(table)
    console.width = width


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True, overflow="fold")
    return table


def _areas(status: Mapping[str, Any]) -> Table:
    words = ("req/s", "served", "throttle", "deny", "drop", "tarpit", "blocks", "p50 ms", "p99 ms")
    table = _table("area", *words, "state")
    for area in status["areas"]:
        rates = area["per_s"]
        cells = [rates["requests"], rates["served"], rates["throttle"], rates["deny"], rates["drop"], rates["tarpit"]]
        word = "drained" if area["drained"] else "rush" if area["rush"] else "calm"
        state = Text(word, "" if word == "calm" else "bold red")
        table.add_row(
            Text(area["name"]),
            *(f"{cell:,.1f}" for cell in cells),
            f"{area['blocks']:,}",
            _ms(area["latency_ms_p50"]),
            _ms(area["latency_ms_p99"]),
            state,
        )
    return table


def _worth_showing(origin: Mapping[str, Any]) -> bool:
    return bool(origin["state"] != "up" or origin["health"] != "not checked")


def _origins(status: Mapping[str, Any]) -> Table:
    table = _table("origin", "area", "weight", "in flight", "state")
    for each in status["origins"]:
        name = f"{each['name']} ({each['address']})" if each["name"] else each["address"]
        where = f"{each['area']}/{each['pool']}" if each["pool"] else each["area"]
        word = f"{each['state']} {each['ejected_s']:.0f} s" if each["state"] == "ejected" else each["state"]
        state = Text(f"{word}{', backup' if each['backup'] else ''}", "" if each["state"] == "up" else "bold red")
        table.add_row(Text(name), Text(where), f"{each['weight']}", f"{each['in_flight']:,}", state)
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _children(status: Mapping[str, Any]) -> Table:
    table = _table("process", "pid", "uid", "seccomp", "beat", "restarts", "policy", "connections", "in flight")
    for child in status["children"]:
        name = child["role"] if child["slot"] < 0 else f"{child['role']}[{child['slot']}]"
        age = child["beat_age_ms"]
        table.add_row(
            name,
            str(child["pid"]) if child["pid"] else Text("none", "red"),
            "" if child["uid"] is None else str(child["uid"]),
            child["seccomp"] or "",
            "none yet" if age is None else f"{age:,.0f} ms ago",
            f"{child['restarts']:,}",
            str(child.get("generation", "")),
            f"{child['connections']:,}" if "connections" in child else "",
            f"{child['requests']:,}" if "requests" in child else "",
        )
    return table


def _enforcer(enforcer: Mapping[str, Any]) -> Text:
    """What is dropped in the kernel, and by what; what is amiss in red."""
    if not enforcer["here"]:
        return Text("kernel: the enforcer is not there; what it put there ends by itself", "bold red")
    each = ", ".join(f"{count:,} by {name}" for name, count in enforcer["in_force"].items())
    text = Text(f"kernel: sources dropped: {each}; {enforcer['dropped_packets']:,} packets so far")
    if all(backend["reason"] for backend in enforcer["backends"]):
        text = Text("kernel: nothing can be dropped there, so blocks stay inside the gateway", "bold red")
    if enforcer["covered"]:
        text.append(f", {enforcer['covered']:,} clients covered by prefixes")
    if enforcer["waiting"]:
        text.append(f", {enforcer['waiting']:,} wait")
    if enforcer["refused"]:
        text.append(f", {enforcer['refused']:,} refused", "bold red")
    for backend in enforcer["backends"]:
        if backend["reason"]:
            text.append(f"\n        {backend['name']} is not available: {backend['reason']}", "yellow")
    if enforcer["upstream"]:
        text.append("\n").append(_upstream(enforcer["upstream"]))
    return text


def _upstream(upstream: Mapping[str, Any]) -> Text:
    """What the provider's routers are asked to drop."""
    if upstream["reason"]:
        return Text(f"upstream: nothing can be announced: {upstream['reason']}", "bold red")
    counts = upstream["announced"]
    said = ", ".join(
        f"{counts[kind]:,} {what}{'' if counts[kind] == 1 else 's'}"
        for kind, what in (("victim", "victim"), ("source", "source"), ("flow", "rule"))
        if counts[kind]
    )
    text = Text(f"upstream: {said or 'nothing'} announced", "bold" if said else "")
    if upstream["wanted"] > sum(counts.values()):
        text.append(f", {upstream['wanted'] - sum(counts.values()):,} wait", "yellow")
    if upstream["refused"]:
        text.append(f", {upstream['refused']:,} refused", "bold red")
    if upstream["link_load"] is not None:
        text.append(f"; the line carries {upstream['link_load']:.0%} of what it can")
    flowspec = upstream["flowspec"]
    if flowspec and flowspec["reason"]:
        text.append(f"\n          no FlowSpec rules: {flowspec['reason']}", "yellow")
    elif flowspec and counts["flow"] and not flowspec["sessions"]:
        text.append("\n          no session with a router is up: no FlowSpec rule arrives", "bold red")
    return text


def _log(log: Mapping[str, Any]) -> Text:
    """What became of log lines; losses in red."""
    if not log["destinations"]:
        return Text("no log is written")
    text = Text(f"log: {log['lines']:,} lines to {', '.join(each['to'] for each in log['destinations'])}")
    lost = log["lines_lost"] + log["ring_lines_lost"]
    text.append(f", {lost:,} lost", "bold red" if lost else "")
    if log["sampled"]:
        text.append(f", {log['sampled']:,} of requests that passed left out (sample_pass)")
    return text


def _mandates(status: Mapping[str, Any]) -> str:
    return (
        "; ".join(
            f"mandate {each['id']} (serial {each['serial']}, until {each['expires']}"
            f"{'' if each['signed'] else ', unsigned'}{', expired' if each['expired'] else ''})"
            for each in status["mandates"]
        )
        or "no mandate"
    )


def act_line(act: Mapping[str, Any]) -> str:
    """Time and message of a record; all of it where it has no message. Nothing in it can steer a terminal."""
    message = act.get("message") or msgspec.json.encode(act).decode()
    line = f"{str(act.get('@timestamp', ''))[:19]} {message}".strip()
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


def show_blocks(console: Console, answer: Mapping[str, Any]) -> None:
    """Blocks in force; the gateway lists the latest of very many."""
    count, listed = answer["count"], answer["blocks"]
    if listed:
        table = _table("source", "areas", "clause", "left", "hits", "case")
        for column in table.columns[1:3]:
            column.justify = "left"
        for block in listed:
            cells = (block["source"], ", ".join(block["areas"]), block["rule"])
            hits, case = f"{block['hits']:,}", block["case"]
            table.add_row(*map(Text, cells), _left(block["ttl_left_s"]), hits, case)
        _print_whole(console, table)
    more = f", the latest {len(listed):,} of them here" if count > len(listed) else ""
    console.print(Text(f"{_count_of_blocks(count)} in force{more}"))


def _count_of_blocks(count: int) -> str:
    return f"{count:,} block{'' if count == 1 else 's'}"


def _left(seconds: float) -> str:
    """As in "2h 05m", "9m 58s"."""
    whole = max(round(seconds), 0)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {whole % 60:02}s" if minutes else f"{whole}s"


def act_text(answer: Mapping[str, Any]) -> Text:
    """What a block or unblock did."""
    text = Text(f"{answer['did']} {answer['source']}", "bold")
    if answer.get("ttl_s"):
        text.append(f" for {format_duration(round(answer['ttl_s'] * NS_PER_S))}")
    if answer.get("rule"):
        text.append(f" under {answer['rule']}")
    if answer.get("areas"):
        text.append(f" in {', '.join(answer['areas'])}")
    if answer.get("case"):
        text.append(f", case {answer['case']}")
    return text


def show_blackholes(console: Console, answer: Mapping[str, Any]) -> None:
    """What is wanted upstream."""
    listed = answer["blackholes"]
    if listed:
        table = _table("kind", "what", "action", "clause", "left", "state")
        for column in table.columns[1:4]:
            column.justify = "left"
        for each in listed:
            state = Text(each["state"], "" if each["state"] == "announced" else "bold red")
            action = each["action"] if each["action"] == "discard" else f"{each['action']:,} B/s"
            cells = (each["target"], action, each["rule"])
            table.add_row(each["kind"], *map(Text, cells), _left(each["ttl_left_s"]), state)
        _print_whole(console, table)
    console.print(Text(f"{answer['count']:,} wanted upstream"))


def announced_text(answer: Mapping[str, Any]) -> Text:
    """What became of an order about routers upstream."""
    text = Text(f"{answer['did']} {answer['kind']} {answer['target']}", "bold")
    if answer.get("ttl_s"):
        text.append(f" for {format_duration(round(answer['ttl_s'] * NS_PER_S))} under {answer['rule']}")
    return text


def show_reload(console: Console, answer: Mapping[str, Any]) -> None:
    """The new generation; warnings first."""
    problems = [msgspec.convert(each, Problem) for each in answer["problems"]]
    for problem in problems:
        console.print(problem_text(problem))
    console.print(
        Text(f"reloaded: policy {answer['generation']} in force in {answer['workers']} workers, {count_text(problems)}")
    )
