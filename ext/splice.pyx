# Splice: see splice.pxd. Owns the worker's pipes. Invariants: an exchange has a pipe only while that holds bytes; nothing is spliced into
# a pipe that is not empty, so a way holds one window at most, and EAGAIN says which socket it is; the last SPLICE_LEFT_MIN bytes of a body
# by Content-Length are copied, so a body never ends inside a pipe; a pipe with bytes left over is closed and replaced, never reused.
cdef extern from *:
    """
    #include <fcntl.h>
    #include <signal.h>
    /* Bytes that the pipe holds, -1: there is none to be had. */
    static inline int scrubber_pipe(int fds[2], int bytes) {
        if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) < 0) return -1;
        int got = fcntl(fds[1], F_SETPIPE_SZ, bytes);
        return got < 0 ? fcntl(fds[1], F_GETPIPE_SZ) : got;
    }
    static inline ssize_t scrubber_splice(int from, int to, size_t n) {
        return splice(from, NULL, to, NULL, n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    }
    /* splice() knows no MSG_NOSIGNAL. */
    static inline void scrubber_no_sigpipe(void) {
        struct sigaction now;
        if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL) signal(SIGPIPE, SIG_IGN);
    }
    """
    int scrubber_pipe(int* fds, int nbytes) noexcept nogil
    ssize_t scrubber_splice(int source, int sink, size_t n) noexcept nogil
    void scrubber_no_sigpipe() noexcept nogil


cdef bint pipe_make(Pipe* p) noexcept nogil:
    """A pipe that is large enough to pay; an unprivileged user gets only so many of them."""
    cdef int fds[2]
    cdef int size = scrubber_pipe(fds, RELAY_BYTES)
    p.fds[0] = -1
    p.fds[1] = -1
    if size < 0:
        return False
    if size < PIPE_BYTES_MIN:
        close(fds[0])
        close(fds[1])
        return False
    p.fds[0] = fds[0]
    p.fds[1] = fds[1]
    p.size = <uint32_t>size
    return True


cdef void pipe_unmake(Pipe* p) noexcept nogil:
    if p.fds[0] >= 0:
        close(p.fds[0])
        close(p.fds[1])
    p.fds[0] = -1
    p.fds[1] = -1


cdef void pipes_open(Core* e) noexcept nogil:
    cdef uint32_t i
    scrubber_no_sigpipe()
    e.pipe_count = 0
    for i in range(PIPES_MAX):
        if not pipe_make(&e.pipes[i]):
            return
        e.pipe_count += 1


cdef void pipes_close(Core* e) noexcept nogil:
    cdef uint32_t i
    for i in range(e.pipe_count):
        pipe_unmake(&e.pipes[i])
    e.pipe_count = 0


cdef uint32_t pipes_taken(Core* e) noexcept nogil:
    cdef uint32_t i, n = 0
    for i in range(e.pipe_count):
        n += e.pipes[i].taken
    return n


cdef Pipe* pipe_take(Core* e) noexcept nogil:
    cdef uint32_t i
    for i in range(e.pipe_count):
        # One that could not be replaced before is tried again.
        if not e.pipes[i].taken and (e.pipes[i].fds[0] >= 0 or pipe_make(&e.pipes[i])):
            e.pipes[i].taken = 1
            e.pipes[i].held = 0
            return &e.pipes[i]
    return NULL


cdef void pipe_give(Pipe* p) noexcept nogil:
    if p.held:
        pipe_unmake(p)
        pipe_make(p)
    p.held = 0
    p.taken = 0


cdef void pipes_drop(Core* e, Exchange* x) noexcept nogil:
    if x.pipe_down != NULL:
        pipe_give(x.pipe_down)
        x.pipe_down = NULL
    if x.pipe_up != NULL:
        pipe_give(x.pipe_up)
        x.pipe_up = NULL


cdef int pipe_out(Pipe* p, int fd, uint64_t* taken) noexcept nogil:
    """What the pipe holds, until it is empty or the socket says that it is full: a short splice says nothing. As queue_flush."""
    cdef ssize_t n
    while p.held:
        n = scrubber_splice(p.fds[0], fd, p.held)
        if n < 0 and scrubber_errno() == EINTR:
            continue
        if n <= 0:
            return 0 if n < 0 and scrubber_errno() == EAGAIN else -1
        p.held -= <uint32_t>n
        taken[0] += <uint64_t>n
    return 1


cdef ssize_t pipe_in(Pipe* p, int fd, uint64_t ask) noexcept nogil:
    """As recv."""
    cdef ssize_t n = scrubber_splice(fd, p.fds[1], ask if ask < p.size else p.size)
    if n > 0:
        p.held = <uint32_t>n
    return n


