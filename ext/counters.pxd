# Counters that only grow: a slot a worker, summed by readers. Never a label by address.
cdef enum:
    LATENCY_BUCKETS = 64        # quarter-octave buckets from 64 us: bound_i = 64us * 2^(i/4)

cdef struct AreaTotals:
    uint64_t requests
    uint64_t verdicts[6]        # VERDICTS
    uint64_t measures[8]        # MEASURES: acts begun (rung entered), block included
    uint64_t status_class[6]    # answers to clients: [1]=1xx .. [5]=5xx, [0]=none sent
    uint64_t known_requests     # by clients known from before
    uint64_t known_served       # of these, answered below 500, by the origin or a route
    uint64_t served             # answered by the origin
    uint64_t origin_errors      # 502, 503, 504 by us
    uint64_t client_aborts
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t origin_ns          # origin's time
    uint64_t shed               # refused by an area-wide limit
    uint64_t refused_acts       # blocks that proportion or never-block refused
    uint64_t latency[64]        # LATENCY_BUCKETS, PASS requests, first byte to end of answer
    uint64_t latency_ns_sum
    uint64_t answered           # by a route, below 500: neither an origin's doing nor a refusal
    uint64_t cache_hits         # answered with what was kept, fresh
    uint64_t cache_stale        # the same, stale
    uint64_t cache_collapsed    # the same, after waiting for another's fetch
    uint64_t cache_misses       # fetched for everybody
    uint64_t cache_passes       # could not be kept, or not for this one
    uint64_t cache_stored
    uint64_t cache_bytes        # of bodies, out of the cache
    uint64_t reserved[6]

cdef struct Totals:
    uint64_t accepted
    uint64_t closed
    uint64_t dropped_blocked    # closed with RST at accept: blocked source
    uint64_t dropped_cap_client  # connections_per_client_max
    uint64_t dropped_cap_total
    uint64_t dropped_rule       # connection-phase rules
    uint64_t bad_requests       # 4xx for bytes we refuse
    uint64_t timeouts_head
    uint64_t timeouts_body
    uint64_t timeouts_idle
    uint64_t timeouts_write
    uint64_t evicted_idle       # silent connections closed to make room
    uint64_t origin_connects
    uint64_t origin_connect_errors
    uint64_t origin_reused
    uint64_t origin_retries
    uint64_t origin_bad         # responses refused
    uint64_t ring_lines
    uint64_t ring_lines_lost
    uint64_t ring_acts
    uint64_t ring_acts_refused
    uint64_t table_full         # counts bucket full, buffers exhausted
    uint64_t passes
    uint64_t pass_ns
    uint64_t tunnels            # opened
    uint64_t tunnels_refused    # client_max, total_max
    uint64_t tunnels_cut        # by a limit, a block or a reload
    uint64_t log_sampled        # access lines left out as log.sample_pass says
    uint64_t bytes_spliced      # of bodies, in either direction
    uint64_t origin_retries_refused     # the budget was spent
    uint64_t origin_ejections
    uint64_t origin_waits       # requests that waited for a place at an origin
    uint64_t origin_wait_refused        # of those that wanted to
    uint64_t origin_shortages   # connections to origins that could not be begun, for want of something here
    uint64_t accept_shortages   # pauses of accepting (a tick each), for want of descriptors
    uint64_t handshakes         # of TLS, done; the resumed ones among them
    uint64_t handshakes_resumed
    uint64_t handshakes_failed  # bad bytes, unknown names, no agreement, broken off
    uint64_t handshakes_refused  # before the private key was used: blocks, rules, the client's share
    uint64_t timeouts_handshake
    uint64_t http2_connections
    uint64_t http2_streams
    uint64_t http2_refused      # connections that were ended for what their client did
    uint64_t reserved[6]
    AreaTotals areas[256]       # AREAS_MAX

cdef uint32_t latency_bucket(uint64_t ns) noexcept nogil
# Longest time that a bucket holds (the last one holds all that is longer).
cdef uint64_t latency_bound_ns(uint32_t bucket) noexcept nogil
