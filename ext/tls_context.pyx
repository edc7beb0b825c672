# TLS contexts: see tls_context.pxd. Owns their making and the callbacks of a handshake (ALPN, tickets). Invariants: a context is never
# changed once a connection may use it; contexts of equal content are one object, so that a reload costs nothing for what stayed.
import hashlib
import weakref

from scrubber.errors import PolicyRefused

ctypedef int (*AlpnCallback)(SSL*, const unsigned char**, unsigned char*, const unsigned char*, unsigned int, void*) noexcept nogil
ctypedef int (*TicketCallback)(SSL*, unsigned char*, unsigned char*, EVP_CIPHER_CTX*, EVP_MAC_CTX*, int) noexcept nogil

cdef extern from "tls.h" nogil:
    SSL_CTX* scrubber_context(int server)
    const char* scrubber_use_chain(SSL_CTX* c, const void* chain, int chain_bytes, const void* key, int key_bytes, X509** out)
    int scrubber_trust(SSL_CTX* c, const void* pem, int nbytes, int server)
    void scrubber_session_id(SSL_CTX* c, const unsigned char* digest)
    void scrubber_staples_use(SSL_CTX* c, scrubber_staples* all)
    int scrubber_alpn(const unsigned char** out, unsigned char* outlen, const unsigned char* given, unsigned int inlen, int h2, int http1)
    int scrubber_ticket_begin(const unsigned char* cipher_key, const unsigned char* mac_key, unsigned char* iv, EVP_CIPHER_CTX* c,
                              EVP_MAC_CTX* m, int seal)
    void SSL_CTX_free(SSL_CTX* c)
    void SSL_CTX_set_verify(SSL_CTX* c, int mode, void* callback)
    void SSL_CTX_set_alpn_select_cb(SSL_CTX* c, AlpnCallback cb, void* arg)
    int SSL_CTX_set_alpn_protos(SSL_CTX* c, const unsigned char* protos, unsigned int length)
    int SSL_CTX_set_tlsext_ticket_key_evp_cb(SSL_CTX* c, TicketCallback cb)
    long SSL_CTX_set_timeout(SSL_CTX* c, long seconds)
    void* scrubber_data(const SSL* ssl)
    void* OPENSSL_memdup(const void* data, size_t n)
    void OPENSSL_free(void* data)
    int SSL_version(const SSL* ssl)
    const int TLS1_3_VERSION
    const int SSL_VERIFY_NONE
    const int SSL_VERIFY_PEER
    const int SSL_VERIFY_FAIL_IF_NO_PEER_CERT

cdef enum:
    SESSION_S = 43200           # a ticket's life; its key is there for longer (TICKET_KEYS)


# --- callbacks of a handshake -------------------------------------------------------------------------------------------------------------

cdef int alpn_choose(SSL* ssl, const unsigned char** out, unsigned char* outlen, const unsigned char* given, unsigned int inlen,
                     void* _) noexcept nogil:
    cdef const Tls* t = <const Tls*>scrubber_data(ssl)
    return scrubber_alpn(out, outlen, given, inlen, t.offered >> ALPN_H2 & 1, t.offered >> ALPN_HTTP1 & 1)


cdef int ticket_key(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* c, EVP_MAC_CTX* m, int seal) noexcept nogil:
    """1: use it, 2: use it and give a new ticket, 0: none, the handshake is a full one."""
    cdef const Tls* t = <const Tls*>scrubber_data(ssl)
    cdef TicketKey keys[3]
    cdef int i
    if not tickets_read(t.engine.shared, keys):
        return 0
    if seal:
        memcpy(name, keys[0].name, 16)
        return scrubber_ticket_begin(keys[0].cipher, keys[0].mac, iv, c, m, 1)
    for i in range(TICKET_KEYS):
        if keys[i].born_ns and memcmp(name, keys[i].name, 16) == 0:
            if not scrubber_ticket_begin(keys[i].cipher, keys[i].mac, iv, c, m, 0):
                return 0
            # RFC 8446 C.4: of TLS 1.3 a ticket is good for one connection, so each gets another.
            return 1 if i == 0 and SSL_version(ssl) != TLS1_3_VERSION else 2
    return 0


# --- making them --------------------------------------------------------------------------------------------------------------------------

cdef class TlsContext:
    """An SSL_CTX, freed with the object (connections hold it for themselves)."""

    def __cinit__(self, bint server):
        self.context = scrubber_context(server)
        if self.context == NULL:
            raise MemoryError("OpenSSL makes no context")

    def __dealloc__(self):
        cdef int i
        if self.context != NULL:
            SSL_CTX_free(self.context)
        for i in range(self.staples.count):
            OPENSSL_free(self.staples.staples[i].data)

    cdef int use(self, bytes chain, bytes key, bytes staple, str what) except -1:
        cdef X509* certificate = NULL
        cdef const char* wrong = scrubber_use_chain(self.context, <const char*>chain, <int>len(chain), <const char*>key, <int>len(key),
                                                    &certificate)
        cdef scrubber_staple* place
        if wrong != NULL:
            raise PolicyRefused(f"{what}: {wrong.decode()}")
        if staple:
            place = &self.staples.staples[self.staples.count]
            place.certificate = certificate
            place.length = <int>len(staple)
            place.data = <unsigned char*>OPENSSL_memdup(<const char*>staple, len(staple))
            if place.data == NULL:
                raise MemoryError
            self.staples.count += 1
        return 0

    cdef int trust(self, bytes authorities, bint server, str what) except -1:
        if authorities and scrubber_trust(self.context, <const char*>authorities, <int>len(authorities), server) == 0:
            raise PolicyRefused(f"{what}: no certificate in PEM among the authorities")
        return 0