# --- answers -----------------------------------------------------------------------------------------------------------------------------

cdef bint splice_down_fits(Core* e, const Exchange* x) noexcept nogil:
    # A window at its full size: the client keeps up. Chunks are framed by us, and so are copied.
    # What is being kept is copied as well.
    return (x.area.flags & AREA_SPLICE and not x.cache.filling and x.window == RELAY_BYTES and e.pipe_count > 0
            and x.client.out.head == NULL and client_plain(x.client) and origin_plain(x.origin)
            and (x.response_body == BODY_LENGTH and x.response_left > SPLICE_LEFT_MIN + RELAY_BYTES
                 or x.response_body == BODY_CLOSE and not x.client_chunked))


cdef int pipe_down_flush(Core* e, Exchange* x) noexcept nogil:
    cdef Client* c = x.client
    cdef uint64_t taken = 0
    cdef int result
    if not c.h.events & EVENT_WRITE:
        client_blocked(e, c)
        return 0
    result = pipe_out(x.pipe_down, c.h.fd, &taken)
    c.blocked_bytes += taken
    if result == 1:
        c.blocked_ns = 0
        pipe_give(x.pipe_down)
        x.pipe_down = NULL
    elif result == 0:
        client_blocked(e, c)
    else:
        client_close(e, c, True)
    return result


cdef int64_t splice_down(Core* e, Exchange* x) noexcept nogil:
    cdef Origin* o = x.origin
    cdef Pipe* p = pipe_take(e)
    cdef uint64_t ask = x.window
    cdef ssize_t got
    if p == NULL:
        return SPLICE_NONE
    if x.response_body == BODY_LENGTH and ask > x.response_left - SPLICE_LEFT_MIN:
        ask = x.response_left - SPLICE_LEFT_MIN
    got = pipe_in(p, o.h.fd, ask)
    if got <= 0:
        pipe_give(p)
        if got < 0 and scrubber_errno() == EINVAL:
            return SPLICE_NONE      # a kind of socket that cannot
        return body_unread(e, x, got)
    x.pipe_down = p
    o.activity_ns = e.now_ns
    x.bytes_out += <uint64_t>got
    if x.response_body == BODY_LENGTH:
        x.response_left -= <uint64_t>got
    e.totals.bytes_spliced += <uint64_t>got
    return got if pipe_down_flush(e, x) >= 0 else 0


# --- requests ----------------------------------------------------------------------------------------------------------------------------

cdef bint splice_up_fits(Core* e, const Exchange* x) noexcept nogil:
    return (x.area.flags & AREA_SPLICE and e.pipe_count > 0 and x.request_body == BODY_LENGTH
            and x.request_left > SPLICE_LEFT_MIN + RELAY_BYTES and x.client.inbox == NULL
            and client_plain(x.client) and origin_plain(x.origin))


cdef int pipe_up_flush(Core* e, Exchange* x) noexcept nogil:
    cdef Origin* o = x.origin
    cdef uint64_t taken = 0
    cdef int result
    if not o.h.events & EVENT_WRITE:
        return 0
    result = pipe_out(x.pipe_up, o.h.fd, &taken)
    if taken:
        o.activity_ns = e.now_ns
    if result == 0:
        o.h.events &= <uint8_t>~EVENT_WRITE
        return 0
    if result < 0:
        write_failed(o)
    pipe_give(x.pipe_up)
    x.pipe_up = NULL
    if result < 0:
        request_stop(e, x)
    return result


cdef int splice_up(Core* e, Exchange* x) noexcept nogil:
    cdef Client* c = x.client
    cdef Pipe* p
    cdef ssize_t got
    cdef uint64_t ask = x.request_left - SPLICE_LEFT_MIN
    if not c.h.events & EVENT_READ:
        return 0
    p = pipe_take(e)
    if p == NULL:
        return SPLICE_NONE
    got = pipe_in(p, c.h.fd, ask if ask < RELAY_BYTES else RELAY_BYTES)
    if got <= 0:
        pipe_give(p)
        if got < 0 and scrubber_errno() == EINVAL:
            return SPLICE_NONE
        if got < 0:
            c.h.events &= <uint8_t>~EVENT_READ
        return client_read_failed(e, c, got)
    x.pipe_up = p
    x.request_left -= <uint64_t>got
    x.bytes_in += <uint64_t>got
    x.rate_bytes += <uint64_t>got
    e.totals.bytes_spliced += <uint64_t>got
    return -1 if pipe_up_flush(e, x) < 0 else 1
