# Requests that wait for a place at an origin: a queue a pool, and one an origin where no other may serve (hashing). Known clients first.
cdef void wait_leave(Core* e, Exchange* x) noexcept nogil
# A place in the queue: `q`, at its front or its end. False: it is full; a newcomer makes room for a known client.
cdef bint wait_join(Core* e, Exchange* x, WaitQueue* q, bint front) noexcept nogil
# A place at this origin came free: the first one waiting is promised it, and looked at in this pass or the next.
cdef void wait_serve(Core* e, uint16_t origin_id) noexcept nogil
# This origin may have more places than before: all of them go to those who wait.
cdef void wait_fill(Core* e, uint16_t origin_id) noexcept nogil
# Still waiting: is there a place by now?
cdef void wait_again(Core* e, Exchange* x) noexcept nogil
# The promise is kept or given up.
cdef void promise_end(Core* e, Exchange* x) noexcept nogil
