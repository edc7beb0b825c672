# The engine's own types: handles, pools, timers, the two sides of the proxy and the exchange between them. One Core a worker process,
# touched by one thread only; everything in it is allocated at start. What is shared with other processes is in Shared.
cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        void* ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)
    cdef enum:
        EPOLLIN
        EPOLLOUT
        EPOLLRDHUP
        EPOLLHUP
        EPOLLERR
        EPOLLET
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CLOEXEC

cdef extern from *:
    """
    #include <sys/ioctl.h>
    #include <sys/socket.h>
    #include <sys/uio.h>
    #include <sys/mman.h>
    #include <sys/timerfd.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <arpa/inet.h>
    #include <unistd.h>
    #include <errno.h>
    #include <time.h>
    #include <stddef.h>
    static inline uint64_t scrubber_clock(clockid_t id) {
        struct timespec t;
        clock_gettime(id, &t);
        return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
    }
    static inline int scrubber_errno(void) { return errno; }
    /* Wakes the engine every tick: deadlines, beat, what waits for buffers. */
    static inline int scrubber_timerfd(long interval_ns) {
        int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        struct itimerspec t = {{0, interval_ns}, {0, interval_ns}};
        if (fd >= 0 && timerfd_settime(fd, 0, &t, NULL) < 0) { close(fd); return -1; }
        return fd;
    }
    /* Close with RST: what is unsent is thrown away (DROP and blocked sources only). */
    static inline void scrubber_reset(int fd) {
        struct linger l = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
        close(fd);
    }
    static inline void scrubber_nodelay(int fd) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    static inline int scrubber_accept(int fd, uint8_t address[16], uint16_t* port) {
        struct sockaddr_storage s;
        socklen_t n = sizeof s;
        int got = accept4(fd, (struct sockaddr*)&s, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (got < 0) return got;
        memset(address, 0, 16);
        *port = 0;
        if (s.ss_family == AF_INET) {
            const struct sockaddr_in* a = (const struct sockaddr_in*)&s;
            address[10] = address[11] = 0xff;
            memcpy(address + 12, &a->sin_addr, 4);
            *port = ntohs(a->sin_port);
        } else if (s.ss_family == AF_INET6) {
            const struct sockaddr_in6* a = (const struct sockaddr_in6*)&s;
            memcpy(address, &a->sin6_addr, 16);
            *port = ntohs(a->sin6_port);
        }                                       /* AF_UNIX: no address, "::" stands for it */
        return got;
    }
    /* The address that a client's connection came to; 0: a Unix socket's, which has none. */
    static inline int scrubber_local(int fd, uint8_t address[16], uint16_t* port) {
        struct sockaddr_storage s;
        socklen_t n = sizeof s;
        if (getsockname(fd, (struct sockaddr*)&s, &n) < 0) return 0;
        if (s.ss_family == AF_INET) {
            const struct sockaddr_in* a = (const struct sockaddr_in*)&s;
            memset(address, 0, 10);
            address[10] = address[11] = 0xff;
            memcpy(address + 12, &a->sin_addr, 4);
            *port = ntohs(a->sin_port);
            return 1;
        }
        if (s.ss_family == AF_INET6) {
            const struct sockaddr_in6* a = (const struct sockaddr_in6*)&s;
            memcpy(address, &a->sin6_addr, 16);
            *port = ntohs(a->sin6_port);
            return 1;
        }
        return 0;
    }
    static inline int scrubber_connect(int family, const void* address, unsigned length) {
        int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) return -errno;
        if (family != AF_UNIX) scrubber_nodelay(fd);
        if (connect(fd, (const struct sockaddr*)address, length) < 0 && errno != EINPROGRESS) {
            int e = errno;
            close(fd);
            return -e;
        }
        return fd;
    }
    static inline int scrubber_socket_error(int fd) {
        int e = 0;
        socklen_t n = sizeof e;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0) return errno;
        return e;
    }
    static inline int scrubber_unacknowledged(int fd) {
        int n = 0;
        return ioctl(fd, TIOCOUTQ, &n) < 0 ? 0 : n;
    }
    static inline ssize_t scrubber_sendv(int fd, struct iovec* v, int n, int more) {
        struct msghdr m;
        memset(&m, 0, sizeof m);
        m.msg_iov = v;
        m.msg_iovlen = n;
        return sendmsg(fd, &m, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    }
    static inline void* scrubber_pages(size_t n) {
        void* p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return p == MAP_FAILED ? NULL : p;
    }
    """
    ctypedef int clockid_t
    cdef struct iovec:
        void* iov_base
        size_t iov_len
    const int CLOCK_MONOTONIC
    const int CLOCK_REALTIME
    const int EAGAIN
    const int EINTR
    const int EINVAL
    const int ECONNABORTED
    const int ECONNRESET
    const int EMFILE
    const int ENFILE
    const int ENOBUFS
    const int ENOMEM
    const int EADDRNOTAVAIL
    const int MSG_NOSIGNAL
    const int MSG_MORE
    const int MSG_PEEK
    const int SHUT_WR
    const int AF_INET6
    const int AF_UNIX
    bint scrubber_local(int fd, uint8_t* address, uint16_t* port) noexcept nogil
    uint64_t scrubber_clock(clockid_t clock) noexcept nogil
    int scrubber_errno() noexcept nogil
    int scrubber_timerfd(long interval_ns) noexcept nogil
    void scrubber_reset(int fd) noexcept nogil
    void scrubber_nodelay(int fd) noexcept nogil
    int scrubber_accept(int fd, uint8_t* address, uint16_t* port) noexcept nogil
    int scrubber_connect(int family, const void* address, unsigned length) noexcept nogil
    int scrubber_socket_error(int fd) noexcept nogil
    int scrubber_unacknowledged(int fd) noexcept nogil      # bytes sent that the other side has not acknowledged
    ssize_t scrubber_sendv(int fd, iovec* v, int n, int more) noexcept nogil
    void* scrubber_pages(size_t n) noexcept nogil
    int munmap(void* p, size_t n) noexcept nogil
    ssize_t recv(int fd, void* data, size_t n, int flags) noexcept nogil
    ssize_t send(int fd, const void* data, size_t n, int flags) noexcept nogil
    int shutdown(int fd, int how) noexcept nogil
    int close(int fd) noexcept nogil
    ssize_t c_read "read"(int fd, void* data, size_t n) noexcept nogil

