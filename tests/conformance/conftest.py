"""The gateway that the conformance runs go through."""

from tests.e2e.conftest import gateway, origin, origins
from tests.e2e.proxy import proxy

__all__ = ["gateway", "origin", "origins", "proxy"]
