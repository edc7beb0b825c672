# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The bench's load over TLS 1.3, on OpenSSL; beside native.pyx, which has the one in clear text. Linux, IPv4 loopback only.

load(): handshakes, each on a connection of its own, full or resumed; or requests on kept connections. All agree on one cipher and one
group, which are what browsers name first: with any other the handshake fails.
A handshake is over when the server has sent a session ticket (it has read our Finished), we have said goodbye (close_notify) and it has
closed. No request is sent: what is measured is the handshake. Nobody looks at who signed the certificate; that its key is there, they do.
Invariants: every address outside 127.0.0.0/8 is refused; a load is bounded in requests and seconds; what was begun is counted once; what
was resumed is counted as OpenSSL says (SSL_session_reused), not as was asked for; SIGPIPE is ignored, as Python does; the GIL is not held.
"""
from libc.errno cimport EAGAIN, EINPROGRESS, EINTR, ETIMEDOUT, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strerror

from bench.macro.native_common cimport (
    AF_INET, BUCKETS, BUFFER_BYTES, CONNECTIONS_MAX, EPOLL_CTL_ADD, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, EVENTS,
    IP_BIND_ADDRESS_NO_PORT, IPPROTO_IP, IPPROTO_TCP, REQUESTS_MAX, SECONDS_MAX, SO_RCVTIMEO, SOCK_NONBLOCK, SOCK_STREAM, SOL_SOCKET,
    SOURCES_MAX, TCP_NODELAY, Head, bind, bucket_of, clock_ns, close, connect, epoll_create1, epoll_ctl, epoll_event, epoll_wait,
    head_read, htons, loopback4, percentile_ms, recv, setsockopt, sockaddr, sockaddr_in, socket, timeval,
)

cdef extern from "<openssl/err.h>" nogil:
    void ERR_clear_error()
    unsigned long ERR_peek_last_error()
    const char* ERR_reason_error_string(unsigned long e)

cdef extern from "<openssl/ssl.h>" nogil:
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct SSL_SESSION:
        pass
    ctypedef struct X509_STORE_CTX:
        pass
    ctypedef int (*NewSession)(SSL*, SSL_SESSION*) noexcept nogil
    ctypedef int (*Verify)(X509_STORE_CTX*, void*) noexcept nogil
    const SSL_METHOD* TLS_client_method()
    SSL_CTX* SSL_CTX_new(const SSL_METHOD* method)
    void SSL_CTX_free(SSL_CTX* c)
    int SSL_CTX_set_min_proto_version(SSL_CTX* c, int version)
    int SSL_CTX_set_ciphersuites(SSL_CTX* c, const char* names)
    int SSL_CTX_set1_groups_list(SSL_CTX* c, const char* names)
    int SSL_CTX_set_alpn_protos(SSL_CTX* c, const unsigned char* protos, unsigned int nbytes)
    long SSL_CTX_set_mode(SSL_CTX* c, long mode)
    void SSL_CTX_set_read_ahead(SSL_CTX* c, int yes)
    long SSL_CTX_set_session_cache_mode(SSL_CTX* c, long mode)
    void SSL_CTX_sess_set_new_cb(SSL_CTX* c, NewSession callback)
    void SSL_CTX_set_cert_verify_callback(SSL_CTX* c, Verify callback, void* arg)
    SSL* SSL_new(SSL_CTX* c)
    void SSL_free(SSL* s)
    int SSL_set_fd(SSL* s, int fd)
    int SSL_set_ex_data(SSL* s, int index, void* data)
    void* SSL_get_ex_data(const SSL* s, int index)
    int SSL_set_session(SSL* s, SSL_SESSION* session)
    int SSL_session_reused(const SSL* s)
    int SSL_set_tlsext_host_name(SSL* s, const char* name)
    void SSL_set_connect_state(SSL* s)
    long SSL_clear_mode(SSL* s, long mode)
    int SSL_do_handshake(SSL* s)
    int SSL_read(SSL* s, void* data, int nbytes)
    int SSL_write(SSL* s, const void* data, int nbytes)
    int SSL_shutdown(SSL* s)
    int SSL_get_error(const SSL* s, int result)
    SSL_SESSION* SSL_SESSION_dup(const SSL_SESSION* session)
    void SSL_SESSION_free(SSL_SESSION* session)
    enum:
        TLS1_3_VERSION, SSL_MODE_AUTO_RETRY, SSL_MODE_RELEASE_BUFFERS, SSL_MODE_ENABLE_PARTIAL_WRITE
        SSL_SESS_CACHE_CLIENT, SSL_SESS_CACHE_NO_INTERNAL
        SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE, SSL_ERROR_SYSCALL

# What all three systems agree on with it.
cdef const char* CIPHER = b"TLS_AES_128_GCM_SHA256"
cdef const char* GROUP = b"X25519"
cdef const char* NAME = b"site.test"

cdef enum:
    TICKET_S = 5                # for the one connection that fetches a ticket

# Connection.state: what comes next.
cdef enum:
    SHAKE = 1
    TICKET = 2                  # the server's session ticket
    LEAVE = 3                   # we have said goodbye: the server's end
    ASK = 4
    READ = 5

# What a step came to.
cdef enum:
    ON = 1                      # the next one, at once
    LATER = 0                   # the socket has nothing, or takes nothing
    BROKEN = -1
    OVER = 2                    # it has done its work; the connection ends

cdef struct Connection:
    int fd
    SSL* ssl
    SSL_SESSION** keeps         # where its ticket is to be kept; NULL: nowhere
    uint8_t state
    uint8_t ticket              # one has come
    uint8_t busy                # a handshake, or a request, is under way
    uint8_t head_seen
    uint8_t status              # first digit of the answer's status
    uint8_t last                # the answer said that the connection ends
    uint32_t sent
    uint32_t have               # bytes of a head in buffer
    int64_t left                # of the body
    uint64_t since_ns
    uint64_t shaken_ns          # when its handshake was done
    uint8_t buffer[BUFFER_BYTES]

cdef struct Load:
    int epoll
    SSL_CTX* context
    SSL_SESSION* session        # what each connection offers; NULL: nothing, its handshake is a full one
    uint32_t target
    uint16_t port
    const uint32_t* sources
    uint32_t source_count
    uint32_t source_next
    const uint8_t* request      # on kept connections; NULL: what counts are handshakes
    uint32_t request_bytes
    uint32_t count
    uint64_t begun
    uint64_t busy
    uint64_t requests_max
    uint64_t ends_ns
    uint64_t now_ns
    uint64_t handshakes
    uint64_t resumed            # of these
    uint64_t good
    uint64_t refused
    uint64_t errors
    int error                   # of the first failure: errno,
    unsigned long reason        # or OpenSSL's
    uint64_t ticketless         # handshakes after which no ticket came
    uint64_t latency[BUCKETS]


cdef int ticket_came(SSL* ssl, SSL_SESSION* session) noexcept nogil:
    """1: we keep the session, 0: OpenSSL frees it."""
    cdef Connection* c = <Connection*>SSL_get_ex_data(ssl, 0)
    c.ticket = 1
    if c.keeps == NULL or c.keeps[0] != NULL:
        return 0
    c.keeps[0] = session
    return 1


cdef int anybody(X509_STORE_CTX* _, void* arg) noexcept nogil:
    return 1


cdef SSL_CTX* context_new() noexcept nogil:
    """NULL: OpenSSL cannot do what all have to agree on."""
    cdef SSL_CTX* c = SSL_CTX_new(TLS_client_method())
    if c == NULL:
        return NULL
    if not (SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) and SSL_CTX_set_ciphersuites(c, CIPHER)
            and SSL_CTX_set1_groups_list(c, GROUP)
            and SSL_CTX_set_alpn_protos(c, <const unsigned char*>b"\x08http/1.1", 9) == 0):
        SSL_CTX_free(c)
        return NULL
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE)
    SSL_CTX_set_read_ahead(c, 1)
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL)
    SSL_CTX_sess_set_new_cb(c, ticket_came)
    SSL_CTX_set_cert_verify_callback(c, anybody, NULL)
    return c


cdef bint may_begin(Load* l) noexcept nogil:
    return l.begun < l.requests_max and l.now_ns < l.ends_ns


cdef void begin(Load* l, Connection* c) noexcept nogil:
    l.begun += 1
    l.busy += 1
    c.busy = 1
    c.since_ns = l.now_ns
    c.status = 0
    c.head_seen = 0
    c.last = 0
    c.sent = 0
    c.have = 0
    c.left = 0


cdef void done(Load* l, Connection* c) noexcept nogil:
    if c.busy:
        c.busy = 0
        l.busy -= 1


cdef void shut(Connection* c) noexcept nogil:
    if c.ssl != NULL:
        SSL_free(c.ssl)
        c.ssl = NULL
    if c.fd >= 0:
        close(c.fd)
        c.fd = -1


cdef bint offer(SSL* ssl, const SSL_SESSION* session) noexcept nogil:
    """A copy: a client's OpenSSL takes a session of TLS 1.3 for used up once it was resumed."""
    cdef SSL_SESSION* copy = SSL_SESSION_dup(session)
    cdef bint taken = copy != NULL and SSL_set_session(ssl, copy)
    SSL_SESSION_free(copy)
    return taken


