"""`scrubber enforce`: what an operator does for the enforcer beside the gateway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scrubber.cli import output
from scrubber.errors import FilesRefused, OperatorError

if TYPE_CHECKING:
    from scrubber.config.upstream import Upstream


@click.group()
def enforce() -> None:
    """What is to be done for blocks to go further than this machine."""


@enforce.command("bird-config")
@click.argument("gateway", type=click.Path(path_type=Path), metavar="GATEWAY.toml")
@click.option("--provider", is_flag=True, help="What the routers at the other end need instead, one after the other.")
def bird_config(gateway: Path, *, provider: bool) -> None:
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
    if provider:
        output.stdout().file.write("\n".join(_provider_parts(upstream, found.enforcer.protects)))
        return
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


def _provider_parts(upstream: Upstream, protects: Sequence[str]) -> Iterator[str]:
    """For each router that we announce to: the session with us, and the filter of what it takes."""
    from scrubber.enforce import bird_config as bird  # noqa: PLC0415 - see check
    from scrubber.enforce.net import net_of  # noqa: PLC0415

    community = bird.community(upstream.source_community) if upstream.source_community else None
    for each in upstream.neighbours:
        ours = each.local_address or ("" if ":" in each.address else upstream.router_id)
        if not ours:
            hint = "local_address of that neighbour says which of our addresses the session comes from"
            raise OperatorError(f"the router {each.address} cannot be told who we are", hint=hint)
        customer = bird.Neighbour(
            ours, upstream.asn, each.address if each.multihop else "", each.multihop, each.password
        )
        yield f"# of the router {each.address}\n"
        yield bird.provider_config(each.asn, customer, [net_of(text) for text in protects], community)
