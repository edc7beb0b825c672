# Step 2, hello: see hello.pxd. Owns CLIENT_HANDSHAKE and the queue of those whose turn has not come. Invariants: whoever is refused here
# has cost no private key, no SSL and no place in the pool of these; the fingerprint is taken of the bytes as they came; what a refusal or
# a failure was about is on the access line.

cdef extern from "tls.h" nogil:
    void SSL_set_accept_state(SSL* ssl)
    void SSL_get0_alpn_selected(const SSL* ssl, const unsigned char** name, unsigned int* length)
    int SSL_session_reused(const SSL* ssl)
    const SSL_CIPHER* SSL_get_current_cipher(const SSL* ssl)
    const char* SSL_CIPHER_standard_name(const SSL_CIPHER* cipher)
    void scrubber_only_13(SSL* ssl)
    unsigned int scrubber_subject(SSL* ssl, unsigned char* out, unsigned int room)

cdef enum:
    ALERT_DECODE_ERROR = 50         # RFC 8446 6
    ALERT_UNRECOGNIZED_NAME = 112

    HANDSHAKE_SALT = 0x68656c6c6f

# What is known of a client before its handshake.
cdef struct Greeting:
    const uint8_t* message
    ClientHello hello
    int32_t area                # index in the policy; -1: none that may be shown
    uint8_t fingerprinted
    uint8_t ja3[32]
    uint8_t ja4[36]


# --- access lines -------------------------------------------------------------------------------------------------------------------------

cdef void put_text_field(Writer* w, const char* name, const char* text) noexcept nogil:
    if text != NULL:
        put_field(w, name, <uint32_t>c_strlen(name), <const uint8_t*>text, <uint32_t>c_strlen(text), 64)


cdef void put_greeting(Writer* w, const uint8_t* name, uint32_t name_len, bint fingerprinted, const uint8_t* ja3,
                       const uint8_t* ja4) noexcept nogil:
    put_field(w, b"tls.client.server_name", 22, name, name_len, 255)
    if fingerprinted:
        put_field(w, b"tls.client.ja3", 14, ja3, JA3_BYTES, JA3_BYTES)
        put_field(w, b"tls.client.ja4", 14, ja4, JA4_BYTES, JA4_BYTES)


cdef void tls_note(Tls* t) noexcept nogil:
    """What access lines say of a connection whose handshake is done."""
    cdef const SSL_CIPHER* cipher = SSL_get_current_cipher(t.ssl)
    cdef Writer w
    w.at = t.text
    w.end = t.text + sizeof(t.text)
    w.full = False
    if cipher != NULL:
        put_either(&w, SSL_version(t.ssl) == TLS1_3_VERSION, b",\"tls.version\":\"1.3\"", b",\"tls.version\":\"1.2\"")
        put_text_field(&w, b"tls.cipher", SSL_CIPHER_standard_name(cipher))
    put_greeting(&w, t.name, t.name_len, t.fingerprinted, t.ja3, t.ja4)
    if t.alpn:
        put_either(&w, t.alpn == ALPN_H2, b",\"tls.next_protocol\":\"h2\"", b",\"tls.next_protocol\":\"http/1.1\"")
    if SSL_session_reused(t.ssl):
        put_text(&w, b",\"tls.resumed\":true")
    put_field(&w, b"tls.client.subject", 18, t.subject, t.subject_len, TLS_SUBJECT_BYTES_MAX)
    t.text_len = <uint16_t>(w.at - t.text)


cdef void connection_record(Core* e, Client* c, uint8_t reason, const Greeting* g, const Judgement* j) noexcept nogil:
    """The access line of a connection that ends for what its client did, not with a request; the caller ends it, and the exchange."""
    cdef Exchange* x = exchange_open(e, c)
    cdef Writer w
    x.reason = reason
    x.judged_ns = e.now_ns
    x.keep_alive = 0
    x.response_done = 1
    if j != NULL:
        x.judgement = j[0]
    note_refused(e, c, x)
    if g != NULL and e.access_log:
        if g.area >= 0:
            x.area = &x.policy.policy.areas[g.area]
        w.at = x.note + x.note_len
        w.end = x.note + NOTE_BYTES
        w.full = False
        put_greeting(&w, g.message + g.hello.name.off, g.hello.name.len, g.fingerprinted, g.ja3, g.ja4)
        x.note_len = <uint32_t>(w.at - x.note)


cdef void hello_refuse(Core* e, Client* c, uint8_t reason, uint8_t alert, const Greeting* g) noexcept nogil:
    e.totals.handshakes_failed += 1
    tls_alert(c.h.fd, alert)
    connection_record(e, c, reason, g, NULL)
    client_close(e, c, False)


# --- the first message --------------------------------------------------------------------------------------------------------------------