cdef bint dial(Load* l, Connection* c, int flags) noexcept nogil:
    """A new connection from the next source, its connect under way, and its SSL. False: none."""
    cdef sockaddr_in a
    cdef int one = 1
    ERR_clear_error()
    c.fd = socket(AF_INET, SOCK_STREAM | flags, 0)
    if c.fd < 0:
        return False
    memset(&a, 0, sizeof(a))
    a.sin_family = AF_INET
    a.sin_addr.s_addr = l.sources[l.source_next % l.source_count]
    l.source_next += 1
    setsockopt(c.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one))
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
    if bind(c.fd, <sockaddr*>&a, sizeof(a)) != 0:
        return False
    a.sin_addr.s_addr = l.target
    a.sin_port = l.port
    if connect(c.fd, <sockaddr*>&a, sizeof(a)) != 0 and errno != EINPROGRESS:
        return False
    c.ssl = SSL_new(l.context)
    c.ticket = 0
    c.state = SHAKE
    if c.ssl == NULL or not SSL_set_fd(c.ssl, c.fd) or not SSL_set_ex_data(c.ssl, 0, c):
        return False
    SSL_set_tlsext_host_name(c.ssl, NAME)
    SSL_set_connect_state(c.ssl)
    return l.session == NULL or offer(c.ssl, l.session)


