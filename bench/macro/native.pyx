# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The bench's load and origin, native so that neither is what is measured. Linux, IPv4 loopback only.

load(): so many connections, each with one request under way, kept or new for every request, as fast as they are answered or at a rate;
or messages on WebSockets. Counts answers by kind and their latency.
serve(): answers every request with the same bytes, and every message of a WebSocket with itself.
Invariants: load() refuses every address outside 127.0.0.0/8; both are bounded (requests and seconds; until stop_fd is readable); every
request that was begun is counted once; at a rate, latency counts from when a request was due; the GIL is not held while they run.
"""
from libc.errno cimport EAGAIN, ECONNREFUSED, EINPROGRESS, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strlen

from bench.macro.native_common cimport (
    AF_INET, BUCKETS, BUFFER_BYTES, CONNECTIONS_MAX, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EVENTS,
    IP_BIND_ADDRESS_NO_PORT, IPPROTO_IP, IPPROTO_TCP, MSG_NOSIGNAL, REQUESTS_MAX, SECONDS_MAX, SOCK_NONBLOCK, SOCK_STREAM, SOURCES_MAX,
    TCP_NODELAY, Head, accept4, bind, bucket_of, clock_ns, close, connect, epoll_create1, epoll_ctl, epoll_event, epoll_pwait2,
    epoll_wait, head_read, htons, loopback4, memmem, percentile_ms, recv, send, setsockopt, sockaddr, sockaddr_in, socket, strncasecmp,
    timespec,
)


cdef struct Connection:
    int fd
    uint8_t status              # first digit of the answer's status; 0: none yet
    uint8_t head_seen
    uint8_t last                # the answer said that the connection ends
    uint8_t busy                # a request is under way
    uint8_t used                # it has answered a request before
    uint8_t tunnel              # a WebSocket now: messages follow
    uint32_t sent
    uint32_t have               # bytes of a head in buffer
    int64_t left                # of the body
    uint64_t since_ns
    uint8_t buffer[BUFFER_BYTES]

cdef struct Load:
    int epoll
    uint32_t target
    uint16_t port
    const uint32_t* sources
    uint32_t source_count
    uint32_t source_next
    const uint8_t* request
    uint32_t request_bytes
    const uint8_t* message      # a frame for each WebSocket again and again, NULL: no WebSockets
    uint32_t message_bytes
    const uint8_t* reply        # what comes back for it
    uint32_t reply_bytes
    bint kept
    uint64_t interval_ns        # at a rate: between two requests. 0: each as soon as the one before it is answered
    uint64_t due_ns             # the next one
    uint64_t retried
    uint64_t busy
    Connection** idle           # a ring of those without a request, at a rate
    uint32_t idle_first
    uint32_t idle_count
    uint32_t count
    uint64_t begun
    uint64_t requests_max
    uint64_t ends_ns
    uint64_t now_ns
    uint64_t open
    uint64_t good
    uint64_t refused
    uint64_t cut
    uint64_t errors
    uint64_t latency[BUCKETS]


cdef void answered(Load* l, Connection* c) noexcept nogil:
    if c.status <= 3:
        l.good += 1
    else:
        l.refused += 1
    l.now_ns = clock_ns()
    l.latency[bucket_of((l.now_ns - c.since_ns) / 1000)] += 1


cdef void broken(Load* l, Connection* c, int error) noexcept nogil:
    """The connection ended before its answer did. Without any answer it was cut, unless there is nobody to cut it."""
    if c.status == 0 and error != ECONNREFUSED:
        l.cut += 1
    else:
        l.errors += 1


cdef bint may_begin(Load* l) noexcept nogil:
    return l.begun < l.requests_max and l.now_ns < l.ends_ns


cdef void fresh(Connection* c) noexcept nogil:
    """Nothing of the request is sent, nothing of its answer has come."""
    c.status = 0
    c.head_seen = 0
    c.last = 0
    c.sent = 0
    c.have = 0
    c.left = 0


cdef void begin(Load* l, Connection* c, uint64_t since_ns) noexcept nogil:
    """The next request's state; its bytes are sent as the socket takes them."""
    l.begun += 1
    l.busy += 1
    c.busy = 1
    c.since_ns = since_ns
    fresh(c)