cdef enum:
    PASS_NS_MAX = 2000000           # a pass is bounded: 2 ms, so that asyncio's own work is never starved
    PASS_EVENTS_MAX = 512
    LOOKS_MAX = 64                  # of so many events each, before deadlines are judged
    PASS_ACCEPTS_MAX = 64
    PASS_CLOCK_EVENTS = 16          # handles served between two looks at the clock
    PASS_HANDSHAKES_MAX = 4         # an RSA-2048 signature takes 0.6 ms
    TICK_NS = 50000000              # timer wheel and beat
    WHEEL_SLOTS = 1024              # 51 s; later deadlines go round again
    STEP_BYTES_MAX = 524288         # one connection's share of a pass
    LINGER_NS = 2000000000          # after a refusal: time for the client to read the answer
    LINGER_S_MAX = 30               # in all, while a body that was announced still comes
    LINGER_BYTES_MAX = 1048576      # beyond that body
    LOG_BURST_NS = 100000000        # of lines of requests that passed, where they are sampled
    DRAIN_IDLE_NS = 1000000000      # a connection that is to go and has been silent for so long is closed
    QUEUE_ACCEPTS_MAX = 8192        # taken off a listener's queue when it closes
    INTERIM_MAX = 16                # 1xx responses before the final one
    ORIGIN_TRIES_MAX = 3            # connects for one request
    DRAIN_RETRY_S = 30              # what a client of a drained area, or of drained origins, is asked to wait
    POLICIES_MAX = 256              # in force, and older ones that requests in flight still hold
    IOV_MAX = 16
    PIPELINE_MAX = 16               # requests of one connection in one step
    CHECK_NS = 1000000000           # how often slow bodies and slow readers are looked at
    ORIGIN_CHECK_NS = 2000000000    # how often an origin connection's own deadline is looked at, at least
    WINDOW_MIN = 16384              # bytes of a body read at once, at first
    PIPES_MAX = 16                  # a worker's pipes for splice
    PIPE_BYTES_MIN = 65536          # a smaller one does not pay
    SPLICE_LEFT_MIN = 262144        # the end of a body is copied; so is a body that is not much larger
    SPLICE_NONE = -2
    BUFFERS_LOW = 16                # below this, bodies wait
    REQUEST_ID_BYTES_MAX = 128
    NO_AREA = 0xFFFFFFFF

    HANDLE_FREE = 0
    HANDLE_TIMER = 1
    HANDLE_LISTENER = 2
    HANDLE_CLIENT = 3
    HANDLE_ORIGIN = 4
    HANDLE_STREAM = 5               # of an HTTP/2 connection: a Client without a socket of its own

    EVENT_READ = 1
    EVENT_WRITE = 2
    EVENT_HANGUP = 4                # RDHUP, HUP or ERR seen: a short read is no longer the last word
    EVENT_BROKEN = 8                # HUP or ERR: both directions are gone
    EVENT_STARVED = 16              # waits for buffers
    EVENT_DRAINED = 32              # TLS: a short read; nothing is there until the next edge

    CLIENT_IDLE = 1                 # between requests; holds no buffer
    CLIENT_HEAD = 2                 # part of a head is here
    CLIENT_EXCHANGE = 3
    CLIENT_TARPIT = 4
    CLIENT_LINGER = 5               # answered for the last time; reading off what the client still sends
    CLIENT_TUNNEL = 6               # upgraded: bytes flow both ways
    CLIENT_HANDSHAKE = 7            # of TLS
    CLIENT_HTTP2 = 8                # its streams are clients of their own

    ORIGIN_CONNECTING = 1
    ORIGIN_ACTIVE = 2
    ORIGIN_IDLE = 3                 # pooled
    ORIGIN_TUNNEL = 4               # the other end of a CLIENT_TUNNEL; no longer counted with its origin's connections
    ORIGIN_HANDSHAKE = 5            # connected; TLS does not stand yet

    TUNNEL_OPEN = 0                 # how a tunnel ended; still open when it ends with its worker's
    TUNNEL_CLOSED = 1               # both sides said all
    TUNNEL_BROKEN = 2               # a connection failed
    TUNNEL_IDLE = 3                 # from here on: cut by us
    TUNNEL_SILENT = 4
    TUNNEL_LIFETIME = 5
    TUNNEL_BYTES = 6
    TUNNEL_STUCK = 7                # one side does not take what the other sends
    TUNNEL_BLOCKED = 8
    TUNNEL_REVOKED = 9              # area or protocol went with a reload

