"""The core in this process, over a policy and shared memory as a gateway makes them: what needs no network."""

from __future__ import annotations

import tempfile
from pathlib import Path

from bench.macro.load import Ask
from bench.macro.systems import CLEAN, DEFAULTS, fill
from scrubber import _native
from scrubber.mandate.compile import compile_policy
from scrubber.mandate.load import load_all
from scrubber.mandate.slots import assign_area_ids
from scrubber.server import images
from scrubber.server.start import make_memory

HEAD = Ask((), 1, kept=True).request()  # a browser's


def judge(mandate: Path) -> _native.ProbeJudge:
    """A judge of that mandate over tables of the default sizes, behind `clean`'s gateway."""
    values = {"PORT": 8080, "ORIGIN": 8000, **DEFAULTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        gateway = fill((CLEAN / "scrubber.toml").read_text(encoding="utf-8"), values)
        (folder / "scrubber.toml").write_text(gateway, encoding="utf-8")
        (folder / "mandate.toml").write_text(mandate.read_text(encoding="utf-8"), encoding="utf-8")
        loaded = load_all(folder / "scrubber.toml")
    compiled = compile_policy(
        loaded.gateway, loaded.mandates, generation=1, area_ids=assign_area_ids(loaded.gateway, {}), machine=()
    )
    image, prefixes = images.seal(compiled.image, compiled.prefix_images)
    policy = _native.Policy(image, prefixes)
    images.close([image, *prefixes])
    regions, _ = make_memory(loaded.gateway, {}, b"sixteen bytes...")
    memory = _native.Memory(regions, 0)
    images.close(list(regions.values()))
    return _native.ProbeJudge(memory, policy)