cdef void hello_plain(Core* e, Client* c) noexcept nogil:
    """No TLS record. Whoever speaks HTTP is told so in HTTP; others get nothing."""
    cdef uint8_t first = c.inbox.data[c.inbox.start]
    c.hello_due = 0
    if c"A" <= first <= c"Z":
        client_refuse(e, c, HTTP1_PLAIN_HTTP)
        return
    e.totals.bad_requests += 1
    connection_record(e, c, HTTP1_BAD_HELLO, NULL, NULL)
    client_close(e, c, True)


cdef int32_t hello_area(const Policy* p, const ListenerSpec* listener, const Greeting* g) noexcept nogil:
    """The area whose certificate is shown; -1: none. A name that nobody has is the default area's, unless such names are refused."""
    cdef int32_t area = policy_area_named(p, listener, g.message + g.hello.name.off, g.hello.name.len)
    if area < 0 and not listener.tls & LISTENER_TLS_STRICT:
        area = policy_area_default(p, listener)
    return area if area >= 0 and p.tls_areas != NULL and p.tls_areas[area] != NULL else -1


cdef bint handshakes_over(Core* e, const Facts* f) noexcept nogil:
    """The gateway's own bound on the handshakes of one client."""
    cdef Admission a
    cdef const Rate* rate = &f.policy.header.handshakes_client
    limiter_admit(&e.shared.limiter, siphash_pair(&e.shared.secret, HANDSHAKE_SALT, f.client_key), rate, 1, 1000000, e.now_ns, &a)
    return a.limited


cdef bint hello_refused(Core* e, Client* c, const Greeting* g, bint* known) noexcept nogil:
    """Blocks, rules about handshakes and fingerprints, the client's share of handshakes."""
    cdef Facts f
    cdef Judgement j
    memset(&f, 0, sizeof(Facts))
    memset(&j, 0, sizeof(Judgement))
    f.policy = e.policy.policy
    f.listener = &f.policy.listeners[c.listener]
    f.proof = c.proof
    f.client_full = c.peer
    facts_address(e, &f)
    if trusted_peer(&f):
        return False
    f.area = &f.policy.areas[g.area]
    if g.fingerprinted:
        facts_tls(e, &f, g.ja3, g.ja4)
    judge_hello(e.shared, &f, e.now_ns, &j)
    known[0] = j.known
    if j.verdict == VERDICT_PASS and not handshakes_over(e, &f):
        return False
    e.totals.handshakes_refused += 1
    connection_record(e, c, 0 if j.verdict != VERDICT_PASS else HTTP1_TOO_MANY_HANDSHAKES, g, &j)
    client_close(e, c, True)
    return True


cdef void name_take(Tls* t, const Greeting* g) noexcept nogil:
    cdef const uint8_t* name = g.message + g.hello.name.off
    cdef uint32_t i
    t.name_len = <uint8_t>g.hello.name.len
    for i in range(t.name_len):
        t.name[i] = fold(name[i])


cdef void hello_take(Core* e, Client* c, const Greeting* g) noexcept nogil:
    cdef const Policy* p = e.policy.policy
    cdef const ListenerSpec* listener = &p.listeners[c.listener]
    cdef bint known = False
    cdef Tls* t
    if hello_refused(e, c, g, &known):
        return
    t = tls_new(e, &c.h, <SSL_CTX*>p.tls_areas[g.area])
    if t == NULL:
        client_close(e, c, True)
        return
    SSL_set_accept_state(t.ssl)
    if listener.tls & LISTENER_TLS_13:
        scrubber_only_13(t.ssl)
    t.offered = <uint8_t>(1 << ALPN_HTTP1 | (1 << ALPN_H2 if listener.tls & LISTENER_HTTP2 else 0))
    t.area_id = p.areas[g.area].area_id
    t.fingerprinted = g.fingerprinted
    memcpy(t.ja3, g.ja3, JA3_BYTES)
    memcpy(t.ja4, g.ja4, JA4_BYTES)
    name_take(t, g)
    # OpenSSL reads what we have read; then the socket, which may have more.
    t.raw = c.inbox
    c.inbox = NULL
    c.h.events |= EVENT_READ
    c.tls = t
    c.state = CLIENT_HANDSHAKE
    silent_remove(e, c)
    timer_clear(e, &c.h)
    timer_set(e, &c.h, c.since_ns + listener.handshake_ns)
    handshake_wait(e, t, LANE_KNOWN if known else LANE_NEW)


cdef bint hello_read(Core* e, Client* c) noexcept nogil:
    cdef Buffer* b = c.inbox
    cdef Greeting g
    cdef uint32_t length = 0, used = 0
    cdef const ListenerSpec* listener = &e.policy.policy.listeners[c.listener]
    cdef int outcome = hello_gather(b.data + b.start, b.end - b.start, e.relay, &g.message, &length, &used)
    if outcome == HELLO_MORE and b.end - b.start < BUFFER_BYTES:
        return True
    if outcome == HELLO_PLAIN:
        hello_plain(e, c)
        return False
    if outcome == HELLO_OK:
        outcome = hello_parse(g.message, length, &g.hello)
    if outcome != HELLO_OK:
        hello_refuse(e, c, HTTP1_BAD_HELLO, ALERT_DECODE_ERROR, NULL)
        return False
    c.hello_due = 0
    g.fingerprinted = hello_ja3(&g.hello, g.ja3) and hello_ja4(g.message, &g.hello, g.ja4)
    g.area = hello_area(e.policy.policy, listener, &g)
    if g.area < 0:
        hello_refuse(e, c, HTTP1_UNKNOWN_NAME, ALERT_UNRECOGNIZED_NAME, &g)
        return False
    hello_take(e, c, &g)
    return False


