"""Commands for what a running gateway asks of its provider's routers: blackhole, flow, withdraw, blackholes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scrubber.cli import output, screen
from scrubber.cli.remote import Duration, ask, to_gateway

FOR = click.option(
    "--for", "ttl_s", type=Duration(), default="10m", show_default=True, help="How long.", metavar="DURATION"
)
REASON = click.option("--reason", required=True, help="Why: it goes on the record.")
LOSS = click.option("--loss", default="", help="What is lost with it, where it is one of ours.")


def _say(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.say_json(answer)
    else:
        output.stdout().print(screen.announced_text(answer))


@click.command()
@click.argument("net")
@FOR
@REASON
@LOSS
@to_gateway
def blackhole(
    *, net: str, ttl_s: float, reason: str, loss: str, gateway: Path | None, socket: Path | None, as_json: bool
) -> None:
    """Have the provider's routers drop what comes from NET or, where it is one of ours, all that goes there.

    Giving up an address of ours completes the attack on it, for the others' sake: say what is lost with it.
    """
    order = {"net": net, "ttl_s": ttl_s, "reason": reason, "loss": loss}
    _say(ask(gateway, socket, "POST", "/v1/blackholes", body=order), as_json=as_json)


@click.command()
@click.argument("destination")
@click.option("--from", "source", default="", help="Packets from there only.", metavar="PREFIX")
@click.option("--protocol", "protocols", type=int, multiple=True, help="As 17, UDP.", metavar="NUMBER")
@click.option("--source-port", "source_ports", multiple=True, help='As "53" or "1024-65535".', metavar="RANGE")
@click.option("--port", "destination_ports", multiple=True, help="Where they go to.", metavar="RANGE")
@click.option("--length", "packet_lengths", multiple=True, help="Of whole packets, in bytes.", metavar="RANGE")
@click.option("--rate", default="discard", help='What may pass, as "1MB/s"; without it nothing.', metavar="RATE")
@FOR
@REASON
@LOSS
@to_gateway
def flow(*, gateway: Path | None, socket: Path | None, as_json: bool, rate: str, **order: Any) -> None:
    """Have the provider's routers drop or slow down packets to DESTINATION, one or more of ours (FlowSpec)."""
    _say(ask(gateway, socket, "POST", "/v1/flows", body={**order, "action": rate}), as_json=as_json)


@click.command()
@click.argument("target")
@click.option("--reason", default="", help="Why: it goes on the record.")
@to_gateway
def withdraw(*, target: str, reason: str, gateway: Path | None, socket: Path | None, as_json: bool) -> None:
    """Take back what was announced of TARGET: a network, or a rule as `scrubber blackholes` writes it."""
    _say(ask(gateway, socket, "DELETE", "/v1/blackholes", target=target, reason=reason), as_json=as_json)


@click.command()
@to_gateway
def blackholes(gateway: Path | None, socket: Path | None, as_json: bool) -> None:
    """What is wanted of the provider's routers, under which clause, and for how long yet; the latest first."""
    answer = ask(gateway, socket, "GET", "/v1/blackholes")
    if as_json:
        output.say_json(answer)
    else:
        screen.show_blackholes(output.stdout(), answer)
