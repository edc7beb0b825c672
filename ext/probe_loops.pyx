# One piece of the core again and again, for the bench: nothing of Python in between. Each loop returns something of every turn, so that
# no turn can be left out by the compiler.


def probe_loop_parse(data: bytes, uint64_t count) -> int:
    """How many of `count` parses of this request head succeed."""
    cdef Http1Limits limits
    cdef RequestHead head
    cdef const uint8_t* p = <const uint8_t*><const char*>data
    cdef uint32_t n = <uint32_t>len(data), scan
    cdef uint64_t _turn, parsed = 0
    limits = probe_limits((8192, 16384, 100))
    with nogil:
        for _turn in range(count):
            scan = 0
            parsed += request_parse(p, n, &scan, &limits, &head) == HTTP1_OK
    return parsed


def probe_loop_fingerprint(data: bytes, uint64_t count) -> int:
    """The sum of `count` fingerprints of this request head. ValueError: not a request."""
    cdef Http1Limits limits
    cdef RequestHead head
    cdef const uint8_t* p = <const uint8_t*><const char*>data
    cdef uint32_t scan = 0
    cdef uint64_t _turn, total = 0
    limits = probe_limits((8192, 16384, 100))
    if request_parse(p, <uint32_t>len(data), &scan, &limits, &head) != HTTP1_OK:
        raise ValueError("not a request")
    with nogil:
        for _turn in range(count):
            total += fingerprint_head(p, &head, <uint8_t>(c"0" + head.minor))
    return total


def probe_loop_prefixes(ProbePrefixes prefixes, addresses: bytes, uint64_t count) -> int:
    """How many of `count` look-ups find something: of these addresses (16 bytes each) in turn."""
    cdef const Address* all = <const Address*><const char*>addresses
    cdef uint64_t i, among = <uint64_t>len(addresses) // sizeof(Address), found = 0
    if among == 0:
        raise ValueError("no addresses")
    with nogil:
        for i in range(count):
            found += prefixes_find(&prefixes.table, &all[i % among]) != 0
    return found


def probe_loop_limiter(ProbeLimiter limiter, rate, uint64_t sources, uint64_t first, uint64_t count, uint64_t now_ns, uint64_t step_ns,
                       bint scattered) -> int:
    """How many of `count` checks pass, turn `first` on, `step_ns` apart: from the address to the answer, for that many sources, one
    after the other or in an order in which no cache can help."""
    cdef Rate r
    cdef Admission out
    cdef HashKey secret
    cdef Address a
    cdef uint64_t i, number, passed = 0
    r.count, r.period_ns, r.burst = rate
    secret.k0, secret.k1 = 1, 2
    memset(&a, 0, sizeof(a))
    with nogil:
        for i in range(first, first + count):
            number = (i * <uint64_t>0x9E3779B97F4A7C15 >> 20) % sources if scattered else i % sources
            memcpy(a.bytes, &number, 8)
            limiter_admit(&limiter.table, siphash_pair(&secret, 7, address_key(&secret, &a)), &r, 1, 1000000, now_ns, &out)
            passed += not out.limited
            now_ns += step_ns
    return passed


def probe_limiter_held(ProbeLimiter limiter, uint64_t sources) -> int:
    """How many of these sources have a cell (as probe_loop_limiter numbers them)."""
    cdef HashKey secret
    cdef Address a
    cdef CellSight sight
    cdef uint64_t number, held = 0
    secret.k0, secret.k1 = 1, 2
    memset(&a, 0, sizeof(a))
    with nogil:
        for number in range(sources):
            memcpy(a.bytes, &number, 8)
            held += limiter_look(&limiter.table, siphash_pair(&secret, 7, address_key(&secret, &a)), &sight)
    return held


def probe_loop_match(ProbeJudge judge, head: bytes, uint64_t count) -> int:
    """How many conditions of rules hold, `count` times all rules of the policy against this request."""
    cdef Facts f
    cdef uint64_t _turn, held = 0
    cdef uint32_t k
    loop_facts(judge, head, &f)
    with nogil:
        for _turn in range(count):
            for k in range(f.policy.header.rules.count):
                held += conditions_hold(&f, &f.policy.rules[k], False, False)
    return held


def probe_loop_judge(ProbeJudge judge, head: bytes, uint64_t count, uint64_t now_ns, uint64_t step_ns) -> int:
    """How many of `count` requests of one client pass, `step_ns` apart: judged, and accounted for at once."""
    cdef Facts f
    cdef Judgement j
    cdef uint64_t _turn, passed = 0
    loop_facts(judge, head, &f)
    with nogil:
        for _turn in range(count):
            memset(&j, 0, sizeof(j))
            judge_request(&judge.memory.shared, &f, now_ns, &j)
            passed += j.verdict == VERDICT_PASS
            judge_done(&judge.memory.shared, f.area, &j, f.client_key, f.fingerprint, f.account_key, 1000, 1000, True, now_ns)
            now_ns += step_ns
    return passed


cdef int loop_facts(ProbeJudge judge, bytes head, Facts* f) except -1:
    """A request from 192.0.2.1 to the first area; judge.head and judge.path keep what it points to, and `head` has to live on."""
    cdef Http1Limits limits
    cdef uint32_t scan = 0
    limits = probe_limits((8192, 16384, 100))
    if request_parse(<const uint8_t*><const char*>head, <uint32_t>len(head), &scan, &limits, &judge.head) != HTTP1_OK:
        raise ValueError("not a request")
    judge.begin(f, 0, bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 1)))
    judge.address(f)
    f.data = <const uint8_t*><const char*>head
    f.head = &judge.head
    f.fingerprint = fingerprint_head(f.data, f.head, <uint8_t>(c"0" + f.head.minor))
    f.area = &f.policy.areas[0]
    f.path = judge.path
    f.path_len = path_normalise(f.data, judge.head.path, judge.path, PATH_BYTES_MAX)
    return 0
