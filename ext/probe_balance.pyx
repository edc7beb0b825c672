# Python faces of balancing and origin states for tests: numbers in, the choice out.


def probe_balance_pick(kind: int, candidates: list, hashes: list) -> list:
    """Which of the candidates (weight in parts of WEIGHT_WHOLE, in flight, key) is taken for each hash, one after the other."""
    cdef Candidate found[64]
    cdef int64_t turns[64]
    cdef uint32_t i, n = len(candidates)
    assert 1 <= n <= 64
    memset(turns, 0, sizeof(turns))
    for i in range(n):
        found[i].index = i
        found[i].weight, found[i].in_flight, found[i].key = candidates[i]
        found[i].turn = &turns[i]
    return [balance_pick(kind, found, n, hash_) for hash_ in hashes]


def probe_balance_weight(weight: int, since_ns: int, slow_ns: int, now_ns: int) -> int:
    """The effective weight."""
    return balance_weight(weight, since_ns, slow_ns, now_ns)


cdef class ProbeRetryBudget:
    """A retry budget with a clock of its own."""
    cdef RetryBudget budget

    def request(self, now_ns: int) -> None:
        retry_request(&self.budget, now_ns)

    def take(self, ppm: int, least: int, now_ns: int) -> bool:
        return retry_take(&self.budget, ppm, least, now_ns)


def probe_origin_fails(Memory memory, index: int, key: int, now_ns: int, after: int, first_ns: int, most_ns: int,
                       others: bool = True) -> bool:
    """A connect to an origin failed: did that put it out?"""
    cdef PoolSpec pool
    memset(&pool, 0, sizeof(pool))
    pool.eject_after, pool.eject_ns, pool.eject_max_ns = after, first_ns, most_ns
    assert 0 <= index < ORIGINS_MAX and load_u64(&memory.shared.origins[<int>index].key) == <uint64_t>key
    return origin_failed_once(&pool, &memory.shared.origins[<int>index], others, now_ns)


def probe_origin_works(Memory memory, index: int, now_ns: int, most_ns: int) -> None:
    """A connect came about."""
    cdef PoolSpec pool
    memset(&pool, 0, sizeof(pool))
    pool.eject_max_ns = most_ns
    assert 0 <= index < ORIGINS_MAX
    origin_worked(&pool, &memory.shared.origins[<int>index], now_ns)


def probe_origin_standing(Memory memory, index: int, key: int, now_ns: int, backup: bool = False, most_ns: int = 60000000000) -> int:
    """STANDING_* of an origin in a pool that ejects for at most most_ns."""
    cdef PoolSpec pool
    cdef OriginSpec spec
    memset(&pool, 0, sizeof(pool))
    memset(&spec, 0, sizeof(spec))
    pool.eject_after, pool.eject_max_ns = 1, most_ns
    spec.origin_id, spec.key, spec.flags = index, key, ORIGIN_BACKUP if backup else 0
    assert 0 <= index < ORIGINS_MAX
    return origin_standing(&pool, &spec, origin_state(memory.shared.origins, &spec), now_ns)
