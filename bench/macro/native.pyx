# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The bench's load and origin, native so that neither is what is measured. Linux, IPv4 loopback only.

load(): so many connections, each with one request under way, kept or new for every request; counts answers by kind and their latency.
serve(): answers every request with the same bytes.
Invariants: load() refuses every address outside 127.0.0.0/8; both are bounded (requests and seconds; until stop_fd is readable); every
request that was begun is counted once; the GIL is not held while they run.
"""
from libc.errno cimport EAGAIN, ECONNREFUSED, EINPROGRESS, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memmove, memset

cdef extern from *:
    """
    #define _GNU_SOURCE 1
    #include <string.h>
    #include <strings.h>
    """
    void* memmem(const void* haystack, size_t haystack_bytes, const void* needle, size_t needle_bytes) nogil
    int strncasecmp(const char* a, const char* b, size_t n) nogil

cdef extern from "<arpa/inet.h>" nogil:
    uint32_t htonl(uint32_t)
    uint16_t htons(uint16_t)

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    enum:
        AF_INET, SOCK_STREAM, SOCK_NONBLOCK, IPPROTO_TCP, IPPROTO_IP, MSG_NOSIGNAL
        IP_BIND_ADDRESS_NO_PORT

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_NODELAY

cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr:
        pass
    int socket(int, int, int)
    int bind(int, const sockaddr*, uint32_t)
    int connect(int, const sockaddr*, uint32_t)
    int listen(int, int)
    int accept4(int, sockaddr*, uint32_t*, int)
    int setsockopt(int, int, int, const void*, uint32_t)
    ssize_t send(int, const void*, size_t, int)
    ssize_t recv(int, void*, size_t, int)

cdef extern from "<unistd.h>" nogil:
    int close(int)

cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        int64_t tv_nsec
    int clock_gettime(int, timespec*)
    enum:
        CLOCK_MONOTONIC

cdef extern from "<sys/epoll.h>" nogil:
    union epoll_data:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event*)
    int epoll_wait(int, epoll_event*, int, int)
    enum:
        EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET, EPOLL_CTL_ADD, EPOLL_CTL_MOD

cdef enum:
    BUFFER_BYTES = 16384
    CONNECTIONS_MAX = 65536
    SOURCES_MAX = 4096
    EVENTS = 256
    SUB = 32                    # latency buckets an octave: 3 % wide
    BUCKETS = 1024
    SECONDS_MAX = 120
    REQUESTS_MAX = 50000000


cdef struct Connection:
    int fd
    uint8_t status              # first digit of the answer's status; 0: none yet
    uint8_t head_seen
    uint8_t last                # the answer said that the connection ends
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
    bint kept
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


cdef uint64_t clock_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000u + <uint64_t>t.tv_nsec


cdef uint32_t bucket_of(uint64_t us) noexcept nogil:
    """Linear up to SUB, then SUB buckets an octave."""
    cdef uint32_t octave = 0
    while us >= 2 * SUB:
        us >>= 1
        octave += 1
    if us >= SUB:
        us += octave * SUB
    return <uint32_t>us if us < BUCKETS else BUCKETS - 1


cdef double bucket_us(uint32_t bucket) noexcept nogil:
    """The middle of a bucket."""
    cdef uint32_t octave
    if bucket < 2 * SUB:
        return bucket + 0.5
    octave = bucket / SUB - 1
    return ((bucket % SUB + SUB) + 0.5) * (<uint64_t>1 << octave)


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


cdef void begin(Load* l, Connection* c) noexcept nogil:
    """The next request's state; its bytes are sent as the socket takes them."""
    l.begun += 1
    c.status = 0
    c.head_seen = 0
    c.last = 0
    c.sent = 0
    c.have = 0
    c.left = 0
    c.since_ns = l.now_ns


