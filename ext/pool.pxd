# Pools, and queues of pooled buffers. No allocation after start.
cdef bint pool_open(Pool* p, uint32_t count, uint64_t object_bytes) noexcept nogil
cdef void pool_close(Pool* p) noexcept nogil
cdef void* pool_get(Pool* p) noexcept nogil
cdef void pool_put(Pool* p, void* item) noexcept nogil
# What is in use of each pool, into the gauges, in the order of POOL_NAMES.
cdef void pools_note(Core* e) noexcept nogil

cdef Buffer* buffer_get(Core* e) noexcept nogil
cdef void buffer_put(Core* e, Buffer* b) noexcept nogil
# Bytes at the end of the queue; buffers are added. False: pool empty (what fitted has been added).
cdef bint queue_append(Core* e, Queue* q, const uint8_t* data, uint64_t n) noexcept nogil
# The buffer that a whole head is written into: empty, at the end of the queue once queue_add is called.
cdef void queue_add(Queue* q, Buffer* b) noexcept nogil
cdef void queue_clear(Core* e, Queue* q) noexcept nogil
# Send what is queued. 1: drained, 0: the socket is full, -1: broken. taken grows by the bytes that went.
cdef int queue_flush(Core* e, Queue* q, int fd, uint64_t* taken) noexcept nogil
# Send at once what the socket takes, queue the rest. 1: all sent, 0: the rest is queued, -1: broken, or no buffer for it.
# flags: of send(2); MSG_MORE only where more is sent in this very pass.
cdef int queue_send(Core* e, Queue* q, Handle* h, const uint8_t* data, uint64_t n, int flags) noexcept nogil
# The first n bytes of it, which it has; out NULL: they are dropped.
cdef void queue_take(Core* e, Queue* q, uint8_t* out, uint64_t n) noexcept nogil
