# TLS of one connection: see tls.pxd. Owns the BIO between OpenSSL and the engine's sockets and buffers. Invariants: e.sealed is empty but
# within one call of this file; records leave in the order in which they were made; EVENT_READ is cleared only where OpenSSL wants more
# than there is; after an error nothing is asked of the SSL again.
cdef extern from "tls.h" nogil:
    SSL* SSL_new(SSL_CTX* context)
    void SSL_free(SSL* ssl)
    void SSL_set_bio(SSL* ssl, BIO* source, BIO* sink)
    void SSL_set_connect_state(SSL* ssl)
    int scrubber_expect(SSL* ssl, const char* name)
    int SSL_do_handshake(SSL* ssl)
    int SSL_read(SSL* ssl, void* data, int n)
    int SSL_write(SSL* ssl, const void* data, int n)
    int SSL_shutdown(SSL* ssl)
    int SSL_get_error(const SSL* ssl, int result)
    int SSL_has_pending(const SSL* ssl)
    void ERR_clear_error()
    BIO* BIO_new(const BIO_METHOD* method)
    void BIO_set_data(BIO* b, void* data)
    void* BIO_get_data(BIO* b)
    void BIO_clear_retry_flags(BIO* b)
    int BIO_free(BIO* b)
    BIO_METHOD* scrubber_bio_method(int (*take)(BIO*, char*, int) noexcept nogil, int (*give)(BIO*, const char*, int) noexcept nogil)
    int scrubber_bio_again(BIO* b)
    void scrubber_set_data(SSL* ssl, void* data)
    void scrubber_set_errno(int error)
    void scrubber_done(SSL* ssl)
    const int SSL_ERROR_WANT_READ
    const int SSL_ERROR_ZERO_RETURN

cdef enum:
    READ_BYTES_MAX = 1 << 30


# --- the BIO ------------------------------------------------------------------------------------------------------------------------------

cdef int bio_write(BIO* b, const char* data, int n) noexcept nogil:
    cdef Core* e = (<Tls*>BIO_get_data(b)).engine
    if n <= 0 or <uint64_t>n > TLS_SEALED_BYTES - e.sealed_bytes:
        return -1
    memcpy(e.sealed + e.sealed_bytes, data, <size_t>n)
    e.sealed_bytes += <uint64_t>n
    return n


cdef int bio_raw(Tls* t, char* out, int n) noexcept nogil:
    """What was read before OpenSSL was there."""
    cdef Buffer* b = t.raw
    cdef uint32_t take = b.end - b.start
    if take > <uint32_t>n:
        take = <uint32_t>n
    memcpy(out, b.data + b.start, take)
    b.start += take
    if b.start == b.end:
        buffer_put(t.engine, b)
        t.raw = NULL
    return <int>take


cdef int bio_read(BIO* b, char* out, int n) noexcept nogil:
    cdef Tls* t = <Tls*>BIO_get_data(b)
    cdef Handle* h = t.handle
    cdef ssize_t got
    BIO_clear_retry_flags(b)
    if n <= 0 or h.fd < 0:
        return -1
    if t.raw != NULL:
        return bio_raw(t, out, n)
    # A short read drained the socket: whatever comes later is an edge, which clears EVENT_DRAINED.
    if not h.events & EVENT_READ or h.events & EVENT_DRAINED:
        h.events &= <uint8_t>~EVENT_READ
        return scrubber_bio_again(b)
    got = recv(h.fd, out, <size_t>n, 0)
    if got > 0:
        if got < n and not h.events & EVENT_HANGUP:
            h.events |= EVENT_DRAINED
        return <int>got
    if got < 0 and (scrubber_errno() == EAGAIN or scrubber_errno() == EINTR):
        h.events &= <uint8_t>~EVENT_READ
        return scrubber_bio_again(b)
    t.cut = 1 if got == 0 else 2
    return <int>got


cdef BIO_METHOD* BIO_OURS = scrubber_bio_method(bio_read, bio_write)


