# Waiting: see waiting.pxd. Invariants: an exchange is in one queue at most; WaitQueue.waiting counts both lanes; a promised place is nobody
# else's, so that a newcomer that comes in between does not overtake.


cdef inline uint32_t lane_of(const Exchange* x) noexcept nogil:
    return LANE_KNOWN if x.judgement.known else LANE_NEW


cdef void wait_leave(Core* e, Exchange* x) noexcept nogil:
    cdef WaitQueue* q = x.queue
    cdef uint32_t lane = lane_of(x)
    if not x.waiting:
        return
    if x.wait_prev != NULL:
        x.wait_prev.wait_next = x.wait_next
    else:
        q.head[lane] = x.wait_next
    if x.wait_next != NULL:
        x.wait_next.wait_prev = x.wait_prev
    else:
        q.tail[lane] = x.wait_prev
    x.wait_prev = NULL
    x.wait_next = NULL
    x.queue = NULL
    x.waiting = 0
    x.queue_ns += e.now_ns - x.queued_ns
    q.waiting -= 1
    e.gauges.origin_waiting -= 1


cdef bint wait_room(Core* e, const Exchange* x, WaitQueue* q) noexcept nogil:
    cdef Exchange* last = q.tail[LANE_NEW]
    if q.waiting < x.area.origin_wait_max:
        return True
    if lane_of(x) != LANE_KNOWN or last == NULL:
        return False
    wait_leave(e, last)
    last.evicted = 1
    # Not answered from here: this may be deep inside another exchange's end.
    ready_add(e, &last.client.h)
    return True


cdef bint wait_join(Core* e, Exchange* x, WaitQueue* q, bint front) noexcept nogil:
    cdef uint32_t lane = lane_of(x)
    if not front and not wait_room(e, x, q):
        e.totals.origin_wait_refused += 1
        return False
    x.waiting = 1
    x.waited = 1
    x.queued_ns = e.now_ns
    x.queue = q
    x.wait_prev = NULL if front else q.tail[lane]
    x.wait_next = q.head[lane] if front else NULL
    if x.wait_prev != NULL:
        x.wait_prev.wait_next = x
    else:
        q.head[lane] = x
    if x.wait_next != NULL:
        x.wait_next.wait_prev = x
    else:
        q.tail[lane] = x
    q.waiting += 1
    e.gauges.origin_waiting += 1
    if not front:
        e.totals.origin_waits += 1
    timer_set(e, &x.client.h, e.now_ns + earlier(x.area.origin_wait_ns, CHECK_NS))
    return True


cdef void wait_serve(Core* e, uint16_t origin_id) noexcept nogil:
    cdef OriginPool* pool = &e.origin_pools[origin_id]
    cdef WaitQueue* q = &pool.queue
    cdef Exchange* x
    if q.waiting == 0:
        q = &e.pools[pool.pool_id].queue
    x = q.head[LANE_KNOWN] if q.head[LANE_KNOWN] != NULL else q.head[LANE_NEW]
    if x == NULL:
        return
    wait_leave(e, x)
    x.ready = 1
    x.promised = 1
    x.origin_id = origin_id
    pool.promised += 1
    ready_add(e, &x.client.h)


cdef void wait_fill(Core* e, uint16_t origin_id) noexcept nogil:
    cdef OriginPool* pool = &e.origin_pools[origin_id]
    while pool.in_flight + pool.promised < pool.connections_max and (pool.queue.waiting or e.pools[pool.pool_id].queue.waiting):
        wait_serve(e, origin_id)


cdef void promise_end(Core* e, Exchange* x) noexcept nogil:
    if x.promised:
        x.promised = 0
        e.origin_pools[x.origin_id].promised -= 1


cdef void wait_again(Core* e, Exchange* x) noexcept nogil:
    cdef const OriginSpec* spec = NULL
    if origin_choose(e, x, &spec) == CHOICE_FULL:
        return
    wait_leave(e, x)
    x.ready = 1
    ready_add(e, &x.client.h)
