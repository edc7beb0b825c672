# One translation unit: every concept is a .pxd + .pyx pair, included in the order of dependence.
include "base.pxd"
include "capacity.pxd"
include "address.pxd"
include "prefixes.pxd"
