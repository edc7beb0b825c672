"""`scrubber enforce`: what an operator does for the enforcer beside the gateway."""

from __future__ import annotations

from pathlib import Path

import click

from scrubber.cli import output
from scrubber.errors import FilesRefused, OperatorError


@click.group()
def enforce() -> None:
    """What is to be done for blocks to go further than this machine."""


@enforce.command("bird-config")
@click.argument("gateway", type=click.Path(path_type=Path), metavar="GATEWAY.toml")
def bird_config(gateway: Path) -> None:
    """Print the BIRD 2 configuration that announces this gateway's blackholes (docs/upstream.md)."""
    from scrubber.config.gateway import load_gateway  # noqa: PLC0415 - see check
    from scrubber.enforce import bird_config as bird  # noqa: PLC0415
    from scrubber.enforce.announce import SOURCES_TABLE, VICTIMS_TABLE  # noqa: PLC0415
    from scrubber.enforce.net import net_of  # noqa: PLC0415

    found, problems = load_gateway(gateway)
    if found is None:
        raise FilesRefused(problems)
    if found.enforcer is None or found.enforcer.upstream is None:
        hint = "configs/upstream.toml has an example; docs/upstream.md says what it is for"
        raise OperatorError(f"{gateway} has no [enforcer.upstream]", hint=hint)
    upstream = found.enforcer.upstream
    community = upstream.source_community
    side = bird.Side(
        router_id=upstream.router_id,
        asn=upstream.asn,
        protects=tuple(net_of(text) for text in found.enforcer.protects),
        neighbours=tuple(
            bird.Neighbour(each.address, each.asn, each.local_address, each.multihop, each.password, each.next_hop)
            for each in upstream.neighbours
        ),
        victims_table=VICTIMS_TABLE,
        sources_table=SOURCES_TABLE,
        source_community=bird.community(community) if community else None,
        announced_max=upstream.announcements_max,
    )
    output.stdout().file.write(bird.bird_config(side))