cdef void shut(Load* l, Connection* c) noexcept nogil:
    if c.fd >= 0:
        close(c.fd)
        c.fd = -1
        l.open -= 1


cdef bint dial(Load* l, Connection* c) noexcept nogil:
    """A new connection from the next source, its connect under way. False: none."""
    cdef sockaddr_in a
    cdef epoll_event e
    cdef int one = 1
    c.used = 0
    c.tunnel = 0
    c.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)
    if c.fd < 0:
        return False
    l.open += 1
    memset(&a, 0, sizeof(a))
    a.sin_family = AF_INET
    a.sin_addr.s_addr = l.sources[l.source_next % l.source_count]
    l.source_next += 1
    setsockopt(c.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one))
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
    if bind(c.fd, <sockaddr*>&a, sizeof(a)) == 0:
        a.sin_addr.s_addr = l.target
        a.sin_port = l.port
        if connect(c.fd, <sockaddr*>&a, sizeof(a)) == 0 or errno == EINPROGRESS:
            e.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
            e.data.u64 = <uint64_t><size_t>c
            epoll_ctl(l.epoll, EPOLL_CTL_ADD, c.fd, &e)
            return True
    # Loopback answers at once: a reset in connect() is the target's, anything else is ours.
    shut(l, c)
    return False


cdef void rest(Load* l, Connection* c) noexcept nogil:
    """At a rate: back among those without a request."""
    l.idle[(l.idle_first + l.idle_count) % l.count] = c
    l.idle_count += 1


cdef void done(Load* l, Connection* c) noexcept nogil:
    """The request that was under way is counted."""
    if c.busy:
        c.busy = 0
        l.busy -= 1


cdef void reopen(Load* l, Connection* c) noexcept nogil:
    """The request has ended and its connection with it: the next one on a new connection, if one is to be made now."""
    cdef int tries = 0
    done(l, c)
    shut(l, c)
    if l.interval_ns:
        rest(l, c)
        return
    while may_begin(l) and tries < 64:
        tries += 1
        begin(l, c, l.now_ns)
        if dial(l, c):
            return
        l.errors += 1
        done(l, c)


cdef void fail(Load* l, Connection* c, int error) noexcept nogil:
    """The connection is over. At a rate, what a kept one did not answer at all is asked once more on a new one, as browsers do."""
    if c.busy and l.interval_ns and c.used and c.status == 0 and c.have == 0:
        l.retried += 1
        shut(l, c)
        fresh(c)
        if dial(l, c):
            return
        error = ECONNREFUSED
    if c.busy:
        broken(l, c, error)
    if l.interval_ns and not c.busy:
        shut(l, c)              # among the idle already: opened when its turn comes
        return
    reopen(l, c)


cdef bint push(Load* l, Connection* c) noexcept nogil:
    """Send what is left of the request, or of the message. False: the connection is broken."""
    cdef const uint8_t* data = l.message if c.tunnel else l.request
    cdef uint32_t nbytes = l.message_bytes if c.tunnel else l.request_bytes
    cdef ssize_t n
    while c.sent < nbytes:
        n = send(c.fd, data + c.sent, nbytes - c.sent, MSG_NOSIGNAL)
        if n < 0:
            return errno == EAGAIN or errno == EINTR
        c.sent += <uint32_t>n
    return True


cdef void next_one(Load* l, Connection* c) noexcept nogil:
    """A whole answer has come, and the connection stays."""
    done(l, c)
    c.used = 1
    if l.interval_ns:
        rest(l, c)
        return
    if not may_begin(l):
        shut(l, c)
        return
    begin(l, c, l.now_ns)
    if not push(l, c):
        fail(l, c, errno)