cdef void failed(Load* l, int error) noexcept nogil:
    """Counts a failure; of the first one it is kept what it was."""
    l.errors += 1
    if l.errors == 1:
        l.error = error
        l.reason = ERR_peek_last_error()


cdef void reopen(Load* l, Connection* c) noexcept nogil:
    """The connection is over: the next one, if one is to be made now."""
    cdef epoll_event e
    cdef int tries = 0
    done(l, c)
    shut(c)
    while may_begin(l) and tries < 64:
        tries += 1
        begin(l, c)
        if dial(l, c, SOCK_NONBLOCK):
            e.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
            e.data.u64 = <uint64_t><size_t>c
            epoll_ctl(l.epoll, EPOLL_CTL_ADD, c.fd, &e)
            return
        failed(l, errno)
        done(l, c)
        shut(c)


cdef int blocked(Load* l, Connection* c, int result) noexcept nogil:
    """What an SSL_* call that did nothing means."""
    cdef int said = SSL_get_error(c.ssl, result)
    if said == SSL_ERROR_WANT_READ or said == SSL_ERROR_WANT_WRITE:
        return LATER
    failed(l, errno if said == SSL_ERROR_SYSCALL else 0)
    return BROKEN


cdef void answered(Load* l, Connection* c, uint64_t now_ns) noexcept nogil:
    if c.status <= 3:
        l.good += 1
    else:
        l.refused += 1
    l.latency[bucket_of((now_ns - c.since_ns) / 1000)] += 1


# --- the steps of a connection ------------------------------------------------------------------------------------------------------------

