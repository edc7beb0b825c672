# Pools and queues: see pool.pxd. Invariant: free_stack holds exactly the objects whose `taken` byte is 0.
from libc.stdlib cimport abort as c_abort, calloc, free as c_free, malloc


cdef bint pool_open(Pool* p, uint32_t count, uint64_t object_bytes) noexcept nogil:
    cdef uint32_t i
    p.object_bytes = (object_bytes + 63) & ~<uint64_t>63
    p.count = count
    p.free = count
    p.base = <uint8_t*>scrubber_pages(p.object_bytes * count)
    p.free_stack = <uint32_t*>malloc(sizeof(uint32_t) * count)
    p.taken = <uint8_t*>calloc(count, 1)
    if p.base == NULL or p.free_stack == NULL or p.taken == NULL:
        return False
    for i in range(count):
        p.free_stack[i] = count - 1 - i
    scrubber_forbid(p.base, p.object_bytes * count)
    return True


cdef void pool_close(Pool* p) noexcept nogil:
    if p.base != NULL:
        scrubber_permit(p.base, p.object_bytes * p.count)
        munmap(p.base, p.object_bytes * p.count)
    c_free(p.free_stack)
    c_free(p.taken)
    memset(p, 0, sizeof(Pool))


cdef void* pool_get(Pool* p) noexcept nogil:
    cdef uint32_t i
    if p.free == 0:
        return NULL
    p.free -= 1
    i = p.free_stack[p.free]
    check(i < p.count)
    check(not p.taken[i])
    p.taken[i] = 1
    scrubber_permit(p.base + i * p.object_bytes, p.object_bytes)
    return p.base + i * p.object_bytes


cdef void pool_put(Pool* p, void* item) noexcept nogil:
    cdef uint64_t i = <uint64_t>(<uint8_t*>item - p.base) / p.object_bytes
    if i >= p.count or not p.taken[i]:
        c_abort()               # a double free would hand one client's bytes to another: better to die and be replaced
    check(<uint8_t*>item == p.base + i * p.object_bytes)
    check(p.free < p.count)
    p.taken[i] = 0
    p.free_stack[p.free] = <uint32_t>i
    p.free += 1
    scrubber_forbid(item, p.object_bytes)


cdef inline void pool_note(const Pool* p, PoolUse* out) noexcept nogil:
    out.used = p.count - p.free
    out.size = p.count


cdef void pools_note(Core* e) noexcept nogil:
    pool_note(&e.clients, &e.gauges.pools[0])
    pool_note(&e.exchanges, &e.gauges.pools[1])
    pool_note(&e.origins, &e.gauges.pools[2])
    pool_note(&e.buffers, &e.gauges.pools[3])
    pool_note(&e.notes, &e.gauges.pools[4])
    e.gauges.pools[5].used = pipes_taken(e)
    e.gauges.pools[5].size = e.pipe_count
    pool_note(&e.tls, &e.gauges.pools[6])
    pool_note(&e.sessions, &e.gauges.pools[7])
    pool_note(&e.streams, &e.gauges.pools[8])
    pool_note(&e.uplinks, &e.gauges.pools[9])


cdef Buffer* buffer_get(Core* e) noexcept nogil:
    cdef Buffer* b = <Buffer*>pool_get(&e.buffers)
    if b == NULL:
        e.totals.table_full += 1
        return NULL
    b.next = NULL
    b.start = 0
    b.end = 0
    return b


cdef void buffer_put(Core* e, Buffer* b) noexcept nogil:
    pool_put(&e.buffers, b)


cdef void queue_check(const Queue* q) noexcept nogil:
    """Every buffer within its bounds, and together they hold what the queue says."""
    cdef const Buffer* b = q.head
    cdef const Buffer* last = NULL
    cdef uint64_t nbytes = 0
    while b != NULL:
        check(b.start <= b.end)
        check(b.end <= BUFFER_BYTES)
        nbytes += b.end - b.start
        last = b
        b = b.next
    check(last == q.tail)
    check(nbytes == q.bytes)