cdef int tls_ship(Core* e, Tls* t) noexcept nogil:
    """What OpenSSL wrote. 1: the socket has it, 0: some of it is on the wire queue, -1: broken."""
    cdef uint64_t n = e.sealed_bytes
    e.sealed_bytes = 0
    if n == 0:
        return 1 if t.wire.head == NULL else 0
    return queue_send(e, &t.wire, t.handle, e.sealed, n, 0)


# --- life ---------------------------------------------------------------------------------------------------------------------------------

cdef Tls* tls_new(Core* e, Handle* h, SSL_CTX* context) noexcept nogil:
    cdef Tls* t = <Tls*>pool_get(&e.tls)
    cdef BIO* b
    if t == NULL:
        e.totals.table_full += 1
        return NULL
    memset(t, 0, sizeof(Tls) - TLS_TEXT_BYTES_MAX)
    t.engine = e
    t.handle = h
    t.state = TLS_HANDSHAKE
    t.area_id = NO_AREA
    t.ssl = SSL_new(context)
    b = BIO_new(BIO_OURS)
    if t.ssl == NULL or b == NULL:
        BIO_free(b)
        tls_free(e, t)
        return NULL
    BIO_set_data(b, t)
    SSL_set_bio(t.ssl, b, b)
    scrubber_set_data(t.ssl, t)
    return t


cdef void tls_free(Core* e, Tls* t) noexcept nogil:
    handshake_leave(e, t)
    if t.raw != NULL:
        buffer_put(e, t.raw)
    queue_clear(e, &t.wire)
    if t.ssl != NULL:
        if t.state == TLS_OPEN:
            scrubber_done(t.ssl)
        SSL_free(t.ssl)
    pool_put(&e.tls, t)


cdef int tls_shake(Core* e, Tls* t) noexcept nogil:
    cdef int result, error, shipped
    if t.state == TLS_BROKEN:
        return -1
    ERR_clear_error()
    result = SSL_do_handshake(t.ssl)
    error = SSL_get_error(t.ssl, result)
    shipped = tls_ship(e, t)
    if shipped >= 0 and result == 1:
        t.state = TLS_OPEN
        return 1
    if shipped >= 0 and error == SSL_ERROR_WANT_READ:
        return 0
    t.state = TLS_BROKEN
    return -1


# --- bytes --------------------------------------------------------------------------------------------------------------------------------

cdef ssize_t tls_read_failed(Tls* t, int got) noexcept nogil:
    cdef int error = SSL_get_error(t.ssl, got)
    if error == SSL_ERROR_WANT_READ:
        scrubber_set_errno(EAGAIN)
        return -1
    if error == SSL_ERROR_ZERO_RETURN:
        return 0
    t.state = TLS_BROKEN
    # A client that just goes away is nothing unusual; an origin's answer that ends so may have been cut.
    if t.cut == 1 and t.handle.kind == HANDLE_CLIENT:
        return 0
    scrubber_set_errno(ECONNRESET)
    return -1


cdef inline bint tls_drained(Tls* t) noexcept nogil:
    """Neither OpenSSL nor the socket has anything more, as far as we know."""
    return (t.handle.events & EVENT_DRAINED or not t.handle.events & EVENT_READ) and t.raw == NULL and not SSL_has_pending(t.ssl)


cdef ssize_t tls_recv(Core* e, Tls* t, void* data, uint64_t n) noexcept nogil:
    cdef uint64_t done = 0
    cdef int got
    if t.state != TLS_OPEN:
        scrubber_set_errno(ECONNRESET)
        return -1
    while done < n and t.state == TLS_OPEN:
        ERR_clear_error()
        got = SSL_read(t.ssl, <uint8_t*>data + done, <int>(n - done if n - done < READ_BYTES_MAX else READ_BYTES_MAX))
        if e.sealed_bytes and tls_ship(e, t) < 0:       # an alert, an answer to a key update
            t.state = TLS_BROKEN
        if got <= 0:
            # What is wrong will be wrong at the next call, too.
            return <ssize_t>done if done else tls_read_failed(t, got)
        done += <uint64_t>got
        if tls_drained(t):
            t.handle.events &= <uint8_t>~EVENT_READ
            break
    return <ssize_t>done


