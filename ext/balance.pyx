# Balancing: see balance.pxd. Invariants: linear in the candidates; whatever the numbers are, the answer is one of them.
# Hashing is rendezvous hashing with weights (Thaler & Ravishankar 1996; Schindelhauer & Schomaker 2005): an origin that goes moves its own
# keys only, one that comes takes its share from all. The round is nginx's smooth one: 5:1:1 gives a a b a c a a, not a a a a a b c.
from libc.math cimport log


cdef inline uint64_t mix64(uint64_t v) noexcept nogil:
    """Finaliser of SplitMix64: every bit of the sum reaches every bit of the answer."""
    v = (v ^ (v >> 30)) * <uint64_t>0xBF58476D1CE4E5B9u
    v = (v ^ (v >> 27)) * <uint64_t>0x94D049BB133111EBu
    return v ^ (v >> 31)


# Fewer requests in flight, by weight.
cdef inline bint lighter(const Candidate* a, const Candidate* b) noexcept nogil:
    return a.in_flight * b.weight < b.in_flight * a.weight


cdef uint32_t pick_hash(const Candidate* c, uint32_t n, uint64_t hash) noexcept nogil:
    cdef uint32_t i, best = 0
    cdef double score, least = 0
    for i in range(n):
        # A number in (0, 1) that only this key and this origin give.
        score = <double>((mix64(hash ^ mix64(c[i].key)) >> 11) | 1) * (1.0 / 9007199254740992.0)
        score = -log(score) / c[i].weight
        if i == 0 or score < least:
            least = score
            best = i
    return best


# The smooth weighted round among those that are as light as the lightest.
cdef uint32_t pick_turn(Candidate* c, uint32_t n, const Candidate* lightest) noexcept nogil:
    cdef uint32_t i, best = n
    cdef int64_t total = 0
    for i in range(n):
        if lightest != NULL and lighter(lightest, &c[i]):
            continue
        c[i].turn[0] += c[i].weight
        total += c[i].weight
        if best == n or c[i].turn[0] > c[best].turn[0]:
            best = i
    if best == n:
        return 0
    c[best].turn[0] -= total
    return best


cdef uint32_t balance_pick(uint32_t balance, Candidate* c, uint32_t n, uint64_t hash) noexcept nogil:
    cdef uint32_t i, best = 0
    if n == 1:
        return 0
    if balance == BALANCE_HASH_CLIENT or balance == BALANCE_HASH_HEADER:
        return pick_hash(c, n, hash)
    if balance == BALANCE_ROUND_ROBIN:
        return pick_turn(c, n, NULL)
    for i in range(1, n):
        if lighter(&c[i], &c[best]):
            best = i
    return pick_turn(c, n, &c[best])


cdef uint32_t balance_weight(uint32_t weight, uint64_t since_ns, uint64_t slow_ns, uint64_t now_ns) noexcept nogil:
    cdef uint64_t part
    # A time that lies ahead is nobody's: the memory it comes from is shared.
    if slow_ns == 0 or since_ns == 0 or since_ns > now_ns or now_ns - since_ns >= slow_ns:
        return weight * WEIGHT_WHOLE
    part = mul_div_u64(<uint64_t>weight * WEIGHT_WHOLE, now_ns - since_ns, slow_ns)
    return <uint32_t>part if part > weight * WEIGHT_LEAST else weight * WEIGHT_LEAST


cdef void retry_turn(RetryBudget* b, uint64_t now_ns) noexcept nogil:
    cdef uint64_t second = now_ns / 1000000000
    if second - b.second >= RETRY_SECONDS:
        memset(b, 0, sizeof(RetryBudget))
        b.second = second
    while b.second < second:
        b.second += 1
        b.requests[b.second % RETRY_SECONDS] = 0
        b.retries[b.second % RETRY_SECONDS] = 0


cdef void retry_request(RetryBudget* b, uint64_t now_ns) noexcept nogil:
    retry_turn(b, now_ns)
    b.requests[b.second % RETRY_SECONDS] += 1


cdef bint retry_take(RetryBudget* b, uint32_t ppm, uint32_t least, uint64_t now_ns) noexcept nogil:
    cdef uint64_t requests = 0, retries = 0
    cdef uint32_t i
    retry_turn(b, now_ns)
    for i in range(RETRY_SECONDS):
        requests += b.requests[i]
        retries += b.retries[i]
    if retries >= least and retries >= requests * ppm / 1000000:
        return False
    b.retries[b.second % RETRY_SECONDS] += 1
    return True
