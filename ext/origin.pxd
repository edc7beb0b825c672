# The origin's side: connections, their pool, waiting for one, and what happens when one fails.
# A connection for the exchange: pooled, new, or a place in the queue. Answers the client where there is none.
cdef void origin_acquire(Core* e, Exchange* x) noexcept nogil
# The answer is complete: back into the pool where nothing is left over, else closed. The next one waiting gets it.
cdef void origin_release(Core* e, Origin* o) noexcept nogil
# The exchange has no more use for its connection, whose state is unknown: closed.
cdef void origin_abandon(Core* e, Exchange* x) noexcept nogil
# The connection broke, or closed before its answer: one retry where that is safe, else 502, or the client is cut off.
cdef void origin_failed(Core* e, Origin* o) noexcept nogil
# Bytes that are no answer: 502 where none has begun.
cdef void origin_answer_bad(Core* e, Exchange* x) noexcept nogil
cdef void origin_step(Core* e, Origin* o) noexcept nogil
cdef void origin_timeout(Core* e, Origin* o) noexcept nogil
# As recv, in clear text or through TLS; EVENT_READ is cleared where nothing more is there.
cdef ssize_t origin_recv(Core* e, Origin* o, void* data, uint64_t n) noexcept nogil
cdef bint origin_unsent(const Origin* o) noexcept nogil
# As client_plain.
cdef inline bint origin_plain(const Origin* o) noexcept nogil:
    return o.tls == NULL and o.http2 == NULL
# As queue_flush; on -1 the failure has been handled.
cdef int origin_flush(Core* e, Origin* o) noexcept nogil
# Upgraded: it is no longer one of its origin's connections for requests, and the next one waiting gets the place.
cdef void origin_tunnels(Core* e, Origin* o) noexcept nogil
cdef void origin_close(Core* e, Origin* o) noexcept nogil
cdef void head_drop(Core* e, Exchange* x) noexcept nogil
# After a swap: connections to addresses that are no longer behind an id are not used again.
cdef void origin_pools_update(Core* e) noexcept nogil
# At each tick: nothing is kept open to a drained origin.
cdef void origins_look(Core* e) noexcept nogil
cdef void connect_failure(Core* e, Exchange* x) noexcept nogil
cdef uint64_t earlier(uint64_t a, uint64_t b) noexcept nogil