cdef bint tls_seal(Tls* t, const uint8_t* data, uint64_t n) noexcept nogil:
    """Plain bytes into e.sealed."""
    cdef int done
    if t.state != TLS_OPEN:
        return False
    while n:
        ERR_clear_error()
        done = SSL_write(t.ssl, data, <int>n)
        if done <= 0:
            t.state = TLS_BROKEN
            return False
        data += done
        n -= <uint64_t>done
    return True


cdef int tls_send(Core* e, Tls* t, Queue* q, const uint8_t* data, uint64_t n) noexcept nogil:
    check(n <= RELAY_BYTES)
    if q.head == NULL and t.wire.head == NULL and t.handle.events & EVENT_WRITE:
        if not tls_seal(t, data, n):
            e.sealed_bytes = 0
            scrubber_set_errno(ECONNRESET)
            return -1
        return tls_ship(e, t)
    return 0 if queue_append(e, q, data, n) else -1


cdef int tls_flush(Core* e, Tls* t, Queue* q, uint64_t* taken) noexcept nogil:
    cdef Buffer* b
    cdef int result = 1
    cdef uint64_t n
    if t.wire.head != NULL:
        if not t.handle.events & EVENT_WRITE:
            return 0
        result = queue_flush(e, &t.wire, t.handle.fd, taken)
    while result == 1 and q.head != NULL:
        while q.head != NULL and e.sealed_bytes <= RELAY_BYTES - BUFFER_BYTES:
            b = q.head
            if not tls_seal(t, b.data + b.start, b.end - b.start):
                e.sealed_bytes = 0
                scrubber_set_errno(ECONNRESET)
                return -1
            q.head = b.next
            q.bytes -= b.end - b.start
            buffer_put(e, b)
        if q.head == NULL:
            q.tail = NULL
        n = e.sealed_bytes
        result = tls_ship(e, t)
        if result == 1:
            taken[0] += n
    return result


cdef void tls_bye(Core* e, Tls* t) noexcept nogil:
    if t.state != TLS_OPEN or t.bye:
        return
    t.bye = 1
    ERR_clear_error()
    SSL_shutdown(t.ssl)
    tls_ship(e, t)


cdef void tls_alert(int fd, uint8_t description) noexcept nogil:
    cdef uint8_t record[7]
    memcpy(record, <const char*>b"\x15\x03\x03\x00\x02\x02", 6)
    record[6] = description
    send(fd, record, 7, MSG_NOSIGNAL)


# --- either way --------------------------------------------------------------------------------------------------------------------------

cdef ssize_t socket_recv(Core* e, Handle* h, Tls* t, void* data, uint64_t n) noexcept nogil:
    cdef ssize_t got
    if t != NULL:
        return tls_recv(e, t, data, n)
    got = recv(h.fd, data, n, 0)
    # A short read has drained the socket, unless data and FIN came as one edge.
    if got >= 0:
        if <uint64_t>got < n and not h.events & EVENT_HANGUP:
            h.events &= <uint8_t>~EVENT_READ
    elif scrubber_errno() == EAGAIN or scrubber_errno() == EINTR:
        h.events &= <uint8_t>~EVENT_READ
    return got


cdef int socket_send(Core* e, Handle* h, Tls* t, Queue* q, const uint8_t* data, uint64_t n, int flags) noexcept nogil:
    return tls_send(e, t, q, data, n) if t != NULL else queue_send(e, q, h, data, n, flags)


cdef int socket_flush(Core* e, Handle* h, Tls* t, Queue* q, uint64_t* taken) noexcept nogil:
    return tls_flush(e, t, q, taken) if t != NULL else queue_flush(e, q, h.fd, taken)


cdef bint socket_unsent(const Queue* q, const Tls* t) noexcept nogil:
    return q.head != NULL or (t != NULL and t.wire.head != NULL)