cdef void whats_due(Load* l) noexcept nogil:
    """At a rate: begin every request that is due, as long as a connection is free for it."""
    cdef Connection* c
    while l.idle_count and l.due_ns <= l.now_ns and may_begin(l):
        c = l.idle[l.idle_first]
        l.idle_first = (l.idle_first + 1) % l.count
        l.idle_count -= 1
        begin(l, c, l.due_ns)
        l.due_ns += l.interval_ns
        if c.fd < 0 and not dial(l, c):
            l.errors += 1
            done(l, c)
            rest(l, c)
        elif not push(l, c):
            fail(l, c, errno)


cdef int head_take(Load* l, Connection* c) noexcept nogil:
    """Read an answer's head from the buffer. 1: read, 0: more to come, -1: not an answer that this tool understands.
    A 101, where WebSockets are asked for, begins the messages."""
    cdef Head head
    cdef int read = head_read(c.buffer, c.have, &head)
    if read <= 0:
        return read
    if l.message != NULL and memcmp(c.buffer + 9, b"101 ", 4) == 0 and c.have == head.nbytes:
        c.tunnel = 1
        c.have = 0
        c.sent = 0
        return 1
    if head.body < 0:
        return -1
    c.status = head.status
    c.last |= head.last
    c.left = head.body - (c.have - head.nbytes)
    c.have = 0
    c.head_seen = 1
    return 1 if c.left >= 0 else -1


cdef bint pull_message(Load* l, Connection* c) noexcept nogil:
    """Read what has come of a reply. False: not the reply, or no connection any more."""
    cdef ssize_t n
    while True:
        n = recv(c.fd, c.buffer + c.have, BUFFER_BYTES - c.have, 0)
        if n < 0 and (errno == EAGAIN or errno == EINTR):
            return True
        if n <= 0:
            return False
        c.have += <uint32_t>n
        if c.have > l.reply_bytes or memcmp(c.buffer, l.reply, c.have) != 0:
            return False
        if c.have == l.reply_bytes:
            c.status = 2
            answered(l, c)
            next_one(l, c)
            return True


cdef void pull(Load* l, Connection* c) noexcept nogil:
    """Read until the socket is empty, the answer complete or the connection over."""
    cdef ssize_t n
    cdef int read
    cdef uint8_t scratch[65536]
    while True:
        if c.tunnel:
            if not pull_message(l, c):
                fail(l, c, 0)
            return
        if c.head_seen:
            n = recv(c.fd, scratch, sizeof(scratch), 0)
        else:
            n = recv(c.fd, c.buffer + c.have, BUFFER_BYTES - c.have, 0)
        if n < 0 and (errno == EAGAIN or errno == EINTR):
            return
        if n <= 0 or not c.busy:        # bytes that nobody asked for end a connection as well
            fail(l, c, errno if n < 0 else 0)
            return
        if c.head_seen:
            c.left -= n
        else:
            c.have += <uint32_t>n
            read = head_take(l, c)
            if read == 0:
                continue
            if read < 0:
                l.errors += 1
                reopen(l, c)
                return
            if c.tunnel:
                if not push(l, c):
                    fail(l, c, errno)
                return
        if c.left < 0:
            l.errors += 1
            reopen(l, c)
            return
        if c.left == 0:
            answered(l, c)
            if not l.kept or c.last:
                reopen(l, c)
            else:
                next_one(l, c)
            return


cdef int events_of(Load* l, epoll_event* events) noexcept nogil:
    """Wait for events, and no longer than until the next request is due."""
    cdef timespec wait
    cdef uint64_t ns = 100000000
    if l.interval_ns and l.idle_count:
        ns = l.due_ns - l.now_ns if l.due_ns > l.now_ns else 0
        if ns > 100000000:
            ns = 100000000
    wait.tv_sec = 0
    wait.tv_nsec = <int64_t>ns
    return epoll_pwait2(l.epoll, events, EVENTS, &wait, NULL)


