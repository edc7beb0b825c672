# Loops in C that several processes run against one table, for tests: a loop in Python never meets another one within the few
# nanoseconds that matter. Each is bounded by a number of rounds, and by RACE_WAIT_S where it waits for the others (by time, not by
# yields: how long a process is kept from its CPU has nothing to do with how often another one asks).
# Owns the meeting: the word `arrived` counts arrivals; party by party, all begin a step at once.
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef extern from "<sched.h>" nogil:
    int sched_yield() noexcept

cdef enum:
    RACE_WAIT_S = 20


cdef int64_t race_now_s() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec


# Let others run, at every 1000th call; since_s is 0 before the first. False: waited too long.
cdef bint race_wait(uint64_t* calls, int64_t* since_s) noexcept nogil:
    calls[0] += 1
    spin_pause()
    if calls[0] % 1000:
        return True
    if since_s[0] == 0:
        since_s[0] = race_now_s()
    sched_yield()
    return race_now_s() - since_s[0] < RACE_WAIT_S


# Wait until all parties have arrived `meeting` times. False: somebody never came.
cdef bint race_meet(uint64_t* arrived, uint64_t parties, uint64_t meeting) noexcept nogil:
    cdef uint64_t calls = 0
    cdef int64_t since_s = 0
    add_u64(arrived, 1)
    while load_u64(arrived) < parties * meeting:
        if not race_wait(&calls, &since_s):
            return False
    return True


def probe_race_ladder(ProbeLadder ladder, ProbeTable meeting, uint64_t parties, uint64_t keys) -> int:
    """All parties bring keys up a ladder of 8 rungs, each step at once. Returns how many rungs this one entered; -1: a party is missing."""
    cdef uint64_t hold_ns[8]
    cdef uint64_t key, step, entered = 0
    cdef LadderStep out
    cdef int i
    for i in range(8):
        hold_ns[i] = 1000
    with nogil:
        for key in range(1, keys + 1):
            for step in range(8):
                if not race_meet(<uint64_t*>meeting.view.buf, parties, (key - 1) * 8 + step + 1):
                    with gil:
                        return -1
                ladder_over(&ladder.table, key, hold_ns, 8, 0xFF, <uint64_t>1 << 60, 1000000000 + step * 1000, &out)
                if out.entered:
                    entered += 1
    return entered


def probe_race_known(ProbeKnown known, ProbeTable meeting, uint64_t parties, uint64_t keys) -> int:
    """All parties note 16 good requests of each key, each at once. Returns how many clients became known by this one's notes; or -1."""
    cdef uint64_t key, step
    with nogil:
        for key in range(1, keys + 1):
            for step in range(16):
                if not race_meet(<uint64_t*>meeting.view.buf, parties, (key - 1) * 16 + step + 1):
                    with gil:
                        return -1
                known_note(&known.table, &known.states[0], key, 0, True, 1000000000 + step * 500000000)
    return known.states[0].known_total


def probe_race_limiter(ProbeLimiter limiter, ProbeTable meeting, uint64_t parties, uint64_t keys) -> int:
    """All parties ask for each key, which has a burst of 3, four times, each at once. Returns how many passed here; or -1."""
    cdef uint64_t key, step, passed = 0
    cdef Admission out
    cdef Rate rate
    rate.count, rate.period_ns, rate.burst = 1, 1000000000, 3
    with nogil:
        for key in range(1, keys + 1):
            for step in range(4):
                if not race_meet(<uint64_t*>meeting.view.buf, parties, (key - 1) * 4 + step + 1):
                    with gil:
                        return -1
                limiter_admit(&limiter.table, key, &rate, 1, 1000000, 1000000000, &out)
                if not out.limited:
                    passed += 1
    return passed


# A block whose fields all follow from n.
cdef void race_block(uint64_t n, uint64_t now_ns, BlockEntry* e) noexcept nogil:
    memset(e, 0, sizeof(BlockEntry))
    e.kind = SOURCE_CLIENT
    e.address.bytes[10] = 0xFF
    e.address.bytes[11] = 0xFF
    e.address.bytes[15] = <uint8_t>n
    e.areas[0] = n + 1
    e.areas[1] = n + 2
    e.areas[2] = n + 3
    e.areas[3] = n + 4
    e.case_id = n + 5
    e.rule_id = n + 6
    e.expires_ns = now_ns + 1000


def probe_race_blocks_write(ProbeBlocks blocks, uint64_t rounds, uint64_t now_ns) -> int:
    """Block 8 sources in turn in a table of any size, each expiring later than the last. Returns how many were new."""
    cdef BlockEntry wanted
    cdef uint64_t i, made = 0
    with nogil:
        for i in range(rounds):
            race_block(i & 7, now_ns + i, &wanted)
            if blocks_put(&blocks.table, &blocks.secret, &wanted, <uint64_t>1 << 40, <uint64_t>1 << 40, now_ns) == BLOCK_NEW:
                made += 1
    return made