cdef int shake(Load* l, Connection* c) noexcept nogil:
    cdef int result = SSL_do_handshake(c.ssl)
    if result != 1:
        return blocked(l, c, result)
    l.handshakes += 1
    l.resumed += SSL_session_reused(c.ssl)
    l.now_ns = clock_ns()
    c.shaken_ns = l.now_ns
    c.state = TICKET
    if l.request != NULL:
        c.state = ASK
        c.since_ns = l.now_ns       # what counts is the request
    return ON


cdef int await_ticket(Load* l, Connection* c) noexcept nogil:
    """Until a ticket has come; then we say goodbye."""
    cdef int result = SSL_read(c.ssl, c.buffer, BUFFER_BYTES)
    if result > 0:
        failed(l, 0)                # nobody asked for anything
        return BROKEN
    if not c.ticket:
        return blocked(l, c, result)
    if SSL_shutdown(c.ssl) < 0:
        failed(l, errno)
        return BROKEN
    c.state = LEAVE
    return ON


cdef int leave(Load* l, Connection* c) noexcept nogil:
    """Until the server has closed. What it still sends (a second ticket, its own goodbye) is of no interest."""
    cdef ssize_t n
    while True:
        n = recv(c.fd, c.buffer, BUFFER_BYTES, 0)
        if n < 0 and (errno == EAGAIN or errno == EINTR):
            return LATER
        if n <= 0:
            answered(l, c, c.shaken_ns)
            return OVER


cdef int push(Load* l, Connection* c) noexcept nogil:
    """Send what is left of the request."""
    cdef int result
    while c.sent < l.request_bytes:
        result = SSL_write(c.ssl, l.request + c.sent, <int>(l.request_bytes - c.sent))
        if result <= 0:
            return blocked(l, c, result)
        c.sent += <uint32_t>result
    c.state = READ
    return ON


cdef bint take(Connection* c, uint32_t nbytes) noexcept nogil:
    """So many bytes of an answer have come into the buffer. False: not an answer that this tool understands."""
    cdef Head head
    cdef int read
    if c.head_seen:
        c.left -= nbytes
        return c.left >= 0
    c.have += nbytes
    read = head_read(c.buffer, c.have, &head)
    if read <= 0:
        return read == 0
    if head.body < 0:
        return False
    c.status = head.status
    c.last = head.last
    c.left = head.body - (c.have - head.nbytes)
    c.have = 0
    c.head_seen = 1
    return c.left >= 0


cdef int pull(Load* l, Connection* c) noexcept nogil:
    """Read the answer; when it is whole, the next request."""
    cdef int result
    while not c.head_seen or c.left > 0:
        result = SSL_read(c.ssl, c.buffer + c.have, <int>(BUFFER_BYTES - c.have))
        if result <= 0:
            return blocked(l, c, result)
        if not take(c, <uint32_t>result):
            failed(l, 0)
            return BROKEN
    l.now_ns = clock_ns()
    answered(l, c, l.now_ns)
    done(l, c)
    if c.last or not may_begin(l):
        return OVER
    begin(l, c)
    c.state = ASK
    return ON


cdef int step(Load* l, Connection* c) noexcept nogil:
    ERR_clear_error()
    if c.state == SHAKE:
        return shake(l, c)
    if c.state == TICKET:
        return await_ticket(l, c)
    if c.state == LEAVE:
        return leave(l, c)
    if c.state == ASK:
        return push(l, c)
    return pull(l, c)


cdef void run(Load* l, Connection* all) noexcept nogil:
    cdef epoll_event events[EVENTS]
    cdef Connection* c
    cdef int n, i, came
    cdef uint32_t k
    for k in range(l.count):
        all[k].fd = -1
        reopen(l, &all[k])
    while l.busy:
        n = epoll_wait(l.epoll, events, EVENTS, 100)
        l.now_ns = clock_ns()
        if l.now_ns > l.ends_ns + 5000000000u:
            break
        for i in range(n):
            c = <Connection*><size_t>events[i].data.u64
            came = ON if c.fd >= 0 else LATER
            while came == ON:
                came = step(l, c)
            if came != LATER:
                reopen(l, c)
    for k in range(l.count):
        if all[k].busy:
            l.ticketless += all[k].state == TICKET
            failed(l, ETIMEDOUT)    # not over five seconds after the end
        shut(&all[k])


