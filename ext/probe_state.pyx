# Python faces of the shared-memory concepts, for tests: thin, checked, over a buffer that the test brings (an mmap to share with children).
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer


def probe_siphash(k0: int, k1: int, data: bytes) -> int:
    cdef HashKey key
    key.k0 = k0
    key.k1 = k1
    return siphash(&key, <const char*>data, len(data))


def probe_siphash_pair(k0: int, k1: int, a: int, b: int) -> int:
    cdef HashKey key
    key.k0 = k0
    key.k1 = k1
    return siphash_pair(&key, a, b)


cdef class ProbeTable:
    """A writable buffer held for as long as the table that lies in it."""
    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, memory):
        PyObject_GetBuffer(memory, &self.view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    cdef uint64_t buckets(self, uint64_t bucket_bytes) except 0:
        cdef uint64_t n = <uint64_t>self.view.len // bucket_bytes
        if n == 0 or n & (n - 1) or n * bucket_bytes != <uint64_t>self.view.len or <uintptr_t>self.view.buf % 64:
            raise ValueError(f"buffer must be 64-byte aligned and a power of two times {bucket_bytes} bytes")
        return n


cdef class ProbeLimiter(ProbeTable):
    cdef Limiter table

    def __init__(self, memory):
        self.table.cells = <Cell*>self.view.buf
        self.table.bucket_mask = self.buckets(CELLS_BUCKET * sizeof(Cell)) - 1

    def admit(self, uint64_t key, rate, uint64_t cost, uint64_t now_ns, uint32_t share_ppm=1000000) -> tuple:
        """(limited, remaining, retry_ns, reset_ns); rate is (count, period_ns, burst)."""
        cdef Rate r
        cdef Admission out
        r.count, r.period_ns, r.burst = rate
        with nogil:
            limiter_admit(&self.table, key, &r, cost, share_ppm, now_ns, &out)
        return bool(out.limited), out.remaining, out.retry_ns, out.reset_ns

    def charge(self, uint64_t key, rate, uint64_t cost, uint64_t debt_max_ns, uint64_t now_ns) -> None:
        cdef Rate r
        r.count, r.period_ns, r.burst = rate
        with nogil:
            limiter_charge(&self.table, key, &r, cost, debt_max_ns, now_ns)


cdef class ProbeRing(ProbeTable):
    """A ring over a buffer: RingHeader, then data."""
    cdef Ring ring

    def __init__(self, memory):
        cdef uint64_t size = <uint64_t>self.view.len - sizeof(RingHeader)
        if <uint64_t>self.view.len <= sizeof(RingHeader) or size & (size - 1) or size < RING_BYTES_MIN:
            raise ValueError("buffer must be a RingHeader and a power of two of bytes")
        self.ring.header = <RingHeader*>self.view.buf
        self.ring.data = <uint8_t*>self.view.buf + sizeof(RingHeader)
        self.ring.size = size

    def write(self, uint32_t kind, data: bytes) -> bool:
        cdef const char* p = data
        cdef uint32_t length = len(data)
        cdef bint done
        with nogil:
            done = ring_write(&self.ring, kind, <const uint8_t*>p, length)
        return bool(done)

    def has_room(self, uint32_t kind, uint32_t length) -> bool:
        return bool(ring_has_room(&self.ring, kind, length))

    def read(self):
        """(kind, payload); None: empty; False: skipped to the head."""
        cdef uint8_t out[16384]
        cdef uint32_t kind = 0, length = 0
        cdef int answer = ring_read(&self.ring, &kind, out, &length)
        if answer == RING_RECORD:
            return kind, (<char*>out)[:length]
        return None if answer == RING_EMPTY else False


cdef class ProbeLadder(ProbeTable):
    cdef Ladder table

    def __init__(self, memory):
        self.table.entries = <LadderEntry*>self.view.buf
        self.table.bucket_mask = self.buckets(LADDER_BUCKET * sizeof(LadderEntry)) - 1

    cdef object step(self, uint64_t key, holds, uint32_t available, uint64_t calm_ns, uint64_t now_ns, bint over):
        cdef uint64_t hold_ns[8]
        cdef uint32_t i, rungs = len(holds)
        cdef LadderStep out
        for i in range(min(rungs, <uint32_t>RUNGS_MAX)):
            hold_ns[i] = holds[i]
        if over:
            ladder_over(&self.table, key, hold_ns, rungs, available, calm_ns, now_ns, &out)
        else:
            ladder_under(&self.table, key, hold_ns, rungs, available, calm_ns, now_ns, &out)
        return out.rung, bool(out.entered), out.skipped

    def over(self, uint64_t key, holds, uint32_t available, uint64_t calm_ns, uint64_t now_ns) -> tuple:
        """(rung, entered, skipped)"""
        return self.step(key, holds, available, calm_ns, now_ns, True)

    def under(self, uint64_t key, holds, uint32_t available, uint64_t calm_ns, uint64_t now_ns) -> tuple:
        return self.step(key, holds, available, calm_ns, now_ns, False)


cdef class ProbeKnown(ProbeTable):
    """Known clients of AREAS_MAX areas; the areas' states lie beside the table."""
    cdef Known table
    cdef AreaState own[256]
    cdef AreaState* states
    cdef ProbeTable lent

    def __init__(self, memory):
        memset(self.own, 0, sizeof(self.own))
        self.states = self.own
        self.table.entries = <KnownEntry*>self.view.buf
        self.table.bucket_mask = self.buckets(KNOWN_BUCKET * sizeof(KnownEntry)) - 1
        self.table.areas = self.states

    def use_states(self, memory) -> None:
        """Areas' states in a buffer instead, to share them with children."""
        self.lent = ProbeTable(memory)
        if self.lent.view.len < <Py_ssize_t>sizeof(self.own):
            raise ValueError("buffer must hold AREAS_MAX states")
        self.states = self.table.areas = <AreaState*>self.lent.view.buf

    def note(self, uint64_t key, bint good, uint64_t now_ns, uint16_t face=0, uint8_t area=0) -> None:
        known_note(&self.table, &self.states[area], key, face, good, now_ns)

    def note_fingerprint(self, uint64_t key, uint64_t fingerprint_key, uint64_t now_ns, uint8_t area=0) -> None:
        known_note_fingerprint(&self.table, &self.states[area], key, fingerprint_key, now_ns)

    def known(self, uint64_t key, uint64_t now_ns) -> bool:
        return bool(known_is(&self.table, key, now_ns))

    def was(self, uint64_t key, uint64_t now_ns) -> bool:
        return bool(known_was(&self.table, key, now_ns))

    def shared(self, uint64_t key, uint64_t now_ns) -> bool:
        return bool(known_shared(&self.table, key, now_ns))

    def fingerprint_clients(self, uint64_t fingerprint_key) -> int:
        return known_fingerprint_clients(&self.table, fingerprint_key)

    def fingerprint_shared(self, uint64_t fingerprint_key, uint8_t area=0) -> bool:
        return bool(known_fingerprint_shared(&self.table, &self.states[area], fingerprint_key))

    def block_allowed(self, uint64_t key, uint64_t share_ppm, uint64_t now_ns, uint8_t area=0) -> bool:
        return bool(known_block_allowed(&self.table, &self.states[area], key, share_ppm, now_ns))

    def mark_blocked(self, uint64_t key, bint blocked, uint64_t now_ns, uint8_t area=0) -> None:
        known_mark_blocked(&self.table, &self.states[area], key, blocked, now_ns)

    def sweep(self, uint64_t at, uint64_t count, uint64_t now_ns) -> int:
        return known_sweep(&self.table, at, count, now_ns)

    def rush(self, uint64_t now_ns, uint8_t area=0) -> None:
        rush_note(&self.states[area], now_ns)

    def rushing(self, uint64_t now_ns, uint8_t area=0) -> bool:
        return bool(rush_is(&self.states[area], now_ns))

    def state(self, uint8_t area=0) -> dict:
        return self.states[area]


cdef class ProbeBlocks(ProbeTable):
    """Blocks over a buffer: BlocksHead, then entries. Sources are (kind, plen, 16 bytes); area masks are whole numbers."""
    cdef Blocks table
    cdef HashKey secret

    def __init__(self, memory, uint64_t k0=1, uint64_t k1=2):
        cdef uint64_t n = (<uint64_t>self.view.len - sizeof(BlocksHead)) // (BLOCKS_BUCKET * sizeof(BlockEntry))
        if <uint64_t>self.view.len <= sizeof(BlocksHead) or n == 0 or n & (n - 1):
            raise ValueError("buffer must be a BlocksHead and a power of two of buckets")
        self.table.epoch = &(<BlocksHead*>self.view.buf).epoch
        self.table.kinds = (<BlocksHead*>self.view.buf).kinds
        self.table.count = &(<BlocksHead*>self.view.buf).count
        self.table.entries = <BlockEntry*>(<uint8_t*>self.view.buf + sizeof(BlocksHead))
        self.table.bucket_mask = n - 1
        self.secret.k0 = k0
        self.secret.k1 = k1

    @staticmethod
    cdef object told(const BlockEntry* e):
        areas = sum(<object>e.areas[i] << (64 * i) for i in range(AREA_WORDS))
        return {"kind": e.kind, "plen": e.plen, "address": (<const char*>e.address.bytes)[:16], "areas": areas,
                "since_ns": e.since_ns, "expires_ns": e.expires_ns, "first_ns": e.first_ns, "case_id": e.case_id,
                "rule_id": e.rule_id, "hits": e.hits}

    def put(self, source, areas, uint64_t expires_ns, uint64_t now_ns, uint64_t ttl_max_ns=U64_MAX, uint64_t blocks_max=U64_MAX,
            uint64_t case_id=1, uint64_t rule_id=0) -> int:
        cdef BlockEntry wanted
        cdef int i
        memset(&wanted, 0, sizeof(wanted))
        wanted.kind, wanted.plen = source[0], source[1]
        raw = <bytes?>source[2]
        if len(raw) != 16:
            raise ValueError("address must be 16 bytes")
        memcpy(wanted.address.bytes, <const char*>raw, 16)
        for i in range(AREA_WORDS):
            wanted.areas[i] = areas >> (64 * i) & 0xFFFFFFFFFFFFFFFF
        wanted.expires_ns = expires_ns
        wanted.case_id = case_id
        wanted.rule_id = rule_id
        return blocks_put(&self.table, &self.secret, &wanted, ttl_max_ns, blocks_max, now_ns)

    def match(self, address: bytes, uint64_t now_ns, want=None, bint whole=False):
        """The block that shuts this address out, or None. want: area mask."""
        cdef Address a
        cdef BlockEntry out
        cdef uint64_t words[4]
        cdef int i
        if len(address) != 16:
            raise ValueError("address must be 16 bytes")
        memcpy(a.bytes, <const char*>address, 16)
        if want is None:
            return ProbeBlocks.told(&out) if blocks_find_address(&self.table, &self.secret, &a, now_ns, &out) else None
        for i in range(AREA_WORDS):
            words[i] = want >> (64 * i) & 0xFFFFFFFFFFFFFFFF
        return ProbeBlocks.told(&out) if blocks_match_address(&self.table, &self.secret, &a, words, whole, now_ns, &out) else None

    def find_key(self, uint8_t kind, uint64_t key, uint64_t now_ns):
        cdef BlockEntry out
        return ProbeBlocks.told(&out) if blocks_find_key(&self.table, &self.secret, kind, key, now_ns, &out) else None

    def hit(self, address: bytes, uint64_t now_ns) -> None:
        cdef Address a
        cdef BlockEntry out
        memcpy(a.bytes, <const char*>address, 16)
        if blocks_find_address(&self.table, &self.secret, &a, now_ns, &out):
            blocks_hit(&self.table, &self.secret, &out)

    def remove(self, source, uint64_t now_ns) -> bool:
        cdef Address a
        raw = <bytes?>source[2]
        memcpy(a.bytes, <const char*>raw, 16)
        return bool(blocks_remove(&self.table, &self.secret, source[0], source[1], &a, now_ns))

    def listed(self, uint64_t now_ns) -> list:
        cdef BlockEntry out
        return [ProbeBlocks.told(&out) for i in range((self.table.bucket_mask + 1) * BLOCKS_BUCKET)
                if blocks_at(&self.table, &self.secret, i, now_ns, &out)]

    def sweep(self, uint64_t now_ns) -> None:
        blocks_sweep(&self.table, &self.secret, now_ns)

    @property
    def count(self) -> int:
        return self.table.count[0]

    @property
    def kinds(self) -> list:
        return [self.table.kinds[i] for i in range(4)]


def probe_counts_add(Memory memory, uint64_t key, int32_t delta) -> int:
    return counts_add(&memory.shared, key, delta)


def probe_counts_sum(Memory memory, uint64_t key) -> int:
    return counts_sum(&memory.shared, key)


def probe_latency_bucket(uint64_t ns) -> int:
    return latency_bucket(ns)


def probe_latency_bound_ns(uint32_t bucket) -> int:
    return latency_bound_ns(bucket)


def probe_known_note(Memory memory, uint8_t area, address: bytes, bint good, uint64_t now_ns) -> None:
    """A request of a client (16 bytes, client form) in an area, as judge_done notes it."""
    cdef Address a
    memcpy(a.bytes, <const char*>address, 16)
    known_note(&memory.shared.known, &memory.shared.control.areas[area],
               known_key(&memory.shared.secret, area, address_key(&memory.shared.secret, &a)), 0, good, now_ns)


def probe_ring_write(Memory memory, uint32_t kind, data: bytes) -> bool:
    return bool(ring_write(&memory.shared.rings[memory.shared.slot], kind, <const uint8_t*><const char*>data, <uint32_t>len(data)))


def probe_totals_add(Memory memory, uint8_t area, uint64_t n) -> None:
    """n onto some counters of this worker's slot."""
    memory.shared.totals[memory.shared.slot].accepted += n
    memory.shared.totals[memory.shared.slot].areas[area].requests += n
    memory.shared.totals[memory.shared.slot].areas[area].verdicts[VERDICT_DENY] += n


def probe_sizes() -> dict:
    """Bytes of what lies in shared memory, by name."""
    return {"Cell": sizeof(Cell), "LadderEntry": sizeof(LadderEntry), "KnownEntry": sizeof(KnownEntry), "BlockEntry": sizeof(BlockEntry),
            "BlocksHead": sizeof(BlocksHead), "CountCell": sizeof(CountCell), "RingHeader": sizeof(RingHeader),
            "AreaState": sizeof(AreaState), "RegionHeader": sizeof(RegionHeader)}


def probe_tickets(Memory memory) -> bytes:
    """The name of the key that seals session tickets now."""
    cdef TicketKey keys[3]
    return (<const char*>keys[0].name)[:16] if tickets_read(&memory.shared, keys) else b""
