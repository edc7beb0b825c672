# Large bodies moved from socket to socket inside the kernel (splice(2)), through pipes that were made at the start.
cdef void pipes_open(Core* e) noexcept nogil
cdef void pipes_close(Core* e) noexcept nogil
# Pipes that hold bytes.
cdef uint32_t pipes_taken(Core* e) noexcept nogil
# Whether what comes next of the answer (request) is worth a pipe, and may go through one.
cdef bint splice_down_fits(Core* e, const Exchange* x) noexcept nogil
cdef bint splice_up_fits(Core* e, const Exchange* x) noexcept nogil
# From the origin towards the client. Bytes moved; 0: waiting, or over; SPLICE_NONE: no pipe to be had, copy.
cdef int64_t splice_down(Core* e, Exchange* x) noexcept nogil
# From the client towards the origin. 1: moved, 0: wait, -1: over, SPLICE_NONE: copy.
cdef int splice_up(Core* e, Exchange* x) noexcept nogil
# What the pipe holds towards its side. 1: drained, 0: the socket is full, -1: broken, and dealt with.
cdef int pipe_down_flush(Core* e, Exchange* x) noexcept nogil
cdef int pipe_up_flush(Core* e, Exchange* x) noexcept nogil
# Whatever the exchange's pipes hold is thrown away.
cdef void pipes_drop(Core* e, Exchange* x) noexcept nogil
