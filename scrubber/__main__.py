"""`python -m scrubber`: the same as the command `scrubber`."""

from scrubber.cli import main

main(prog_name="scrubber")
