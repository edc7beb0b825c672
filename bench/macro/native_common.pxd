# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# What the native parts of the bench have in common: the kernel's interfaces, the clock, latency buckets, heads of answers, the one check of
# an address. Inline all of it: no module of its own stands behind this file. Invariant: an address outside 127.0.0.0/8 is a ValueError.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr

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
        IP_BIND_ADDRESS_NO_PORT, SOL_SOCKET, SO_RCVTIMEO

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

cdef extern from "<sys/time.h>" nogil:
    struct timeval:
        int64_t tv_sec
        int64_t tv_usec

cdef extern from "<sys/epoll.h>" nogil:
    union epoll_data:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event*)
    int epoll_wait(int, epoll_event*, int, int)
    int epoll_pwait2(int, epoll_event*, int, const timespec*, const void*)
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

# What an answer's head says.
cdef struct Head:
    uint32_t nbytes             # of the head itself
    int64_t body                # bytes of the body; -1: it does not say
    uint8_t status              # first digit
    uint8_t last                # the connection ends with it


cdef inline uint64_t clock_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <uint64_t>t.tv_sec * 1000000000u + <uint64_t>t.tv_nsec


cdef inline uint32_t bucket_of(uint64_t us) noexcept nogil:
    """Linear up to SUB, then SUB buckets an octave."""
    cdef uint32_t octave = 0
    while us >= 2 * SUB:
        us >>= 1
        octave += 1
    if us >= SUB:
        us += octave * SUB
    return <uint32_t>us if us < BUCKETS else BUCKETS - 1


cdef inline double bucket_us(uint32_t bucket) noexcept nogil:
    """The middle of a bucket."""
    cdef uint32_t octave
    if bucket < 2 * SUB:
        return bucket + 0.5
    octave = bucket // SUB - 1
    return ((bucket % SUB + SUB) + 0.5) * (<uint64_t>1 << octave)


cdef inline double percentile_ms(const uint64_t* latency, double share) noexcept nogil:
    cdef uint64_t total = 0, seen = 0
    cdef uint32_t i
    for i in range(BUCKETS):
        total += latency[i]
    for i in range(BUCKETS):
        seen += latency[i]
        if total and seen >= share * total:
            return bucket_us(i) / 1e3
    return 0.0


cdef inline int head_read(const uint8_t* data, uint32_t have, Head* head) noexcept nogil:
    """An answer's head. 1: read, 0: more to come, -1: not one that these tools understand."""
    cdef const uint8_t* end = <const uint8_t*>memmem(data, have, b"\r\n\r\n", 4)
    cdef const uint8_t* line
    cdef const uint8_t* stop
    if end == NULL:
        return 0 if have < BUFFER_BYTES else -1
    if have < 12 or strncasecmp(<const char*>data, b"HTTP/1.", 7) != 0:
        return -1
    head.nbytes = <uint32_t>(end + 4 - data)
    head.status = data[9] - 48
    head.last = 0
    head.body = -1
    line = <const uint8_t*>memchr(data, 10, have) + 1
    while line < end:
        if strncasecmp(<const char*>line, b"content-length:", 15) == 0:
            line += 15
            while line[0] == 32:
                line += 1
            head.body = 0
            while line[0] >= 48 and line[0] <= 57:
                head.body = head.body * 10 + line[0] - 48
                line += 1
        elif strncasecmp(<const char*>line, b"connection: close", 17) == 0:
            head.last = 1
        stop = <const uint8_t*>memchr(line, 10, <size_t>(end + 2 - line))
        if stop == NULL:
            break
        line = stop + 1
    return 1


cdef inline uint32_t loopback4(str text) except? 0:
    """The address in network order; ValueError for everything outside 127.0.0.0/8."""
    cdef uint32_t host = 0
    parts = text.split(".")
    if len(parts) != 4 or parts[0] != "127":
        raise ValueError(f"{text!r} is not an address of 127.0.0.0/8")
    for part in parts:
        if not (part.isascii() and part.isdigit() and int(part) < 256):
            raise ValueError(f"{text!r} is not an address of 127.0.0.0/8")
        host = host << 8 | <uint32_t>int(part)
    return htonl(host)
