# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False, freethreading_compatible=False
"""The native core of Scrubber: see docs/architecture.md."""
include "keyed.pyx"
include "address.pyx"
include "prefixes.pyx"
include "limiter.pyx"
include "ring.pyx"

include "probe_http.pyx"
include "probe_state.pyx"