# What epoll and the timer wheel know of. First member of everything that has a descriptor.
cdef struct Handle:
    Handle* ready_prev
    Handle* ready_next
    Handle* timer_prev
    Handle* timer_next
    uint64_t deadline_ns            # 0: none
    int32_t timer_slot              # -1: not on the wheel
    int32_t fd                      # -1: closed
    uint8_t kind
    uint8_t events                  # EVENT_*, level kept here because epoll is edge-triggered
    uint8_t on_ready
    uint8_t reserved[5]

cdef struct Tls
cdef struct Http2
cdef struct Uplink

# Fixed-size objects from one mapping, last freed first out, so that what is not used is never touched.
cdef struct Pool:
    uint8_t* base
    uint32_t* free_stack
    uint8_t* taken                  # one byte an object: a double free is caught at once
    uint64_t object_bytes
    uint32_t count
    uint32_t free

cdef struct Buffer:
    Buffer* next
    uint32_t start
    uint32_t end
    uint64_t reserved[6]
    uint8_t data[24576]             # BUFFER_BYTES

cdef struct Queue:                  # bytes on their way to a socket
    Buffer* head
    Buffer* tail
    uint64_t bytes

cdef struct PolicyRef:              # a policy in use; unmapped when it is not in force and no request holds it
    const Policy* policy
    uint32_t refs
    bint current

