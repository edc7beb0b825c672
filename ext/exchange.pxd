# One request and its answer (steps 7 and 8): relaying both ways with backpressure, and the account at the end, whatever the end was.
# Move what can be moved. True: the exchange is over and the client may send the next request; False: waiting, or the client is closed.
cdef bint exchange_pump(Core* e, Client* c) noexcept nogil
# Step 8: the one place where an exchange ends. Counters, charges, access line; the origin connection is given back or closed.
cdef void exchange_end(Core* e, Exchange* x) noexcept nogil
# The request's body, as far as client and origin go along.
cdef void request_pump(Core* e, Exchange* x) noexcept nogil
# The origin's answer, as far as origin and client go along.
cdef void response_pump(Core* e, Exchange* x) noexcept nogil
# Buffers are short: the handle is looked at again at the next tick.
cdef void starve(Core* e, Handle* h) noexcept nogil
cdef void starved_wake(Core* e) noexcept nogil
