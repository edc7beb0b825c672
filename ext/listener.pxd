# Step 1, accept: the source table answers before anything is taken from a pool.
cdef void listener_step(Core* e, ListenerHandle* l) noexcept nogil
cdef bint listener_open(Core* e, int fd, uint32_t index) noexcept nogil
cdef void listener_retire(Core* e, uint32_t index, uint64_t deadline_ns) noexcept nogil
# Whether a connection is to end with its request: everything drains, or its listener is gone.
cdef bint client_leaving(Core* e, const Client* c) noexcept nogil
cdef void drain_step(Core* e) noexcept nogil
cdef void core_drain(Core* e, uint64_t deadline_ns, bint queued) noexcept nogil