# What a PROXY header said, kept for as long as the connection lives. Only connections that such a header began have one.
cdef struct ProxyNote:
    Address peer                    # who connected and wrote the header
    Address destination             # where the client had connected to
    uint16_t destination_port
    uint16_t text_len
    uint8_t text[988]               # JSON fields of the TLVs, each with a comma before it

cdef struct Client:
    Handle h
    uint8_t state
    uint8_t proof
    uint8_t proxy_due               # the PROXY header has to come before anything else
    uint8_t hello_due               # then a TLS ClientHello
    uint8_t keep_alive
    uint8_t silent                  # on the list of connections that have not sent a byte since accept
    uint8_t counted
    uint8_t refused                 # of a stream: HTTP1_* that is wrong with its head
    uint16_t listener
    uint16_t port
    uint16_t area_seen              # area of the last request + 1: connection rules are charged once an area
    uint32_t requests
    uint32_t scan
    Address peer
    uint64_t peer_key               # keyed hash of the peer's client form
    uint64_t since_ns               # accept, or the first byte of the present head
    uint64_t blocked_ns             # since when the client does not take what we have; 0: it does
    uint64_t blocked_bytes          # taken since
    uint64_t linger_left            # bytes that may still be read off
    uint64_t linger_ns              # when the last of them came
    Buffer* inbox
    Queue out
    Exchange* exchange
    Client* silent_prev
    Client* silent_next
    uint64_t count_key              # of the connection count
    ProxyNote* proxy                # NULL: no PROXY header named the client
    Origin* named                   # idle, its PROXY header names this client: nobody else may use it; NULL: none
    Tls* tls                        # NULL: in clear text
    Http2* http2                    # NULL: HTTP/1.1

cdef struct Origin:
    Handle h
    uint8_t state
    uint8_t reusable
    uint8_t fresh                   # no response on this connection yet
    uint8_t was_reset               # a write took the error away: the reads that follow end as if in order
    uint16_t origin_id
    uint16_t reserved
    uint32_t pool_epoch             # of OriginPool, when it was opened
    uint32_t scan
    uint64_t requests
    uint64_t activity_ns
    Exchange* exchange
    Buffer* inbox
    Queue out
    Origin* pool_prev
    Origin* pool_next
    Client* owner                   # while idle: the client that its PROXY header names
    Address named                   # what that header says; proxy_version 0: there was none
    uint16_t named_port
    uint16_t proxy_version
    Tls* tls                        # NULL: in clear text
    Uplink* http2                   # NULL: HTTP/1.1

cdef struct Pipe:
    int fds[2]                      # -1: could not be replaced yet
    uint32_t size
    uint32_t held                   # bytes inside
    uint32_t taken

cdef struct Frames:                 # where in a WebSocket's frames a way is
    uint64_t left                   # of the present payload
    uint8_t head[14]
    uint8_t have                    # bytes of head
    uint8_t control                 # the present frame is a close, ping or pong

cdef struct TunnelWay:
    Frames frames
    uint64_t stuck_ns               # since when the sink takes nothing; 0: it does
    uint32_t window                 # bytes read at once
    uint8_t ended                   # 1: the source said all, 2: and the sink was told

cdef struct Tunnel:
    TunnelWay up                    # client to origin
    TunnelWay down
    uint64_t since_ns               # 0: not open
    uint64_t byte_ns                # of the last byte either way
    uint64_t message_ns             # of the last message
    uint64_t client_key             # of the counts
    uint64_t area_key
    uint8_t client_counted
    uint8_t area_counted
    uint8_t frames                  # a WebSocket: frames tell messages from pings
    uint8_t how                     # TUNNEL_*

cdef enum:
    LANE_KNOWN = 0                  # people known from before
    LANE_NEW = 1

