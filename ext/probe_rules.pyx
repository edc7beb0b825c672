# Python faces of the judge for tests: real heads in, judgements out, over real shared memory. What the engine gathers for a request
# (client.pyx: facts_fill) is gathered here the same way.

VERDICT_NAMES = ("PASS", "THROTTLE", "CHALLENGE", "TARPIT", "DENY", "DROP")
MEASURE_NAMES = ("observe", "throttle", "challenge", "tarpit", "deny", "drop", "block", "blackhole")
PROOF_NAMES = ("SOCKET", "PROXY", "CHAIN")


cdef class ProbeJudgement:
    """A judgement, kept until `done` took it. `told`: what it says; `facts`: what it was made of."""
    cdef Judgement judgement
    cdef PolicyImage image      # area points into it
    cdef const AreaSpec* area
    cdef uint64_t client_key
    cdef uint64_t fingerprint
    cdef uint64_t account_key
    cdef readonly dict facts
    cdef readonly dict told


cdef class ProbeJudge:
    """The judge over a policy and shared memory."""
    cdef Memory memory
    cdef PolicyImage image
    cdef RequestHead head
    cdef uint8_t path[PATH_BYTES_MAX]
    cdef uint8_t account[1024]

    def __init__(self, Memory memory, PolicyImage image):
        self.memory = memory
        self.image = image

    cdef int begin(self, Facts* f, uint32_t listener, bytes peer) except -1:
        memset(f, 0, sizeof(Facts))
        if len(peer) != 16 or listener >= self.image.policy.header.listeners.count:
            raise ValueError("a peer has 16 bytes, a listener an index")
        f.policy = &self.image.policy
        f.listener = &f.policy.listeners[listener]
        memcpy(f.client_full.bytes, <const char*>peer, 16)
        f.proof = PROOF_SOCKET
        return 0

    cdef void address(self, Facts* f) noexcept:
        cdef const HashKey* secret = &self.memory.shared.secret
        cdef Address prefix = f.client_full
        address_client(&f.client_full, &f.client)
        f.client_key = address_key(secret, &f.client)
        address_mask(&prefix, 120 if address_is_v4(&prefix) else 48)
        f.prefix_key = siphash_pair(secret, KEY_PREFIX, address_key(secret, &prefix))

    cdef ProbeJudgement tell(self, const Facts* f, const Judgement* j):
        cdef ProbeJudgement out = ProbeJudgement()
        cdef const AreaSpec* area = f.area
        out.judgement = j[0]
        out.image = self.image
        out.area = area
        out.client_key = f.client_key
        out.fingerprint = f.fingerprint
        out.account_key = f.account_key
        out.told = {
            "verdict": VERDICT_NAMES[j.verdict], "decided": VERDICT_NAMES[j.decided],
            "rule": self.image.rules[j.rule] if j.rule >= 0 else "", "rung": j.rung, "measure": MEASURE_NAMES[j.measure],
            "known": bool(j.known), "blocked": bool(j.blocked), "shed": bool(j.shed), "crowd": bool(j.crowd), "case_id": j.case_id,
            "retry_ns": j.retry_ns, "limit_count": j.limit_count, "limit_period_ns": j.limit_period_ns, "remaining": j.remaining,
            "charges": j.charge_count,
        }
        out.facts = {
            "area": self.image.text(area.name) if area != NULL else "", "proof": PROOF_NAMES[f.proof],
            "client": (<const char*>f.client_full.bytes)[:16], "fingerprint": f.fingerprint, "account_key": f.account_key,
            "path": (<const char*>f.path)[:f.path_len] if f.path != NULL else b"",
        }
        return out

    def connection(self, uint32_t listener, peer: bytes, uint64_t now_ns) -> ProbeJudgement:
        """accept."""
        cdef Facts f
        cdef Judgement j
        self.begin(&f, listener, peer)
        self.address(&f)
        memset(&j, 0, sizeof(j))
        with nogil:
            judge_connection(&self.memory.shared, &f, now_ns, &j)
        return self.tell(&f, &j)

    def request(self, uint32_t listener, peer: bytes, head: bytes, uint64_t now_ns, bint first=True) -> ProbeJudgement | None:
        """A whole head from a peer; first: of its connection, for its area. None: no area is named. ValueError: not a request."""
        cdef Http1Limits limits
        cdef Address hop
        cdef Facts f
        cdef Judgement j
        cdef uint32_t scan = 0, n
        cdef int32_t index
        cdef const uint8_t* data = <const uint8_t*><const char*>head
        limits.line_bytes_max, limits.head_bytes_max, limits.headers_max = 8192, 16384, 100
        if request_parse(data, <uint32_t>len(head), &scan, &limits, &self.head) != HTTP1_OK:
            raise ValueError("not a request")
        self.begin(&f, listener, peer)
        f.data = data
        f.head = &self.head
        if f.listener.trusted:
            hop = f.client_full
            f.proof = identity_chain(data, f.head, &f.policy.prefixes[f.listener.trusted - 1], &hop, f.proof, &f.client_full, &f.arrival)
        self.address(&f)
        f.fingerprint = fingerprint_head(data, f.head, <uint8_t>(c"0" + f.head.minor))
        index = policy_area(f.policy, f.listener, data + self.head.host.off, self.head.host.len)
        if index < 0:
            return None
        f.area = &f.policy.areas[index]
        f.first_request = first
        if f.area.account_kind != ACCOUNT_NONE:
            n = identity_account(data, f.head, <uint8_t>f.area.account_kind, f.policy.text + f.area.account_name.off,
                                 f.area.account_name.len, self.account, sizeof(self.account))
            f.account_key = siphash(&self.memory.shared.secret, self.account, n) if n else 0
        f.path = self.path
        f.path_len = path_normalise(data, self.head.path, self.path, PATH_BYTES_MAX)
        memset(&j, 0, sizeof(j))
        with nogil:
            judge_request(&self.memory.shared, &f, now_ns, &j)
        return self.tell(&f, &j)

    def spoof(self, uint32_t listener, head: bytes, uint64_t first, uint64_t count, uint64_t now_ns, uint64_t step_ns) -> int:
        """How many of `count` requests pass: each from another IPv6 /64, numbers `first` on, `step_ns` apart, well answered at once."""
        cdef Http1Limits limits
        cdef Facts f
        cdef Judgement j
        cdef uint32_t scan = 0
        cdef uint64_t number, mixed, passed = 0
        cdef const uint8_t* data = <const uint8_t*><const char*>head
        limits.line_bytes_max, limits.head_bytes_max, limits.headers_max = 8192, 16384, 100
        if request_parse(data, <uint32_t>len(head), &scan, &limits, &self.head) != HTTP1_OK:
            raise ValueError("not a request")
        self.begin(&f, listener, bytes(16))
        f.data = data
        f.head = &self.head
        f.fingerprint = fingerprint_head(data, f.head, <uint8_t>(c"0" + f.head.minor))
        f.area = &f.policy.areas[0]
        f.first_request = True
        f.path = self.path
        f.path_len = path_normalise(data, self.head.path, self.path, PATH_BYTES_MAX)
        for number in range(first, first + count):
            mixed = (number + 1) * <uint64_t>0x9E3779B97F4A7C15     # odd: no two numbers give one prefix
            memcpy(f.client_full.bytes, &mixed, 8)
            self.address(&f)
            memset(&j, 0, sizeof(j))
            judge_connection(&self.memory.shared, &f, now_ns, &j)
            memset(&j, 0, sizeof(j))
            judge_request(&self.memory.shared, &f, now_ns, &j)
            passed += j.verdict == VERDICT_PASS
            judge_done(&self.memory.shared, f.area, &j, f.client_key, f.fingerprint, f.account_key, 1000, 1000, True, now_ns)
            now_ns += step_ns
        return passed

    def done(self, ProbeJudgement j, uint64_t now_ns, uint64_t nbytes=0, uint64_t origin_ns=0, bint good=True) -> None:
        """account: how the request ended."""
        with nogil:
            judge_done(&self.memory.shared, j.area, &j.judgement, j.client_key, j.fingerprint, j.account_key,
                       nbytes, origin_ns, good, now_ns)


def probe_text_matches(text: bytes, pattern: bytes, int match, bint any_case) -> bool:
    """MATCH_* of a pattern on a text."""
    return bool(text_matches(<const uint8_t*><const char*>text, <uint32_t>len(text), <const uint8_t*><const char*>pattern,
                             <uint32_t>len(pattern), match, any_case))


def probe_area_totals(Memory memory, uint32_t area) -> dict:
    """What the judge counts of an area, on this worker's slot."""
    cdef AreaTotals* t = &memory.shared.totals[memory.shared.slot].areas[area]
    return {"measures": [t.measures[i] for i in range(8)], "refused_acts": t.refused_acts}