cdef bint fetch_ticket(Load* l, SSL_SESSION** session) noexcept nogil:
    """A full handshake before the load, for a session that all of it offers. False: no ticket came."""
    cdef Connection* c = <Connection*>calloc(1, sizeof(Connection))
    cdef timeval wait
    cdef bint found = False
    if c == NULL:
        return False
    c.fd = -1
    c.keeps = session
    wait.tv_sec = TICKET_S
    wait.tv_usec = 0
    if dial(l, c, 0):
        setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait))
        SSL_clear_mode(c.ssl, SSL_MODE_AUTO_RETRY)      # the call returns when a ticket is read, although no data came
        if SSL_do_handshake(c.ssl) == 1:
            SSL_read(c.ssl, c.buffer, BUFFER_BYTES)
            SSL_shutdown(c.ssl)
            found = session[0] != NULL
    if not found:
        failed(l, errno)
    shut(c)
    free(c)
    return found


cdef str what_failed(const Load* l):
    """The first failure, for people."""
    if l.ticketless:
        return f"{l.ticketless} handshakes were done, and no session ticket came"
    cdef const char* text = ERR_reason_error_string(l.reason) if l.reason else NULL
    if text == NULL and l.error:
        text = strerror(l.error)
    if text == NULL:
        return "closed too early, or not an answer" if l.errors else ""
    return (<bytes>text).decode()


def load(str target, int port, list sources, int connections, bytes request, bint resumed, uint64_t requests_max,
         double seconds_max) -> dict:
    """Go on for as long as requests and seconds last. request: what is asked on kept connections, b"": what counts are handshakes, each on
    a connection of its own. resumed: each of them offers a session, whose ticket one connection fetched before. Counts, latencies (ms)."""
    if not 0 < connections <= CONNECTIONS_MAX or not 0 < port < 65536 or not sources or len(sources) > SOURCES_MAX:
        raise ValueError("connections, port or sources are out of bounds")
    if not 0 < requests_max <= REQUESTS_MAX or not 0 < seconds_max <= SECONDS_MAX:
        raise ValueError("a load has an end: requests_max or seconds_max are out of bounds")
    cdef uint32_t addresses[SOURCES_MAX]
    cdef Load l
    cdef SSL_SESSION* session = NULL
    cdef Connection* all
    cdef uint32_t i
    cdef uint64_t began
    memset(&l, 0, sizeof(l))
    l.target = loopback4(target)
    l.port = htons(<uint16_t>port)
    for i in range(<uint32_t>len(sources)):
        addresses[i] = loopback4(sources[i])
    l.sources = addresses
    l.source_count = <uint32_t>len(sources)
    if request:
        l.request = request
        l.request_bytes = <uint32_t>len(request)
    l.requests_max = requests_max
    l.count = <uint32_t>connections
    l.context = context_new()
    all = <Connection*>calloc(connections, sizeof(Connection))
    if l.context == NULL or all == NULL:
        raise MemoryError("no memory, or OpenSSL does not know the cipher and the group")
    l.epoll = epoll_create1(0)
    began = l.now_ns = clock_ns()
    with nogil:
        if not resumed or fetch_ticket(&l, &session):
            l.session = session
            began = l.now_ns = clock_ns()
            l.ends_ns = l.now_ns + <uint64_t>(seconds_max * 1e9)
            run(&l, all)
    close(l.epoll)
    free(all)
    SSL_SESSION_free(session)
    SSL_CTX_free(l.context)
    return {
        "requests": l.good + l.refused + l.errors, "seconds": (clock_ns() - began) / 1e9,
        "good": l.good, "refused": l.refused, "cut": 0, "errors": l.errors,
        "handshakes": l.handshakes, "resumed": l.resumed, "said": what_failed(&l),
        "latency_ms_p50": percentile_ms(l.latency, 0.50), "latency_ms_p99": percentile_ms(l.latency, 0.99),
    }