cdef struct WaitQueue:              # for a place at an origin; first in, first out in each lane
    Exchange* head[2]               # LANE_*
    Exchange* tail[2]
    uint32_t waiting

cdef enum:
    USE_NONE = 0                    # the cache has nothing to do with it
    USE_UNSAFE = 1                  # its success invalidates what is kept of its URL
    USE_PASS = 2                    # goes to the origin by itself; its answer may be kept all the same
    USE_FETCH = 3                   # has the claim: fetches for everybody
    USE_WAIT = 4                    # for another's fetch
    USE_SERVE = 5                   # is given a kept answer
    USE_DONE = 6

    SAID_NOTHING = 0                # scrubber.cache of the access line
    SAID_PASS = 1
    SAID_MISS = 2
    SAID_HIT = 3                    # from here on: kept answers
    SAID_STALE = 4
    SAID_COLLAPSED = 5              # waited for another's fetch

    NONE_MATCH_BYTES_MAX = 160      # of If-None-Match; a longer one is answered in full

# What the cache has to do with an exchange.
cdef struct CacheUse:
    Exchange* prev                  # on the list of those who wait, or of those who fetch
    Exchange* next
    uint8_t state                   # USE_*
    uint8_t said                    # SAID_*
    uint8_t listed
    uint8_t filling                 # the answer is being put together in fill
    uint8_t behind                  # the client could not keep up with the fetch: it is given the rest from what was kept
    uint8_t validating              # our own If-None-Match or If-Modified-Since went out
    uint8_t marks                   # Vary names are to be written
    uint8_t none_match_len
    uint8_t as_get                  # a HEAD that is fetched as GET, so that its answer may be kept: the client gets no body
    uint32_t fill_head              # bytes of head in fill
    uint32_t offset                 # of the body that is given next
    uint32_t body_bytes
    uint32_t age_s                  # of what is given
    int64_t ttl_s
    CacheAsk ask
    CacheAnswer answer              # of what is being put together
    CacheKey primary                # of the URL
    CacheKey key                    # of the answer: with what it varies by
    CacheKey claimed
    CacheKey store                  # under which it will be kept
    uint64_t version                # of the Vary names in key, store
    uint64_t tag
    uint64_t claim
    uint64_t epoch                  # of the area when it was claimed
    uint64_t since_ns
    uint64_t asked_wall_ns
    uint64_t pos                    # of what is given
    uint64_t body_id
    uint64_t given                  # of the body, to the client, while filling
    Queue fill
    uint8_t none_match[160]         # NONE_MATCH_BYTES_MAX

