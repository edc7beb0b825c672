"""One target under libFuzzer: `python -m tests.fuzz.run TARGET [its arguments]`; whoever starts it has preloaded it."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["scrubber"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name, *arguments = sys.argv[1:]
    run = TARGETS[name].run
    again = f"{sys.executable} -m tests.fuzz.run {name}"  # what a merge starts through the shell
    atheris.Setup([again, *arguments], lambda data: run(bytes(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
