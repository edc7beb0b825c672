"""Commands for a running gateway: status, blocks, block, unblock, drain, undrain, reload, purge, reopen, upgrade. They
reach it over its Unix socket.

Owns: how the gateway is found, and how its answers look.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.text import Text

from scrubber.cli import output, screen
from scrubber.config.gateway import Admin, default_state_dir, read_gateway, read_toml
from scrubber.config.walk import Report
from scrubber.errors import FilesRefused, ValueRefused
from scrubber.units import NS_PER_S, parse_duration_ns

F = TypeVar("F", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """A duration with its unit; seconds inside."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration_ns(value) / NS_PER_S
        except ValueRefused as error:
            self.fail(f"{error.message}: write {error.expected}", param, ctx)


def to_gateway(command: F) -> F:
    """Adds the options that say which gateway is meant."""
    named = click.option(
        "--gateway",
        type=click.Path(path_type=Path),
        envvar="SCRUBBER_GATEWAY",
        help="Its gateway file.",
        metavar="FILE",
    )
    socket = click.option(
        "--socket", type=click.Path(path_type=Path), envvar="SCRUBBER_SOCKET", help="Its admin socket.", metavar="PATH"
    )
    return named(socket(output.json_option("The answer as JSON.")(command)))


def ask(
    gateway: Path | None, socket: Path | None, method: str, path: str, *, body: object = None, **params: str
) -> dict[str, Any]:
    """One request to the gateway that is meant: by file, by socket, or the one in the default place."""
    from scrubber.admin import client  # noqa: PLC0415 - aiohttp takes a moment to import

    if socket is not None:
        admin = Admin(str(socket.absolute()))
    elif gateway is not None:
        admin = admin_of(gateway)
    else:
        admin = Admin(f"{default_state_dir()}/admin.sock")
    return client.call(admin.socket, admin.token_file, method, path, body=body, params=params or None)


def admin_of(gateway: Path) -> Admin:
    """Where the gateway of this file is reached. What else is wrong with the file is for the gateway to say."""
    report = Report(str(gateway))
    tree = read_toml(gateway, report)
    found = read_gateway(tree, gateway, report) if tree is not None else None
    if found is None or report.spoiled("admin", "state_dir"):
        raise FilesRefused(report.problems)
    return found.admin


@click.command()
@to_gateway
def status(gateway: Path | None, socket: Path | None, as_json: bool) -> None:
    """Do people get through? And what is happening."""
    answer = ask(gateway, socket, "GET", "/v1/status")
    if as_json:
        output.say_json(answer)
    else:
        screen.show_status(output.stdout(), answer)


@click.command()
@to_gateway
def blocks(gateway: Path | None, socket: Path | None, as_json: bool) -> None:
    """Who is blocked, where, under which clause and for how long yet; the latest first."""
    answer = ask(gateway, socket, "GET", "/v1/blocks")
    if as_json:
        output.say_json(answer)
    else:
        screen.show_blocks(output.stdout(), answer)


@click.command()
@click.argument("source")
@click.option("--for", "ttl_s", type=Duration(), default="10m", show_default=True, help="How long.", metavar="DURATION")
@click.option("--reason", required=True, help="Why: it goes on the record.")
@click.option("--area", default="", help="Bind this area only.")
@to_gateway
def block(
    *, source: str, ttl_s: float, reason: str, area: str, gateway: Path | None, socket: Path | None, as_json: bool
) -> None:
    """Block SOURCE (an address or a prefix) for a time, under a clause of a mandate."""
    order = {"source": source, "ttl_s": ttl_s, "reason": reason, "area": area}
    answer = ask(gateway, socket, "POST", "/v1/blocks", body=order)
    if as_json:
        output.say_json(answer)
    else:
        output.stdout().print(screen.act_text(answer))