# One request and its answer.
cdef struct Exchange:
    Client* client                  # NULL never; an exchange ends with its client
    Origin* origin                  # NULL: none yet, or given back
    PolicyRef* policy
    const AreaSpec* area
    const PoolSpec* pool            # the area's own, unless a route says otherwise; NULL: no area
    Exchange* wait_prev             # waiting for an origin connection
    Exchange* wait_next
    WaitQueue* queue                # it waits in
    const OriginSpec* spec          # the origin chosen last; NULL: none yet
    uint64_t balance_key
    uint64_t tried                  # a bit for each origin of the pool that refused a connection
    uint32_t host_off               # where the origin's own Host goes into the head; 0: the client's is in it
    uint8_t waiting
    uint8_t ready                   # was waiting; a place came free
    uint8_t promised                # that place, at origin_id, is kept for it
    uint8_t waited                  # it has had a place in a queue
    uint8_t evicted                 # was waiting; somebody known came
    uint8_t request_stopped         # the origin takes no more of the body
    uint8_t method
    uint8_t minor
    uint8_t request_body
    uint8_t request_done            # body fully taken from the client and queued towards the origin
    uint8_t response_body
    uint8_t response_started        # the final head has been queued to the client
    uint8_t response_done
    uint8_t client_chunked          # we frame the body to the client by chunks
    uint8_t keep_alive              # towards the client
    uint8_t retried
    uint8_t moved                   # a new connection ended without an answer: sent once more, to another origin
    uint8_t tries
    uint8_t interim
    uint8_t wants_json
    uint8_t good
    uint8_t aborted
    uint8_t upstream_closed
    uint8_t upgrade                 # asked for, and let through by the area
    uint8_t reason                  # HTTP1_* when the head was refused
    uint16_t status                 # sent to the client; 0: none
    uint16_t origin_id
    uint16_t connect_status         # of the last connect that failed: 502, 504 for one that took too long, 503 for one not begun
    uint32_t window                 # bytes read at once for the body: grows while the client keeps up
    uint64_t request_left           # BODY_LENGTH
    uint64_t response_left
    Chunked request_chunked
    Chunked response_chunked
    uint64_t start_ns               # first byte of the head
    uint64_t judged_ns
    uint64_t sent_ns                # request handed to the origin
    uint64_t first_ns               # first byte of the origin's answer
    uint64_t rate_ns                # since when the body's minimum rate is measured
    uint64_t rate_bytes
    uint64_t bytes_in               # body
    uint64_t bytes_out              # body
    uint64_t request_id
    uint64_t client_key
    uint16_t client_port            # 0: a chain does not tell
    uint8_t id_len                  # of a request id taken over from a trusted proxy; 0: request_id is ours
    uint8_t id_text[128]            # REQUEST_ID_BYTES_MAX
    uint64_t fingerprint
    uint64_t account_key
    uint64_t queued_ns              # since when it waits for an origin connection
    uint64_t queue_ns               # how long it waited, in all
    uint64_t connect_ns             # how long the last connect took; 0: none was made for it
    uint32_t head_in                # bytes of the heads, as they came in and as they went out
    uint32_t head_out
    const RouteSpec* route          # NULL: none
    const PageSpec* page            # its body is being sent; NULL: it is not
    uint32_t page_part
    uint32_t page_sent              # of that part
    uint32_t retry_s                # Retry-After of what is answered here; 0: none
    uint8_t own                     # answered by a route or a maintenance page, not by an origin
    uint8_t https                   # the client's side is
    uint8_t trailers                # the client can take them (TE), and its version of HTTP is one in which they are passed on
    Pipe* pipe_up                   # holds bytes on their way to the origin; NULL: none
    Pipe* pipe_down                 # and to the client
    Buffer* head                    # the head as sent to the origin, kept until the answer begins (for the one retry)
    Judgement judgement
    Address client_address          # proven, whole
    Span protocol                   # of the upgrade, into the policy's text
    Tunnel tunnel
    CacheUse cache
    uint32_t note_len
    uint8_t note[1536]              # NOTE_BYTES: what the access line says of the request

cdef struct ListenerHandle:
    Handle h
    uint32_t index                  # of the listener: its place in every policy, and in Core.listeners
    uint32_t retired                # accepts no more; its connections end with their request
    uint64_t deadline_ns            # when they are cut

cdef struct OriginPool:             # connections to one origin, of this worker
    Origin* idle                    # last used first
    Origin* idle_tail
    WaitQueue queue                 # of those that no other origin may serve
    int64_t turn                    # of the weighted round
    uint32_t pool_id
    uint32_t promised               # places kept for those who waited
    uint32_t seen                   # by the sweep after a swap
    uint32_t open
    uint32_t idle_count
    uint32_t in_flight
    uint32_t connections_max        # of this worker, as the policy in force says
    uint64_t idle_ns
    void* context                   # SSL_CTX of the policy in force; NULL: in clear text
    uint32_t http2                  # it speaks HTTP/2
    uint32_t epoch                  # grows when the address behind the id, or its TLS, changes: older connections are not reused
    uint32_t address_bytes
    uint8_t sockaddr[128]
    uint32_t name_epoch             # of `name`, the address as access lines have it
    uint32_t name_len
    uint8_t name[112]

cdef struct PoolState:              # of one pool of origins, of this worker
    WaitQueue queue
    RetryBudget retry

