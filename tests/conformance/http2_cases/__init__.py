"""h2spec 2.6.0's cases for servers: which there are, what each sends and what it accepts is h2spec's, read in its
source; the code is ours, and RFC 9113 (7540 where h2spec keeps to it) and RFC 7541 decide where they differ.

h2spec counts 146 when it is run without --strict; there is one more that it asks with it, http2/5.4.1/2. Both are
here, so there are 147. Ids are h2spec's. What differs from it, and how:

- An answer to a request that has to be taken must be a 200; h2spec takes any status (but in http2/6.10/1, whose 8 KB of
  headers a server may find too many).
- http2/4.2/3 sends a HEADERS frame larger than whatever the server announced, hpack/6.3/1 likewise; http2/4.2/1 always
  2^14 bytes.
- http2/8.1.2.3/2 leaves out :method alone; h2spec leaves out :scheme with it.
- http2/3.5/2 takes any end of the connection: RFC 9113 3.4 lets the GOAWAY be left out. (h2spec fails a server that
  answers in HTTP/1.1 text before it closes.)
- Where h2spec would skip (a body shorter than 5 bytes) the case fails; only http2/5.1.2/1 skips, without a limit.
"""

from tests.conformance.http2_cases import compression, connection, flow, frames, generic, messages
from tests.conformance.http2_cases.registry import CASES, Case, Outcome, run, run_all

COUNTS = {"generic": 44, "http2": 95, "hpack": 8}

__all__ = [
    "CASES", "COUNTS", "Case", "Outcome", "compression", "connection", "flow", "frames", "generic", "messages", "run",
    "run_all",
]  # fmt: skip
