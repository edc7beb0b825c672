# Step 1, accept: the source table answers before anything is taken from a pool.
cdef void listener_step(Core* e, ListenerHandle* l) noexcept nogil
