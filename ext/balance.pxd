# Which origin of a pool takes a request, and how often one may be tried again. Numbers in, an answer out: no sockets, no shared memory.
cdef enum:
    WEIGHT_WHOLE = 256          # effective weights count in parts of the configured one
    WEIGHT_LEAST = 16           # of these: an origin that has just come back is seen at all
    RETRY_SECONDS = 10

cdef struct Candidate:
    uint32_t index              # the caller's
    uint32_t weight             # effective: configured weight times WEIGHT_WHOLE, or less while it starts slowly; never 0
    uint64_t in_flight          # over all workers
    uint64_t key                # of the origin, for hashes
    int64_t* turn               # of the weighted round, this worker's

cdef struct RetryBudget:        # of one pool, this worker's: what happened in each of the last seconds
    uint64_t second
    uint32_t requests[10]       # RETRY_SECONDS
    uint32_t retries[10]

# Place in c of the one to take; n > 0. hash: what hashing balances go by.
cdef uint32_t balance_pick(uint32_t balance, Candidate* c, uint32_t n, uint64_t hash) noexcept nogil
# Configured weight times WEIGHT_WHOLE, less while `since_ns` is not yet slow_ns ago. since_ns 0: long ago.
cdef uint32_t balance_weight(uint32_t weight, uint64_t since_ns, uint64_t slow_ns, uint64_t now_ns) noexcept nogil
cdef void retry_request(RetryBudget* b, uint64_t now_ns) noexcept nogil
# Take one try from the budget: at most ppm of the last seconds' requests, and `least` in any case. False: none is left.
cdef bint retry_take(RetryBudget* b, uint32_t ppm, uint32_t least, uint64_t now_ns) noexcept nogil