def probe_race_blocks_read(ProbeBlocks blocks, uint64_t rounds, uint64_t now_ns) -> tuple:
    """Read all entries again and again. Returns (read, torn): torn ones have fields that do not belong together."""
    cdef BlockEntry wanted, out
    cdef uint64_t _round, i, n, found = 0, torn = 0
    with nogil:
        for _round in range(rounds):
            for i in range((blocks.table.bucket_mask + 1) * BLOCKS_BUCKET):
                if not blocks_at(&blocks.table, &blocks.secret, i, now_ns, &out):
                    continue
                found += 1
                n = out.address.bytes[15]
                race_block(n, now_ns, &wanted)
                if memcmp(out.areas, wanted.areas, sizeof(out.areas)) != 0 or out.case_id != wanted.case_id \
                        or out.rule_id != wanted.rule_id:
                    torn += 1
    return found, torn


def probe_race_blocks_new(ProbeBlocks blocks, ProbeTable meeting, uint64_t parties, uint64_t keys, uint64_t now_ns) -> int:
    """All parties block each of keys (up to 256) sources at once. Returns how many were new to this one; -1: a party is missing."""
    cdef BlockEntry wanted
    cdef uint64_t key, made = 0
    with nogil:
        for key in range(keys):
            race_block(key, now_ns, &wanted)
            if not race_meet(<uint64_t*>meeting.view.buf, parties, key + 1):
                with gil:
                    return -1
            if blocks_put(&blocks.table, &blocks.secret, &wanted, <uint64_t>1 << 40, <uint64_t>1 << 40, now_ns) == BLOCK_NEW:
                made += 1
    return made


def probe_race_ring_write(ProbeRing ring, uint32_t records) -> int:
    """Write so many numbered records, each filled with words of its number; waits while the ring is full. Returns how many went in."""
    cdef uint32_t words[256]
    cdef uint32_t n = 0, i, length
    cdef uint64_t calls = 0
    cdef int64_t since_s = 0
    with nogil:
        while n < records:
            length = 1 + n % 200
            for i in range(length):
                words[i] = n
            if ring_write(&ring.ring, RECORD_LINE, <uint8_t*>words, length * 4):
                n += 1
                since_s = 0
            elif not race_wait(&calls, &since_s):
                break
    return n


def probe_race_ring_read(ProbeRing ring, uint32_t records) -> tuple:
    """Read so many records while they are written. Returns (read, torn or out of order, times that it had to skip)."""
    cdef uint32_t words[4096]
    cdef uint32_t n = 0, i, kind = 0, length = 0
    cdef uint64_t torn = 0, skipped = 0, calls = 0
    cdef int64_t since_s = 0
    cdef int answer
    with nogil:
        while n < records:
            answer = ring_read(&ring.ring, &kind, <uint8_t*>words, &length)
            if answer == RING_EMPTY:
                if not race_wait(&calls, &since_s):
                    break
                continue
            since_s = 0
            if answer == RING_RESYNC:
                skipped += 1
                break
            if length != (1 + n % 200) * 4:
                torn += 1
            for i in range(length // 4):
                if words[i] != n:
                    torn += 1
                    break
            n += 1
    return n, torn, skipped


cdef inline uint64_t hammer_next(uint64_t* state) noexcept nogil:
    """xorshift64."""
    state[0] ^= state[0] << 13
    state[0] ^= state[0] >> 7
    state[0] ^= state[0] << 17
    return state[0]


def probe_hammer_limiter(ProbeLimiter limiter, uint64_t keys, uint64_t seed, uint64_t now_ns) -> None:
    """Until killed: charge keys that displace each other; key k has 5 units of 1000 + k ns each, so its time tells whose it is."""
    cdef Admission out
    cdef Rate rate
    cdef uint64_t key
    with nogil:
        while True:
            key = 1 + hammer_next(&seed) % keys
            rate.count, rate.period_ns, rate.burst = 1, 1000 + key, 5
            limiter_admit(&limiter.table, key, &rate, 1, 1000000, now_ns, &out)


def probe_hammer_counts(Memory memory, uint64_t keys, uint64_t seed) -> None:
    """Until killed: count keys up and down again, two of one at most."""
    cdef uint64_t key, last = 0
    with nogil:
        while True:
            key = 1 + hammer_next(&seed) % keys
            counts_add(&memory.shared, key, 1)
            if last:
                counts_add(&memory.shared, last, -1)
            last = key