cdef void queue_add(Queue* q, Buffer* b) noexcept nogil:
    if q.tail == NULL:
        q.head = b
    else:
        q.tail.next = b
    q.tail = b
    q.bytes += b.end - b.start


cdef bint queue_append(Core* e, Queue* q, const uint8_t* data, uint64_t n) noexcept nogil:
    cdef Buffer* b
    cdef uint64_t take
    if SCRUBBER_CHECKS:
        queue_check(q)
    while n:
        b = q.tail
        if b == NULL or b.end == BUFFER_BYTES:
            b = buffer_get(e)
            if b == NULL:
                return False
            queue_add(q, b)
        take = BUFFER_BYTES - b.end
        if take > n:
            take = n
        memcpy(b.data + b.end, data, take)
        b.end += <uint32_t>take
        q.bytes += take
        data += take
        n -= take
    if SCRUBBER_CHECKS:
        queue_check(q)
    return True


cdef void queue_take(Core* e, Queue* q, uint8_t* out, uint64_t n) noexcept nogil:
    cdef Buffer* b
    cdef uint32_t take
    check(n <= q.bytes)
    q.bytes -= n
    while n:
        b = q.head
        take = b.end - b.start
        if take > n:
            take = <uint32_t>n
        if out != NULL:
            memcpy(out, b.data + b.start, take)
            out += take
        b.start += take
        n -= take
        if b.start == b.end:
            q.head = b.next
            if q.head == NULL:
                q.tail = NULL
            buffer_put(e, b)


cdef void queue_clear(Core* e, Queue* q) noexcept nogil:
    cdef Buffer* b = q.head
    cdef Buffer* after
    if SCRUBBER_CHECKS:
        queue_check(q)
    while b != NULL:
        after = b.next
        buffer_put(e, b)
        b = after
    q.head = NULL
    q.tail = NULL
    q.bytes = 0


cdef int queue_flush(Core* e, Queue* q, int fd, uint64_t* taken) noexcept nogil:
    cdef iovec v[16]            # IOV_MAX
    cdef Buffer* b
    cdef int n
    cdef uint64_t asked
    cdef ssize_t sent
    cdef uint64_t left
    if SCRUBBER_CHECKS:
        queue_check(q)
    while q.head != NULL:
        n = 0
        asked = 0
        b = q.head
        while b != NULL and n < IOV_MAX:
            v[n].iov_base = b.data + b.start
            v[n].iov_len = b.end - b.start
            asked += b.end - b.start
            n += 1
            b = b.next
        if n == 1:
            sent = send(fd, v[0].iov_base, v[0].iov_len, MSG_NOSIGNAL)
        else:
            sent = scrubber_sendv(fd, v, n, b != NULL)
        if sent < 0:
            if scrubber_errno() == EINTR:
                continue
            return 0 if scrubber_errno() == EAGAIN else -1
        taken[0] += <uint64_t>sent
        q.bytes -= <uint64_t>sent
        left = <uint64_t>sent
        while left:
            b = q.head
            if left < b.end - b.start:
                b.start += <uint32_t>left
                break
            left -= b.end - b.start
            q.head = b.next
            buffer_put(e, b)
        if q.head == NULL:
            q.tail = NULL
        if SCRUBBER_CHECKS:
            queue_check(q)
        if <uint64_t>sent < asked:
            return 0            # a short write: the socket is full, its next edge will tell
    return 1


cdef int queue_send(Core* e, Queue* q, Handle* h, const uint8_t* data, uint64_t n, int flags) noexcept nogil:
    cdef ssize_t sent
    if q.head == NULL and h.events & EVENT_WRITE:
        sent = send(h.fd, data, n, MSG_NOSIGNAL | flags)
        if sent < 0:
            if scrubber_errno() != EAGAIN and scrubber_errno() != EINTR:
                return -1
            sent = 0
        if <uint64_t>sent == n:
            return 1
        h.events &= <uint8_t>~EVENT_WRITE
        data += sent
        n -= <uint64_t>sent
    return 0 if queue_append(e, q, data, n) else -1
