# One translation unit: every concept is a .pxd + .pyx pair, included in the order of dependence.
include "base.pxd"
include "capacity.pxd"
include "atomic.pxd"
include "keyed.pxd"
include "address.pxd"
include "prefixes.pxd"
include "limiter.pxd"
include "ring.pxd"
