"""The command line: click and rich. `main` is the entry point.

Owns: which commands there are. Each is in a module of its own that is imported when it runs, so that `--version` and
completions stay quick.
"""

from __future__ import annotations

import click

from scrubber import __version__
from scrubber.cli.check import check
from scrubber.cli.dev_cert import dev_cert
from scrubber.cli.enforce import enforce
from scrubber.cli.output import Commands
from scrubber.cli.remote import block, blocks, drain, purge, reload, reopen, status, unblock, undrain, upgrade
from scrubber.cli.run import run
from scrubber.cli.upstream import blackhole, blackholes, flow, withdraw

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="scrubber", message="%(prog)s %(version)s")
def main() -> None:
    """A scrubbing gateway: keeps sites reachable under flood, by a mandate, on the record.

    Begin with: scrubber run configs/minimal.toml
    """


REMOTE = (status, blocks, block, unblock, drain, undrain, reload, purge, reopen, upgrade)
UPSTREAM = (blackholes, blackhole, flow, withdraw)
for command in (run, check, *REMOTE, *UPSTREAM, dev_cert, enforce):
    main.add_command(command)