cdef void run(Load* l, Connection* all) noexcept nogil:
    cdef epoll_event events[EVENTS]
    cdef Connection* c
    cdef uint64_t missed
    cdef int n, i
    cdef uint32_t k
    for k in range(l.count):
        all[k].fd = -1
        if l.interval_ns:
            rest(l, &all[k])
        else:
            reopen(l, &all[k])
    while l.busy or (l.interval_ns and may_begin(l)):
        if l.interval_ns:
            whats_due(l)
        n = events_of(l, events)
        l.now_ns = clock_ns()
        if l.now_ns > l.ends_ns + 5000000000u:
            break
        for i in range(n):
            c = <Connection*><size_t>events[i].data.u64
            if c.fd < 0:
                continue
            if events[i].events & EPOLLOUT and c.busy and not push(l, c):
                fail(l, c, errno)
                continue
            if events[i].events & ~<uint32_t>EPOLLOUT:
                pull(l, c)
    if l.interval_ns and l.begun < l.requests_max and l.due_ns < l.ends_ns:
        missed = (l.ends_ns - l.due_ns) / l.interval_ns     # due, and no connection was free for them
        if missed > l.requests_max - l.begun:
            missed = l.requests_max - l.begun
        l.errors += missed
    for k in range(l.count):
        if all[k].busy:
            l.errors += 1       # without an answer five seconds after the end
        shut(l, &all[k])


def load(str target, int port, list sources, int connections, bytes request, bint kept, uint64_t requests_max,
         double seconds_max, double rate_per_s=0, bytes message=b"", bytes reply=b"") -> dict:
    """Ask for as long as requests and seconds last. kept: on kept connections, else a new one each; rate_per_s: so many, whether or not
    they are answered in time, 0: as many as are answered. message: the request asks for a WebSocket, and what is counted is this frame,
    sent again for each `reply`. Counts and latencies (ms)."""
    if not 0 < connections <= CONNECTIONS_MAX or not 0 < port < 65536 or not sources or len(sources) > SOURCES_MAX or not request:
        raise ValueError("connections, port, sources or request are out of bounds")
    if not 0 < requests_max <= REQUESTS_MAX or not 0 < seconds_max <= SECONDS_MAX or not 0 <= rate_per_s <= 1e6:
        raise ValueError("a load has an end: requests_max, seconds_max or rate_per_s are out of bounds")
    if (message and (rate_per_s or not kept)) or (len(reply) > 0) != (len(message) > 0) or len(reply) > BUFFER_BYTES:
        raise ValueError("messages go back and forth on kept connections, as fast as they are answered")
    cdef uint32_t addresses[SOURCES_MAX]
    cdef Load l
    cdef uint32_t i
    cdef Connection* all
    cdef uint64_t began
    memset(&l, 0, sizeof(l))
    l.target = loopback4(target)
    l.port = htons(<uint16_t>port)
    for i in range(<uint32_t>len(sources)):
        addresses[i] = loopback4(sources[i])
    l.sources = addresses
    l.source_count = <uint32_t>len(sources)
    l.request = request
    l.request_bytes = <uint32_t>len(request)
    if message:
        l.message = message
        l.message_bytes = <uint32_t>len(message)
        l.reply = reply
        l.reply_bytes = <uint32_t>len(reply)
    l.kept = kept
    l.requests_max = requests_max
    l.count = <uint32_t>connections
    l.interval_ns = <uint64_t>(1e9 / rate_per_s) if rate_per_s else 0
    all = <Connection*>calloc(connections, sizeof(Connection))
    l.idle = <Connection**>calloc(connections, sizeof(Connection*))
    if all == NULL or l.idle == NULL:
        raise MemoryError
    l.epoll = epoll_create1(0)
    began = l.due_ns = l.now_ns = clock_ns()
    l.ends_ns = l.now_ns + <uint64_t>(seconds_max * 1e9)
    with nogil:
        run(&l, all)
    close(l.epoll)
    free(all)
    free(l.idle)
    return {
        "requests": l.good + l.refused + l.cut + l.errors, "seconds": (clock_ns() - began) / 1e9,
        "good": l.good, "refused": l.refused, "cut": l.cut, "errors": l.errors, "retried": l.retried,
        "latency_ms_p50": percentile_ms(l.latency, 0.50), "latency_ms_p99": percentile_ms(l.latency, 0.99),
    }


