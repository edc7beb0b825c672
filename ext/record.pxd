# Access lines: JSON with ECS names, finished here, written to the worker's ring. Traffic never waits for them.
cdef void note_request(Core* e, Client* c, Exchange* x, const Facts* f) noexcept nogil
# For bytes that were no request: only who sent them.
cdef void note_refused(Core* e, Client* c, Exchange* x) noexcept nogil
# What the policy that is now in force says of lines.
cdef void log_update(Core* e) noexcept nogil
cdef void record_access(Core* e, Client* c, Exchange* x) noexcept nogil