cdef TlsContext server_context(tuple chains, bytes authorities, int client_certificate, bytes session, str what):
    """chains: (chain, key, staple) each, PEM, PEM, DER. session: 32 bytes; a session is resumed only where they are the same."""
    cdef TlsContext made = TlsContext(True)
    for chain, key, staple in chains:
        made.use(chain, key, staple, what)
    made.trust(authorities, True, what)
    if client_certificate != TLS_CLIENT_NONE:
        SSL_CTX_set_verify(made.context, SSL_VERIFY_PEER | (SSL_VERIFY_FAIL_IF_NO_PEER_CERT if client_certificate == TLS_CLIENT_REQUIRED
                                                            else 0), NULL)
    if made.staples.count:
        scrubber_staples_use(made.context, &made.staples)
    scrubber_session_id(made.context, <const unsigned char*><const char*>session)
    SSL_CTX_set_alpn_select_cb(made.context, alpn_choose, NULL)
    SSL_CTX_set_tlsext_ticket_key_evp_cb(made.context, ticket_key)
    SSL_CTX_set_timeout(made.context, SESSION_S)
    return made


cdef TlsContext origin_context(bytes authorities, bytes chain, bytes key, bint verify, str what):
    cdef TlsContext made = TlsContext(False)
    if chain:
        made.use(chain, key, b"", what)
    made.trust(authorities, False, what)
    SSL_CTX_set_verify(made.context, SSL_VERIFY_PEER if verify else SSL_VERIFY_NONE, NULL)
    SSL_CTX_set_alpn_protos(made.context, <const unsigned char*>b"\x08http/1.1", 9)
    return made


TLS_CONTEXTS = weakref.WeakValueDictionary()     # by a digest of all that they were made of


cdef bytes content_digest(tuple parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


cdef TlsContext area_context(const Policy* p, uint32_t index, str what):
    """Of an area with certificates."""
    cdef const AreaSpec* a = &p.areas[index]
    cdef const CertificateSpec* c
    cdef uint32_t i
    chains = []
    for i in range(a.certificates.len):
        c = &p.certificates[a.certificates.off + i]
        chains.append((text_bytes(p, c.chain), text_bytes(p, c.key), text_bytes(p, c.staple)))
    authorities = text_bytes(p, a.client_authorities)
    # Areas that ask for other client certificates are other sessions.
    session = content_digest((b"area", a.area_id.to_bytes(4, "little"), a.client_certificate.to_bytes(4, "little"), authorities))
    name = content_digest((session, *(part for chain in chains for part in chain)))
    made = TLS_CONTEXTS.get(name)
    if made is None:
        made = server_context(tuple(chains), authorities, <int>a.client_certificate, session, what)
        TLS_CONTEXTS[name] = made
    return made


cdef TlsContext context_of_origin(const Policy* p, uint32_t index, str what):
    cdef const OriginSpec* o = &p.origins[index]
    cdef const CertificateSpec* c
    chain = key = b""
    if o.certificate:
        c = &p.certificates[o.certificate - 1]
        chain, key = text_bytes(p, c.chain), text_bytes(p, c.key)
    authorities = text_bytes(p, o.authorities)
    verify = not o.flags & ORIGIN_TLS_UNVERIFIED
    name = content_digest((b"origin", authorities, chain, key, b"verify" if verify else b""))
    made = TLS_CONTEXTS.get(name)
    if made is None:
        made = origin_context(authorities, chain, key, verify, what)
        TLS_CONTEXTS[name] = made
    return made


cdef bytes text_bytes(const Policy* p, Span span):
    return (<const char*>p.text)[span.off:span.off + span.len]


cdef class TlsContexts:
    """The contexts of a policy: by area and by origin, NULL where there is no TLS."""
    cdef SSL_CTX** areas
    cdef SSL_CTX** origins
    cdef list held

    cdef int fill(self, const Policy* p) except -1:
        cdef uint32_t i
        cdef TlsContext made
        self.held = []
        self.areas = <SSL_CTX**>c_calloc(p.header.areas.count + 1, sizeof(SSL_CTX*))
        self.origins = <SSL_CTX**>c_calloc(p.header.origins.count + 1, sizeof(SSL_CTX*))
        if self.areas == NULL or self.origins == NULL:
            raise MemoryError
        for i in range(p.header.areas.count):
            if p.areas[i].certificates.len:
                made = area_context(p, i, f"certificates of area {text_bytes(p, p.areas[i].name).decode()}")
                self.held.append(made)
                self.areas[i] = made.context
        for i in range(p.header.origins.count):
            if p.origins[i].flags & ORIGIN_TLS:
                made = context_of_origin(p, i, f"TLS of origin {i}")
                self.held.append(made)
                self.origins[i] = made.context
        return 0

    def __dealloc__(self):
        c_free(self.areas)
        c_free(self.origins)
