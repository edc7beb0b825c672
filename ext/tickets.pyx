# The keys of TLS session tickets: see memory.pxd. Owns how they are read and renewed. Invariants: one writer; whoever reads has all keys of
# one moment or none; a new worker seals with the same key as the others, so that a session is resumed by whichever takes the connection.


cdef bint tickets_read(const Shared* s, TicketKey* out) noexcept nogil:
    """All keys, youngest first. False: they are just being written."""
    cdef const Tickets* t = &s.control.tickets
    cdef uint64_t before
    cdef uint32_t _
    for _ in range(64):
        before = load_u64(<uint64_t*>&t.sequence)
        if before & 1:
            continue
        memcpy(out, t.keys, sizeof(t.keys))
        fence_acquire()
        if load_u64(<uint64_t*>&t.sequence) == before:
            return out[0].born_ns != 0
    return False


cdef int ticket_key_fill(TicketKey* key, bytes secret, uint64_t born_ns) except -1:
    cdef const char* part = secret
    if len(secret) != TICKET_KEY_BYTES:
        raise ValueError(f"a ticket key has {TICKET_KEY_BYTES} bytes, this one {len(secret)}")
    key.born_ns = born_ns
    memcpy(key.name, part, 16)
    memcpy(key.cipher, part + 16, 32)
    memcpy(key.mac, part + 48, 32)
    return 0


cdef int tickets_renew(Shared* s, bytes secret, uint64_t born_ns) except -1:
    """A new key seals; the oldest one opens nothing more."""
    cdef Tickets* t = &s.control.tickets
    cdef TicketKey key
    cdef uint64_t sequence = load_u64(&t.sequence) & ~<uint64_t>1
    ticket_key_fill(&key, secret, born_ns)
    store_u64(&t.sequence, sequence + 1)
    fence_release()
    memmove(&t.keys[1], &t.keys[0], (TICKET_KEYS - 1) * sizeof(TicketKey))
    t.keys[0] = key
    store_u64(&t.sequence, sequence + 2)
    return 0