@click.command()
@click.argument("source")
@click.option("--reason", default="", help="Why: it goes on the record.")
@to_gateway
def unblock(source: str, reason: str, gateway: Path | None, socket: Path | None, as_json: bool) -> None:
    """Lift the block of SOURCE."""
    answer = ask(gateway, socket, "DELETE", "/v1/blocks", source=source, reason=reason)
    if as_json:
        output.say_json(answer)
    else:
        output.stdout().print(screen.act_text(answer))


@click.command()
@click.argument("target")
@click.option("--area", default="", help="An origin of this area only.")
@click.option("--reason", default="", help="Why: it goes on the record.")
@to_gateway
def drain(target: str, area: str, reason: str, gateway: Path | None, socket: Path | None, as_json: bool) -> None:  # noqa: PLR0917
    """Take no new requests for TARGET, an origin (its address) or an area; those in flight end."""
    order_drain(gateway, socket, {"target": target, "drained": True, "area": area, "reason": reason}, as_json=as_json)


@click.command()
@click.argument("target")
@click.option("--area", default="", help="An origin of this area only.")
@click.option("--reason", default="", help="Why: it goes on the record.")
@to_gateway
def undrain(target: str, area: str, reason: str, gateway: Path | None, socket: Path | None, as_json: bool) -> None:  # noqa: PLR0917
    """Take requests for TARGET again."""
    order_drain(gateway, socket, {"target": target, "drained": False, "area": area, "reason": reason}, as_json=as_json)


def order_drain(gateway: Path | None, socket: Path | None, order: dict[str, Any], *, as_json: bool) -> None:
    """Send it, and say what was done."""
    answer = ask(gateway, socket, "POST", "/v1/drain", body=order)
    if as_json:
        output.say_json(answer)
    else:
        what = ", ".join(answer["origins"]) or f"area {answer['target']}"
        output.stdout().print(Text(f"{answer['did']} {what}"))


@click.command()
@to_gateway
def reopen(gateway: Path | None, socket: Path | None, as_json: bool) -> None:
    """Open log files anew, after they were moved away. (SIGUSR1 to the keeper does the same.)"""
    answer = ask(gateway, socket, "POST", "/v1/reopen")
    if as_json:
        output.say_json(answer)
    else:
        output.stdout().print(f"opened anew: {', '.join(answer['reopened']) or 'nothing to open'}", markup=False)


@click.command()
@click.argument("url", default="")
@click.option("--area", default="", help="Of this area only; without URL all of it.")
@to_gateway
def purge(*, url: str, area: str, gateway: Path | None, socket: Path | None, as_json: bool) -> None:
    """Forget what the cache keeps of URL, or of an area."""
    if not url and not area:
        raise click.UsageError("say what: a URL, or --area NAME")
    answer = ask(gateway, socket, "POST", "/v1/purge", body={"url": url, "area": area})
    if as_json:
        output.say_json(answer)
    else:
        counted = f", {count_text_of(answer['found'])}" if url else ""
        output.stdout().print(f"purged {answer['what']}{counted}", markup=False)


def count_text_of(found: int) -> str:
    """As in "1 answer", "no answers"."""
    return f"{found or 'no'} answer{'' if found == 1 else 's'}"


@click.command()
@to_gateway
def reload(gateway: Path | None, socket: Path | None, as_json: bool) -> None:
    """Read gateway file and mandates again. Where anything is wrong, nothing changes."""
    answer = ask(gateway, socket, "POST", "/v1/reload")
    if as_json:
        output.say_json(answer)
    else:
        screen.show_reload(output.stdout(), answer)


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False, metavar="[GATEWAY.toml]")
@to_gateway
def upgrade(*, file: Path | None, gateway: Path | None, socket: Path | None, as_json: bool) -> None:
    """Let the installed program take over from the running one, without a failed request.

    It reads gateway file and mandates anew; limits, blocks and known clients go on. Where it does not come up, nothing
    changes. (SIGUSR2 to the keeper does the same.)
    """
    answer = ask(gateway or file, socket, "POST", "/v1/upgrade")
    if as_json:
        output.say_json(answer)
    else:
        output.stdout().print(f"upgraded: the keeper is process {answer['pid']} now", highlight=False)
