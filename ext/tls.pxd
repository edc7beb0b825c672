# TLS by OpenSSL (>= 3.0): contexts made of a policy's certificates, and what a connection needs of it. The engine reads and writes
# the sockets: OpenSSL works on its buffers through one BIO of ours, so that everything before and behind TLS is the same path.
cdef extern from "tls.h" nogil:
    ctypedef struct BIO:
        pass
    ctypedef struct BIO_METHOD:
        pass
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL_CIPHER:
        pass
    ctypedef struct X509:
        pass
    ctypedef struct EVP_CIPHER_CTX:
        pass
    ctypedef struct EVP_MAC_CTX:
        pass
    ctypedef struct scrubber_staple:
        X509* certificate
        unsigned char* data
        int length
    ctypedef struct scrubber_staples:
        int count
        scrubber_staple staples[4]

cdef enum:
    TLS_HANDSHAKE = 1           # Tls.state
    TLS_OPEN = 2
    TLS_BROKEN = 3              # no SSL_* call on it any more

    TLS_SEALED_BYTES = 327680   # RELAY_BYTES in records, with what each adds
    TLS_NAME_BYTES_MAX = 255
    TLS_SUBJECT_BYTES_MAX = 256
    TLS_TEXT_BYTES_MAX = 1024

    ALPN_NONE = 0
    ALPN_HTTP1 = 1
    ALPN_H2 = 2

# One connection's TLS, a client's or an origin's.
cdef struct Tls:
    SSL* ssl
    Core* engine
    Handle* handle              # whose socket it is
    Buffer* raw                 # what was read before OpenSSL was there; NULL: nothing of it is left
    Queue wire                  # records that the socket has not taken
    Tls* wait_prev              # waiting for its handshake
    Tls* wait_next
    uint8_t state
    uint8_t waiting             # 1 + LANE_*; 0: it does not
    uint8_t bye                 # we said that nothing more comes (close_notify)
    uint8_t cut                 # its socket ended without that
    uint8_t offered             # bits of 1 << ALPN_*: what we speak here
    uint8_t alpn                # ALPN_* that was agreed on
    uint8_t fingerprinted       # ja3 and ja4 are there
    uint8_t name_len            # server_name in lower case; 0: none
    uint32_t area_id            # that it named; NO_AREA: none
    uint16_t subject_len        # of the client's certificate (RFC 4514), verified; 0: none
    uint16_t text_len           # JSON fields for access lines, each with a comma before it
    uint8_t ja3[32]             # JA3_BYTES
    uint8_t ja4[36]             # JA4_BYTES
    uint8_t name[255]
    uint8_t subject[256]
    uint8_t text[1024]

# A TLS of the pool for a socket, with an SSL of that context. NULL: no room, or OpenSSL has no memory.
cdef Tls* tls_new(Core* e, Handle* h, SSL_CTX* context) noexcept nogil
cdef void tls_free(Core* e, Tls* t) noexcept nogil
# Goes on with the handshake. 1: it is done, 0: more has to come, -1: it failed. What it wrote is on its way.
cdef int tls_shake(Core* e, Tls* t) noexcept nogil
# As recv: > 0 bytes, 0 the end, -1 with errno (EAGAIN: nothing now; ECONNRESET: broken, or an end that nobody announced).
# EVENT_READ is cleared where nothing is left, and only then.
cdef ssize_t tls_recv(Core* e, Tls* t, void* data, uint64_t n) noexcept nogil
# As queue_send and queue_flush, of plain bytes. A record is on the wire queue until the socket takes it.
cdef int tls_send(Core* e, Tls* t, Queue* q, const uint8_t* data, uint64_t n) noexcept nogil
cdef int tls_flush(Core* e, Tls* t, Queue* q, uint64_t* taken) noexcept nogil
# The same of a socket, in clear text (t NULL) or through TLS: the only doors to it. EVENT_READ is cleared where nothing more is there.
cdef ssize_t socket_recv(Core* e, Handle* h, Tls* t, void* data, uint64_t n) noexcept nogil
cdef int socket_send(Core* e, Handle* h, Tls* t, Queue* q, const uint8_t* data, uint64_t n, int flags) noexcept nogil
cdef int socket_flush(Core* e, Handle* h, Tls* t, Queue* q, uint64_t* taken) noexcept nogil
# Something is on its way that the socket has not taken.
cdef bint socket_unsent(const Queue* q, const Tls* t) noexcept nogil
# Tells the other side that nothing more will be sent, as far as the socket takes it.
cdef void tls_bye(Core* e, Tls* t) noexcept nogil
# A fatal alert in clear text, for whom there is no SSL: as far as the socket takes it.
cdef void tls_alert(int fd, uint8_t description) noexcept nogil