# --- the queue ----------------------------------------------------------------------------------------------------------------------------

cdef void handshake_wait(Core* e, Tls* t, uint32_t lane) noexcept nogil:
    t.waiting = <uint8_t>(1 + lane)
    t.wait_prev = e.handshake_tail[lane]
    t.wait_next = NULL
    if t.wait_prev != NULL:
        t.wait_prev.wait_next = t
    else:
        e.handshake_head[lane] = t
    e.handshake_tail[lane] = t


cdef void handshake_leave(Core* e, Tls* t) noexcept nogil:
    cdef uint32_t lane = <uint32_t>(t.waiting - 1)
    if not t.waiting:
        return
    t.waiting = 0
    if t.wait_prev != NULL:
        t.wait_prev.wait_next = t.wait_next
    else:
        e.handshake_head[lane] = t.wait_next
    if t.wait_next != NULL:
        t.wait_next.wait_prev = t.wait_prev
    else:
        e.handshake_tail[lane] = t.wait_prev


cdef void handshakes_serve(Core* e) noexcept nogil:
    cdef Tls* t
    cdef uint32_t turn
    for turn in range(PASS_HANDSHAKES_MAX):
        t = e.handshake_head[LANE_KNOWN]
        # The last one of a pass is a newcomer's: these wait, but not for ever.
        if t == NULL or (turn == PASS_HANDSHAKES_MAX - 1 and e.handshake_head[LANE_NEW] != NULL):
            t = e.handshake_head[LANE_NEW]
        if t == NULL:
            return
        handshake_leave(e, t)
        client_step(e, <Client*>t.handle)


# --- the handshake ------------------------------------------------------------------------------------------------------------------------

cdef void handshake_failed(Core* e, Client* c, uint8_t reason) noexcept nogil:
    e.totals.handshakes_failed += 1
    tls_note(c.tls)
    connection_record(e, c, reason, NULL, NULL)
    client_close(e, c, False)


cdef void handshake_done(Core* e, Client* c) noexcept nogil:
    cdef Tls* t = c.tls
    cdef const unsigned char* name = NULL
    cdef unsigned int length = 0
    SSL_get0_alpn_selected(t.ssl, &name, &length)
    t.alpn = <uint8_t>(ALPN_H2 if length == 2 else ALPN_HTTP1 if length == 8 else ALPN_NONE)
    t.subject_len = <uint16_t>scrubber_subject(t.ssl, t.subject, TLS_SUBJECT_BYTES_MAX)
    tls_note(t)
    e.totals.handshakes += 1
    if SSL_session_reused(t.ssl):
        e.totals.handshakes_resumed += 1
    if t.alpn == ALPN_H2:
        http2_open(e, c)
        return
    c.state = CLIENT_IDLE
    c.since_ns = e.now_ns
    timer_clear(e, &c.h)
    timer_set(e, &c.h, e.now_ns + area_fallback(e, c.listener).head_ns)


cdef bint handshakes_wait(const Core* e) noexcept nogil:
    return e.handshake_head[LANE_KNOWN] != NULL or e.handshake_head[LANE_NEW] != NULL


cdef bint handshake_step(Core* e, Client* c) noexcept nogil:
    cdef Tls* t = c.tls
    cdef uint64_t taken = 0
    cdef int outcome
    if c.h.events & EVENT_BROKEN:
        handshake_failed(e, c, HTTP1_HANDSHAKE_FAILED)
        return False
    if t.waiting:
        return False
    if t.wire.head != NULL and c.h.events & EVENT_WRITE:
        outcome = queue_flush(e, &t.wire, c.h.fd, &taken)
        if outcome == 0:
            c.h.events &= <uint8_t>~EVENT_WRITE
        elif outcome < 0:
            handshake_failed(e, c, HTTP1_HANDSHAKE_FAILED)
            return False
    if t.raw == NULL and not c.h.events & EVENT_READ:
        return False
    outcome = tls_shake(e, t)
    if outcome < 0:
        handshake_failed(e, c, HTTP1_HANDSHAKE_FAILED)
        return False
    if outcome == 1:
        handshake_done(e, c)
    return outcome == 1


cdef void handshake_timeout(Core* e, Client* c) noexcept nogil:
    e.totals.timeouts_handshake += 1
    handshake_failed(e, c, HTTP1_HANDSHAKE_LATE)