cdef struct Served:
    int fd
    uint8_t answering           # the answer is on its way, `sent` bytes of it
    uint8_t tunnel              # a WebSocket now
    uint32_t have
    uint64_t sent
    int64_t skip                # of a request's body
    uint8_t buffer[BUFFER_BYTES]


cdef int64_t length_of(const uint8_t* head, uint32_t head_bytes) noexcept nogil:
    """The Content-Length of a request head; 0 where there is none."""
    cdef const uint8_t* line = head
    cdef const uint8_t* end = head + head_bytes
    cdef int64_t found = 0
    while line != NULL and line < end:
        if strncasecmp(<char*>line, b"content-length:", 15) == 0:
            line += 15
            while line[0] == 32:
                line += 1
            while line[0] >= 48 and line[0] <= 57:
                found = found * 10 + line[0] - 48
                line += 1
            return found
        line = <const uint8_t*>memchr(line, 10, <size_t>(end - line))
        if line != NULL:
            line += 1
    return 0


cdef bint flush(int epoll, Served* s, const uint8_t* response, uint64_t response_bytes) noexcept nogil:
    """Send what the socket takes; the rest when it takes more. False: the connection is broken."""
    cdef epoll_event e
    cdef bint waited = s.sent != 0
    cdef ssize_t n
    s.answering = 1
    while s.sent < response_bytes:
        n = send(s.fd, response + s.sent, response_bytes - s.sent, MSG_NOSIGNAL)
        if n < 0 and errno != EAGAIN and errno != EINTR:
            return False
        if n < 0:
            break
        s.sent += <uint64_t>n
    if s.sent == response_bytes:
        s.sent = 0
        s.answering = 0
    if waited or s.answering:
        e.events = EPOLLOUT if s.answering else EPOLLIN
        e.data.u64 = <uint64_t>s.fd
        epoll_ctl(epoll, EPOLL_CTL_MOD, s.fd, &e)
    return True


cdef bint echo(Served* s) noexcept nogil:
    """Send every whole message in the buffer back, unmasked (RFC 6455 5.2, 5.3; up to 65535 bytes). False: the connection is over."""
    cdef uint8_t frame[BUFFER_BYTES]
    cdef const uint8_t* mask
    cdef uint8_t* at
    cdef uint32_t used = 0, payload, head, i
    while s.have - used >= 6:
        at = s.buffer + used
        payload = at[1] & 127
        head = 2
        if payload == 126:
            payload = <uint32_t>at[2] << 8 | at[3]
            head = 4
        if payload == 127 or not at[1] & 128 or head + 4 + payload > BUFFER_BYTES or at[0] & 15 == 8:
            return False
        if s.have - used < head + 4 + payload:
            break
        mask = at + head
        memcpy(frame, at, head)
        frame[1] = at[1] & 127
        for i in range(payload):
            frame[head + i] = mask[4 + i] ^ mask[i & 3]
        if send(s.fd, frame, head + payload, MSG_NOSIGNAL) != <ssize_t>(head + payload):
            return False        # no more than a message is under way: its room was never taken
        used += head + 4 + payload
    memmove(s.buffer, s.buffer + used, s.have - used)
    s.have -= used
    return True


# What a WebSocket's key has to be, and the answer to it (RFC 6455 1.3): nothing is computed here.
cdef const char* KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
cdef const char* ACCEPTED = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                             b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


