# Counts that must come back when a worker dies: open connections a client, requests in flight a key. Each worker writes its own slot;
# readers sum over all; the keeper zeroes a dead worker's slot.
cdef struct Shared

cdef struct CountCell:
    uint64_t key                # 0: empty; a cell with count 0 may be taken over
    uint32_t count
    uint32_t reserved

cdef extern from *:
    """
    #define COUNTS_FULL UINT32_MAX
    """
    uint32_t COUNTS_FULL

cdef enum:
    POOL_KINDS = 10             # what a worker allocates at its start: see pools_note

cdef struct PoolUse:            # objects
    uint64_t used
    uint64_t size

cdef struct Gauges:             # head of a worker's slot; CountCell buckets follow
    uint64_t beat_ns            # CLOCK_MONOTONIC of the last pass
    uint64_t pid
    uint64_t generation         # policy in force
    uint64_t generation_refused  # last policy refused
    uint64_t connections        # open client connections
    uint64_t origin_connections  # open
    uint64_t requests           # in flight
    uint64_t tarpit             # held
    uint64_t draining
    uint64_t origin_in_flight[1024]  # ORIGINS_MAX, by origin index
    uint64_t tunnels            # open; each is a request in flight too
    uint64_t origin_waiting     # requests that wait for a place at an origin
    PoolUse pools[10]           # POOL_KINDS, as of the last tick
    uint64_t http2_connections  # open
    uint64_t http2_streams      # open; each is a request in flight, or about to be
    uint64_t http2_bytes        # what nghttp2 has allocated
    uint64_t reserved[5]

# Change this worker's count by delta (never below 0); returns the new sum over all workers. COUNTS_FULL: the bucket is full, not counted:
# then the caller must not take it back either. Without a slot of its own (slot -1) a process only reads.
cdef uint32_t counts_add(Shared* s, uint64_t key, int32_t delta) noexcept nogil
cdef uint32_t counts_sum(Shared* s, uint64_t key) noexcept nogil
