"""The successor's beginning: `python -m scrubber.server.upgrade FD`, started by the keeper that it is to succeed.

Reads the files as `scrubber run` does, takes over what was handed to it, and becomes a keeper. Owns: what of the former
gateway goes on. Memory of our own layout does, as it is; of another, the blocks do, and which mandates were accepted:
the former supervisor writes them out, and blocks are put into the new table for what is left of their time. Invariant:
whatever is refused here leaves the former gateway as it was.
"""

from __future__ import annotations

import sys

import msgspec

from scrubber import _native
from scrubber.control.policy import PolicyInForce, from_image
from scrubber.control.saved import Pages, SavedBlock
from scrubber.errors import FilesRefused, OperatorError, PolicyRefused, ScrubberError
from scrubber.mandate.layout import LAYOUT_VERSION
from scrubber.mandate.listeners import Listeners
from scrubber.mandate.load import load_all
from scrubber.mandate.serials import Accepted, rolled_back
from scrubber.mandate.slots import Slots
from scrubber.server import log, memfd, start
from scrubber.server.channel import Channel, ChannelError
from scrubber.server.handover import Handover
from scrubber.server.plan import Plan

EXPORT_WAIT_S = 10.0


class Exported(msgspec.Struct, frozen=True):
    """What survives a change of layout."""

    area_ids: dict[str, int]
    blocks: list[SavedBlock]
    accepted: tuple[Accepted, ...] = ()


def succeed(handover: Handover, channel: Channel) -> Plan:
    """The plan of the new keeper. ScrubberError."""
    loaded = load_all(handover.gateway_file)
    if loaded.gateway.admin.socket != handover.admin_socket:
        hint = f"it is {handover.admin_socket}: stop the gateway and start it again to change state_dir or admin.socket"
        raise OperatorError("an upgrade keeps the admin socket", hint=hint)
    exported: Exported | None = None
    if start.layout_of(handover.regions["control"]) == LAYOUT_VERSION:
        former = _former(handover)
    else:
        exported = ask_exported(channel)
        former = start.Former(handover, exported.area_ids, Slots(), exported.accepted)
    if reasons := rolled_back(former.accepted, loaded.mandates):
        raise FilesRefused([*reasons, *loaded.problems])
    plan = start.prepare(loaded, former)
    if loaded.gateway.enforcer is not None and "enforcer" not in plan.roles:
        log.setup("upgrade").warning("%s", start.enforcer_notice(loaded.gateway))
    if plan.regions["blocks"] != handover.regions["blocks"]:
        blocks = (exported or ask_exported(channel)).blocks
        policy = from_image(memfd.read_all(plan.policy))
        plan.settings["restored"] = start.put_back(plan.regions, (plan.policy, plan.prefixes), policy, blocks).text()
    return plan


def _former(handover: Handover) -> start.Former:
    try:
        found = from_image(memfd.read_all(handover.policy))
    except PolicyRefused as error:
        hint = "stop the gateway and start it again"
        raise OperatorError(f"the policy in force is not understood ({error.message})", hint=hint) from None
    # Listeners are numbered anew: what is gone belongs to the workers that end.
    slots = msgspec.structs.replace(found.slots, listeners=Listeners())
    return start.Former(handover, found.area_ids, slots, found.accepted)


def ask_exported(channel: Channel) -> Exported:
    """Nothing, where the former supervisor does not answer."""
    try:
        channel.send({"type": "export"})
        received = channel.wait(EXPORT_WAIT_S)
        if received.type == "exported" and received.fds:
            return msgspec.json.decode(memfd.read_all(received.fds[0]), type=Exported)
    except (ChannelError, msgspec.MsgspecError) as error:
        log.setup("upgrade").error("blocks and accepted serials cannot be taken over: %s", error)
    return Exported({}, [])


def export(memory: _native.Memory, policy: PolicyInForce) -> bytes:
    """The other side of it, for the supervisor that goes."""
    pages = Pages(memory)
    pages.use(policy)
    blocks = [block for page in pages.pages(changed=False) for block in page]
    return msgspec.json.encode(Exported(policy.area_ids, blocks, policy.accepted))


def main(argv: list[str]) -> int:
    """FD being the handover's."""
    log.setup("upgrade")
    try:
        handover = Handover.from_fd(int(argv[-1]))
        channel = Channel.from_fd(handover.channel)
    except (OSError, ValueError, IndexError, TypeError) as error:
        sys.stderr.write(f"scrubber: this is started by a keeper only ({error})\nTry: scrubber upgrade\n")
        return 2
    try:
        plan = succeed(handover, channel)
    except ScrubberError as error:
        problems = [msgspec.to_builtins(each) for each in error.problems] if isinstance(error, FilesRefused) else []
        refusal = {"type": "refused", "message": error.message, "hint": error.hint, "problems": problems[:50]}
        channel.send(refusal)
        return 1
    start.become_keeper(plan)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