cdef bint answer(int epoll, Served* s, const uint8_t* response, uint64_t response_bytes) noexcept nogil:
    """Answer every whole request in the buffer, one after the other. False: the connection is over."""
    cdef uint8_t* end
    cdef uint32_t used = 0, head_bytes, step
    while used < s.have and not s.answering:
        if s.skip:
            step = s.have - used
            if step > s.skip:
                step = <uint32_t>s.skip
            s.skip -= step
            used += step
            if s.skip:
                break
            if not flush(epoll, s, response, response_bytes):
                return False
            continue
        end = <uint8_t*>memmem(s.buffer + used, s.have - used, b"\r\n\r\n", 4)
        if end == NULL:
            break
        head_bytes = <uint32_t>(end + 4 - (s.buffer + used))
        if memmem(s.buffer + used, head_bytes, KEY, 24) != NULL:
            s.tunnel = 1
            s.have = 0
            return send(s.fd, ACCEPTED, strlen(ACCEPTED), MSG_NOSIGNAL) == <ssize_t>strlen(ACCEPTED)
        s.skip = length_of(s.buffer + used, head_bytes)
        used += head_bytes
        if s.skip == 0 and not flush(epoll, s, response, response_bytes):
            return False
    memmove(s.buffer, s.buffer + used, s.have - used)
    s.have -= used
    return s.have < BUFFER_BYTES or s.answering


cdef void serve_forever(int epoll, int listener, int stop_fd, Served** all, const uint8_t* response,
                        uint64_t response_bytes) noexcept nogil:
    cdef epoll_event events[EVENTS]
    cdef epoll_event e
    cdef int n, i, fd
    cdef int one = 1
    cdef ssize_t got
    cdef Served* s
    while True:
        n = epoll_wait(epoll, events, EVENTS, -1)
        for i in range(n):
            fd = <int>events[i].data.u64
            if fd == stop_fd:
                return
            if fd == listener:
                while True:
                    fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)
                    if fd < 0:
                        break
                    if fd >= CONNECTIONS_MAX:
                        close(fd)
                        continue
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
                    if all[fd] == NULL:
                        all[fd] = <Served*>calloc(1, sizeof(Served))
                    if all[fd] == NULL:
                        close(fd)
                        continue
                    all[fd].fd = fd
                    all[fd].have = 0
                    all[fd].skip = 0
                    all[fd].sent = 0
                    all[fd].answering = 0
                    all[fd].tunnel = 0
                    e.events = EPOLLIN
                    e.data.u64 = <uint64_t>fd
                    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)
                continue
            s = all[fd]
            if s.answering:
                if not flush(epoll, s, response, response_bytes) or not answer(epoll, s, response, response_bytes):
                    close(fd)
                continue
            got = recv(fd, s.buffer + s.have, BUFFER_BYTES - s.have, 0)
            if got < 0 and (errno == EAGAIN or errno == EINTR):
                continue
            if got <= 0:
                close(fd)
                continue
            s.have += <uint32_t>got
            if not (echo(s) if s.tunnel else answer(epoll, s, response, response_bytes)):
                close(fd)


def serve(int listener_fd, int stop_fd, bytes response):
    """Answer every request on connections to the (non-blocking, listening) socket with these bytes, until stop_fd is readable."""
    cdef Served** all = <Served**>calloc(CONNECTIONS_MAX, sizeof(Served*))
    cdef int epoll = epoll_create1(0)
    cdef epoll_event e
    cdef uint32_t i
    cdef const uint8_t* bytes_of = response
    cdef uint64_t count = <uint64_t>len(response)
    if all == NULL:
        raise MemoryError
    for fd in (listener_fd, stop_fd):
        e.events = EPOLLIN
        e.data.u64 = <uint64_t><int>fd
        epoll_ctl(epoll, EPOLL_CTL_ADD, <int>fd, &e)
    with nogil:
        serve_forever(epoll, listener_fd, stop_fd, all, bytes_of, count)
    for i in range(CONNECTIONS_MAX):
        free(all[i])
    free(all)
    close(epoll)