cdef void reopen(Load* l, Connection* c) noexcept nogil:
    """A new connection from the next source, its first request counted as begun."""
    cdef sockaddr_in a
    cdef epoll_event e
    cdef int one = 1
    cdef int tries = 0
    if c.fd >= 0:
        close(c.fd)
        c.fd = -1
        l.open -= 1
    while may_begin(l) and tries < 64:
        tries += 1
        c.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)
        if c.fd < 0:
            break
        memset(&a, 0, sizeof(a))
        a.sin_family = AF_INET
        a.sin_addr.s_addr = l.sources[l.source_next % l.source_count]
        l.source_next += 1
        setsockopt(c.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one))
        setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        begin(l, c)
        if bind(c.fd, <sockaddr*>&a, sizeof(a)) == 0:
            a.sin_addr.s_addr = l.target
            a.sin_port = l.port
            if connect(c.fd, <sockaddr*>&a, sizeof(a)) == 0 or errno == EINPROGRESS:
                e.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
                e.data.u64 = <uint64_t><size_t>c
                epoll_ctl(l.epoll, EPOLL_CTL_ADD, c.fd, &e)
                l.open += 1
                return
        # Loopback answers at once: a reset in connect() is the target's, anything else is ours.
        l.errors += 1
        close(c.fd)
        c.fd = -1


cdef bint push(Load* l, Connection* c) noexcept nogil:
    """Send what is left of the request. False: the connection is broken."""
    cdef ssize_t n
    while c.sent < l.request_bytes:
        n = send(c.fd, l.request + c.sent, l.request_bytes - c.sent, MSG_NOSIGNAL)
        if n < 0:
            return errno == EAGAIN or errno == EINTR
        c.sent += <uint32_t>n
    return True


cdef int head_take(Connection* c) noexcept nogil:
    """Read an answer's head from the buffer. 1: read, 0: more to come, -1: not an answer that this tool understands."""
    cdef uint8_t* end = <uint8_t*>memmem(c.buffer, c.have, b"\r\n\r\n", 4)
    cdef uint8_t* line
    cdef uint8_t* stop
    cdef uint32_t head_bytes
    if end == NULL:
        return 0 if c.have < BUFFER_BYTES else -1
    if c.have < 12 or strncasecmp(<char*>c.buffer, b"HTTP/1.", 7) != 0:
        return -1
    c.status = c.buffer[9] - 48
    c.left = -1
    line = <uint8_t*>memchr(c.buffer, 10, c.have) + 1
    while line < end:
        if strncasecmp(<char*>line, b"content-length:", 15) == 0:
            line += 15
            while line[0] == 32:
                line += 1
            c.left = 0
            while line[0] >= 48 and line[0] <= 57:
                c.left = c.left * 10 + line[0] - 48
                line += 1
        elif strncasecmp(<char*>line, b"connection: close", 17) == 0:
            c.last = 1
        stop = <uint8_t*>memchr(line, 10, <size_t>(end + 2 - line))
        if stop == NULL:
            break
        line = stop + 1
    if c.left < 0:
        return -1
    head_bytes = <uint32_t>(end + 4 - c.buffer)
    c.left -= c.have - head_bytes
    c.have = 0
    c.head_seen = 1
    return 1 if c.left >= 0 else -1


cdef void pull(Load* l, Connection* c) noexcept nogil:
    """Read until the socket is empty, the answer complete or the connection over."""
    cdef ssize_t n
    cdef int read
    cdef uint8_t scratch[65536]
    while True:
        if c.head_seen:
            n = recv(c.fd, scratch, sizeof(scratch), 0)
        else:
            n = recv(c.fd, c.buffer + c.have, BUFFER_BYTES - c.have, 0)
        if n < 0 and (errno == EAGAIN or errno == EINTR):
            return
        if n <= 0:
            broken(l, c, errno if n < 0 else 0)
            reopen(l, c)
            return
        if c.head_seen:
            c.left -= n
        else:
            c.have += <uint32_t>n
            read = head_take(c)
            if read == 0:
                continue
            if read < 0:
                l.errors += 1
                reopen(l, c)
                return
        if c.left < 0:
            l.errors += 1
            reopen(l, c)
            return
        if c.left == 0:
            answered(l, c)
            if not l.kept or c.last:
                reopen(l, c)
                return
            if not may_begin(l):
                close(c.fd)
                c.fd = -1
                l.open -= 1
                return
            begin(l, c)
            if not push(l, c):
                broken(l, c, errno)
                reopen(l, c)
            return


