# The client's side: connections, heads, verdicts into answers (steps 3 to 6).
cdef const AreaSpec* area_fallback(Core* e, uint32_t listener) noexcept nogil
cdef void facts_address(Core* e, Facts* f) noexcept nogil
cdef bint trusted_peer(const Facts* f) noexcept nogil
cdef void client_open(Core* e, ListenerHandle* l, int fd, uint16_t port, const Facts* f, uint64_t count_key, bint counted) noexcept nogil
cdef void client_step(Core* e, Client* c) noexcept nogil
cdef void client_timeout(Core* e, Client* c) noexcept nogil
# Closed at once; a request in flight ends as aborted and is accounted.
cdef void client_close(Core* e, Client* c, bint reset) noexcept nogil
# Answered for the last time: FIN now, the rest of what the client sends is read off for a bounded time.
cdef void client_linger(Core* e, Client* c) noexcept nogil
# Bytes to the client, at once or queued. 1: all sent, 0: the rest is queued, -1: broken (the caller closes).
cdef int client_write(Core* e, Client* c, const uint8_t* data, uint64_t n) noexcept nogil
cdef int client_flush(Core* e, Client* c) noexcept nogil
# As recv, in clear text or through TLS; EVENT_READ is cleared where nothing more is there.
cdef ssize_t client_recv(Core* e, Client* c, void* data, uint64_t n) noexcept nogil
# Its bytes are the socket's own: neither TLS nor frames around them.
cdef inline bint client_plain(const Client* c) noexcept nogil:
    return c.tls == NULL and c.h.kind == HANDLE_CLIENT
# Something is on its way to the client that its socket has not taken.
cdef bint client_unsent(const Client* c) noexcept nogil
cdef void facts_tls(Core* e, Facts* f, const uint8_t* ja3, const uint8_t* ja4) noexcept nogil
cdef void facts_connection(Core* e, Facts* f, const Client* c) noexcept nogil
cdef bint write_late(Core* e, const Client* c, const AreaSpec* area) noexcept nogil
cdef bint too_slow(uint64_t nbytes, uint64_t since_ns, const AreaSpec* area, uint64_t now_ns) noexcept nogil
cdef uint64_t id_next(Core* e) noexcept nogil
cdef Exchange* exchange_open(Core* e, Client* c) noexcept nogil
cdef void client_refuse(Core* e, Client* c, int reason) noexcept nogil
cdef void silent_remove(Core* e, Client* c) noexcept nogil