cdef struct Core:
    int epoll_fd
    uint32_t worker
    uint64_t now_ns
    uint64_t wall_offset_ns         # wall clock less monotonic
    Shared* shared
    Totals* totals
    Gauges* gauges
    PolicyRef* policy
    PolicyRef policies[256]         # POLICIES_MAX
    Pool clients
    Pool exchanges
    Pool origins
    Pool buffers
    Pool notes                      # ProxyNote
    Pool tls                        # Tls
    Pool sessions                   # Http2
    Pool streams                    # Stream
    Pool uplinks                    # Uplink
    Http2* due_head                 # connections with frames to send
    Http2* due_tail
    void* spares[17]                # SPARE_KINDS: pieces of memory for sessions, by size; the first word of each leads to the next
    uint64_t spares_bytes
    uint8_t* frames                 # FRAMES_BYTES: what is read from, or written to, an HTTP/2 connection
    uint8_t* head                   # BUFFER_BYTES: a head on its way into HEADERS
    nghttp2_nv* fields              # HTTP2_ANSWER_FIELDS_MAX
    Tls* handshake_head[2]          # LANE_*: who waits for the private key
    Tls* handshake_tail[2]
    uint8_t* sealed                 # TLS_SEALED_BYTES: records on their way from OpenSSL to a socket
    uint64_t sealed_bytes
    Handle ready                    # sentinel of the ready list
    Handle* grave                   # closed in this pass: given back at its end, when no event can name them any more
    Handle* wheel[1025]             # WHEEL_SLOTS, and one for the slot that is expiring
    uint64_t tick                   # last tick served
    ListenerHandle timer
    ListenerHandle listeners[64]    # LISTENERS_MAX, by index; fd -1: not open here
    uint32_t retiring               # listeners that are retired and may still have connections
    uint32_t accepts
    bint accept_paused              # out of descriptors: tried again at the next tick
    bint draining
    uint64_t drain_deadline_ns
    bint access_log                 # access lines are wanted
    uint64_t log_pass_ns            # between two lines of requests that passed; 0: all are written
    uint64_t log_due_ns             # when the next one is due
    uint64_t log_left_out           # since the last one that was written
    bint starved                    # somebody waits for buffers
    Client* silent                  # oldest first
    Client* silent_tail
    OriginPool origin_pools[1024]   # ORIGINS_MAX
    PoolState pools[512]            # POOLS_MAX
    uint32_t swaps
    AreaSpec area_none              # limits for what no area claims
    Http1Limits answer_limits       # of origins' heads: an area's own are about clients
    uint32_t tarpit
    uint64_t id_state               # request ids
    HashKey id_key
    RequestHead request             # scratch: the head being looked at
    ResponseHead response
    uint8_t path[2048]              # PATH_BYTES_MAX
    uint8_t account[512]
    Span groups[10]                 # PATTERN_GROUPS_MAX + 1: of the route's pattern, places in path
    uint8_t line[6144]              # scratch for answers and access lines
    uint8_t* relay                  # RELAY_BYTES
    Pipe pipes[16]                  # PIPES_MAX
    uint32_t pipe_count
    Exchange* cache_waiters         # who waits for another's fetch
    Exchange* cache_fetchers
    uint32_t cache_waiting
    uint64_t cache_seen             # CacheHead.sequence when the waiting were last looked through
    uint64_t cache_renewed_ns       # when the claims were last renewed
    uint64_t cache_fill_bytes       # of all answers that are being put together
    CacheWriter cache_writer
    uint8_t cache_lead[17024]       # CACHE_LEAD_BYTES_MAX
    uint64_t clock_second           # of the cached texts below
    uint8_t date[32]                # IMF-fixdate (RFC 9110 5.6.7)
    uint8_t stamp[24]               # "2026-11-22T16:59:00."
    epoll_event events[512]         # PASS_EVENTS_MAX

# Bytes being put together in a bounded place; `full` is sticky.
cdef struct Writer:
    uint8_t* at
    uint8_t* end
    bint full