cdef void run(Load* l, Connection* all, uint32_t count) noexcept nogil:
    cdef epoll_event events[EVENTS]
    cdef Connection* c
    cdef int n, i
    cdef uint32_t k
    for k in range(count):
        all[k].fd = -1
        reopen(l, &all[k])
    while l.open:
        n = epoll_wait(l.epoll, events, EVENTS, 100)
        l.now_ns = clock_ns()
        if l.now_ns > l.ends_ns + 5000000000u:
            break
        for i in range(n):
            c = <Connection*><size_t>events[i].data.u64
            if c.fd < 0:
                continue
            if events[i].events & EPOLLOUT and c.sent < l.request_bytes and not push(l, c):
                broken(l, c, errno)
                reopen(l, c)
                continue
            if events[i].events & ~<uint32_t>EPOLLOUT:
                pull(l, c)
    for k in range(count):
        if all[k].fd >= 0:
            close(all[k].fd)
            l.errors += 1       # without an answer five seconds after the end


cdef uint32_t loopback4(str text) except? 0:
    """The address in network order; ValueError for everything outside 127.0.0.0/8."""
    parts = text.split(".")
    if len(parts) != 4 or parts[0] != "127" or not all(p.isascii() and p.isdigit() and int(p) < 256 for p in parts):
        raise ValueError(f"{text!r} is not an address of 127.0.0.0/8")
    cdef uint32_t host = 0
    for p in parts:
        host = host << 8 | <uint32_t>int(p)
    return htonl(host)


cdef double percentile_ms(Load* l, double share):
    cdef uint64_t total = 0, seen = 0
    cdef uint32_t i
    for i in range(BUCKETS):
        total += l.latency[i]
    for i in range(BUCKETS):
        seen += l.latency[i]
        if total and seen >= share * total:
            return bucket_us(i) / 1e3
    return 0.0


def load(str target, int port, list sources, int connections, bytes request, bint kept, uint64_t requests_max,
         double seconds_max) -> dict:
    """Ask for as long as requests and seconds last. kept: on kept connections, else a new one each. Counts and latencies (ms)."""
    if not 0 < connections <= CONNECTIONS_MAX or not 0 < port < 65536 or not sources or len(sources) > SOURCES_MAX or not request:
        raise ValueError("connections, port, sources or request are out of bounds")
    if not 0 < requests_max <= REQUESTS_MAX or not 0 < seconds_max <= SECONDS_MAX:
        raise ValueError("a load has an end: requests_max and seconds_max are out of bounds")
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
    l.kept = kept
    l.requests_max = requests_max
    all = <Connection*>calloc(connections, sizeof(Connection))
    if all == NULL:
        raise MemoryError
    l.epoll = epoll_create1(0)
    began = l.now_ns = clock_ns()
    l.ends_ns = l.now_ns + <uint64_t>(seconds_max * 1e9)
    with nogil:
        run(&l, all, connections)
    close(l.epoll)
    free(all)
    return {
        "requests": l.good + l.refused + l.cut + l.errors, "seconds": (clock_ns() - began) / 1e9,
        "good": l.good, "refused": l.refused, "cut": l.cut, "errors": l.errors,
        "latency_ms_p50": percentile_ms(&l, 0.50), "latency_ms_p99": percentile_ms(&l, 0.99),
    }


cdef struct Served:
    int fd
    uint8_t answering           # the answer is on its way, `sent` bytes of it
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
            if got > 0:
                s.have += <uint32_t>got
            if got <= 0 or not answer(epoll, s, response, response_bytes):
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
