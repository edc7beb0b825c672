# Regions: made, checked, mapped. Owns their layout and class Memory, the Python face of what workers share.
# Invariants: all sizes follow from kind, capacity and slots of the checked header (region_plan), and must be those of the file; the
# header is read once, when mapped; numbers from payloads are never used as sizes.
import fcntl
import os
import time

from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

cdef enum:
    HEADER_BYTES = 4096
    SWEEP_ENTRIES = 16384       # known clients looked through a round
    SWEEP_ANYWAY = 8            # sweeps, of which one looks at the blocks whatever is known of them
    RING_READ_BYTES_MAX = 1 << 24

cdef uint64_t REGION_MAGIC = 0x4D454D4255524353     # "SCRUBMEM"
cdef uint64_t CAPACITY_MAX = <uint64_t>1 << 36

REGION_KINDS = {"control": REGION_CONTROL, "limiter": REGION_LIMITER, "ladder": REGION_LADDER, "known": REGION_KNOWN,
                "blocks": REGION_BLOCKS, "totals": REGION_TOTALS, "gauges": REGION_GAUGES, "rings": REGION_RINGS,
                "cache": REGION_CACHE, "origins": REGION_ORIGINS}
SOURCE_KINDS = {"client": SOURCE_CLIENT, "prefix": SOURCE_PREFIX, "fingerprint": SOURCE_FINGERPRINT, "account": SOURCE_ACCOUNT,
                "pair": SOURCE_PAIR}
ORIGIN_HEALTHS = ("unknown", "up", "down")        # by ORIGIN_HEALTH_*
POOL_NAMES = ("clients", "exchanges", "origins", "buffers", "notes", "pipes", "tls", "sessions", "streams",
              "uplinks")     # by place in Gauges.pools
SOURCE_NAMES = {number: name for name, number in SOURCE_KINDS.items()}
BLOCK_ANSWERS = {BLOCK_NEW: "new", BLOCK_EXTENDED: "extended", BLOCK_REFUSED_FULL: "refused_full", BLOCK_REFUSED_TTL: "refused_ttl",
                 BLOCK_REFUSED_BUSY: "refused_busy", BLOCK_REFUSED_SOURCE: "refused_source"}


class RegionRefused(ValueError):
    """A region that is not what it should be: reason, then what to do."""


cdef inline uint64_t whole_pages(uint64_t n) noexcept nogil:
    return (n + 4095) & ~<uint64_t>4095


cdef inline uint64_t power_of_two(uint64_t n, uint64_t least) noexcept nogil:
    cdef uint64_t power = least
    while power < n:
        power <<= 1
    return power


cdef bint region_plan(uint32_t kind, uint64_t capacity, uint32_t slots, RegionPlan* out) noexcept nogil:
    cdef bint by_slot = kind == REGION_TOTALS or kind == REGION_GAUGES or kind == REGION_RINGS
    if capacity > CAPACITY_MAX or (by_slot and not 1 <= slots <= WORKERS_MAX):
        return False
    out.slots = slots if by_slot else 0
    out.slot_bytes = 0
    out.capacity = 1
    if kind == REGION_CONTROL:
        out.payload_bytes = whole_pages(sizeof(Control))
    elif kind == REGION_ORIGINS:
        out.capacity = ORIGINS_MAX
        out.payload_bytes = whole_pages(ORIGINS_MAX * sizeof(OriginState))
    elif kind == REGION_LIMITER:
        out.capacity = power_of_two(capacity, CELLS_BUCKET)
        out.payload_bytes = whole_pages(out.capacity * sizeof(Cell))
    elif kind == REGION_LADDER:
        out.capacity = power_of_two(capacity, LADDER_BUCKET)
        out.payload_bytes = whole_pages(out.capacity * sizeof(LadderEntry))
    elif kind == REGION_KNOWN:
        out.capacity = power_of_two(capacity, KNOWN_BUCKET)
        out.payload_bytes = whole_pages(out.capacity * sizeof(KnownEntry))
    elif kind == REGION_BLOCKS:
        out.capacity = power_of_two(capacity, BLOCKS_BUCKET)
        out.payload_bytes = HEADER_BYTES + whole_pages(out.capacity * sizeof(BlockEntry))
    elif kind == REGION_CACHE:
        out.capacity = power_of_two(capacity, CACHE_BYTES_MIN) if capacity else 0
        out.payload_bytes = HEADER_BYTES + whole_pages(cache_entries(out.capacity) * sizeof(CacheEntry)) + out.capacity
    elif kind == REGION_TOTALS:
        out.slot_bytes = whole_pages(sizeof(Totals))
    elif kind == REGION_GAUGES:
        out.capacity = power_of_two(capacity, COUNTS_BUCKET)
        out.slot_bytes = whole_pages(sizeof(Gauges) + out.capacity * sizeof(CountCell))
    elif kind == REGION_RINGS:
        out.capacity = power_of_two(capacity, RING_BYTES_MIN)
        out.slot_bytes = HEADER_BYTES + out.capacity
    else:
        return False
    if by_slot:
        out.payload_bytes = out.slot_bytes * slots
    return True


def _region_plan(kind: str, capacity: int, slots: int) -> RegionPlan:
    cdef RegionPlan plan
    if kind not in REGION_KINDS:
        raise RegionRefused(f"no region kind {kind!r}; one of {', '.join(REGION_KINDS)}")
    if not 0 <= capacity <= CAPACITY_MAX or not 0 <= slots <= WORKERS_MAX \
            or not region_plan(REGION_KINDS[kind], capacity, slots, &plan):
        raise RegionRefused(f"region {kind}: capacity {capacity} or slots {slots} out of bounds; slots are 1..{WORKERS_MAX}")
    return plan


def region_bytes(kind: str, capacity: int, slots: int) -> int:
    """Size in bytes of a region, header page included. capacity is rounded up to a power of two; slots counts workers."""
    return HEADER_BYTES + _region_plan(kind, capacity, slots)["payload_bytes"]


def region_init(fd: int, kind: str, capacity: int, slots: int, secret: bytes = b"") -> None:
    """Make a fresh region of an empty memfd: sized, sealed against resizing where the memfd allows sealing, header written.

    secret: 16 bytes that all hashes of `control` are keyed with, so that those on disk hold; none: nobody's but this memory's."""
    cdef RegionHeader header
    cdef Control control
    plan = _region_plan(kind, capacity, slots)
    if os.fstat(fd).st_size not in (0, HEADER_BYTES + plan["payload_bytes"]):
        raise RegionRefused(f"region {kind}: the file has another size already; give an empty memfd")
    os.ftruncate(fd, HEADER_BYTES + plan["payload_bytes"])
    memset(&header, 0, sizeof(header))
    header.magic = REGION_MAGIC
    header.layout_version = LAYOUT_VERSION
    header.kind = REGION_KINDS[kind]
    header.capacity = plan["capacity"]
    header.payload_bytes = plan["payload_bytes"]
    header.slot_bytes = plan["slot_bytes"]
    header.slots = plan["slots"]
    os.pwrite(fd, (<char*>&header)[:sizeof(header)], 0)
    if kind == "control":
        memset(&control, 0, sizeof(control))
        secret = secret or os.urandom(16)
        if len(secret) != 16:
            raise RegionRefused(f"region control: a secret has 16 bytes, this one {len(secret)}")
        control.secret.k0 = int.from_bytes(secret[:8], "little")
        control.secret.k1 = int.from_bytes(secret[8:], "little")
        ticket_key_fill(&control.tickets.keys[0], os.urandom(TICKET_KEY_BYTES), time.monotonic_ns())
        control.created_wall_ns = time.time_ns()
        control.created_mono_ns = time.monotonic_ns()
        os.pwrite(fd, (<char*>&control)[:sizeof(control)], HEADER_BYTES)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError:
        pass                    # made without MFD_ALLOW_SEALING, or no memfd at all


cdef uint64_t case_next(Shared* s, uint64_t now_ns) noexcept nogil:
    cdef uint64_t case_id = siphash_pair(&s.secret, add_u64(&s.control.block_sequence, 1), now_ns)
    return case_id if case_id else 1


# A client among the live blocks of one area mask: count it where it is known.
cdef void sweep_blocked(Shared* s, const BlockEntry* e, uint64_t hashed, uint64_t* blocked, uint64_t now_ns) noexcept nogil:
    cdef uint32_t word, area
    cdef uint64_t bits
    for word in range(AREA_WORDS):
        bits = e.areas[word]
        while bits:
            area = word * 64 + 63 - leading_zeros_u64(bits)
            bits &= ~(<uint64_t>1 << (area & 63))
            if known_was(&s.known, known_key(&s.secret, area, hashed), now_ns):
                blocked[area] += 1


# A block began: its known clients count as blocked in each of its areas.
cdef void mark_blocked(Shared* s, const BlockEntry* e, uint64_t now_ns) noexcept nogil:
    cdef uint32_t area, i
    cdef uint64_t hashed
    cdef Address client
    for i in range(blocks_clients(e)):
        blocks_client(e, i, &client)
        hashed = address_key(&s.secret, &client)
        for area in range(AREAS_MAX):
            if e.areas[area >> 6] >> (area & 63) & 1:
                known_mark_blocked(&s.known, &s.control.areas[area], known_key(&s.secret, area, hashed), True, now_ns)


# blocks: whether these are counted anew. Where none was there and none has been made since, all counts are what they were.
cdef uint64_t memory_sweep(Shared* s, bint blocks, uint64_t at, uint64_t now_ns) noexcept nogil:
    cdef uint64_t blocked[256]
    cdef BlockEntry copy
    cdef Address client
    cdef uint64_t i
    cdef uint32_t k
    if not blocks:
        return known_sweep(&s.known, at, SWEEP_ENTRIES, now_ns)
    memset(blocked, 0, sizeof(blocked))
    blocks_sweep(&s.blocks, &s.secret, now_ns)
    for i in range((s.blocks.bucket_mask + 1) * BLOCKS_BUCKET):
        if not blocks_at(&s.blocks, &s.secret, i, now_ns, &copy):
            continue
        for k in range(blocks_clients(&copy)):
            blocks_client(&copy, k, &client)
            sweep_blocked(s, &copy, address_key(&s.secret, &client), blocked, now_ns)
    for i in range(AREAS_MAX):
        store_u64(&s.control.areas[i].known_blocked, blocked[i])
    return known_sweep(&s.known, at, SWEEP_ENTRIES, now_ns)


def _source_text(kind: int, plen: int, raw: bytes) -> str:
    """A source as people write it: address, prefix, or 16 hex digits of a key."""
    cdef Address a
    cdef uint8_t text[46]
    cdef uint32_t length
    if kind not in (SOURCE_CLIENT, SOURCE_PREFIX):
        return f"{int.from_bytes(raw[:8], 'little'):016x}"
    memcpy(a.bytes, <const char*>raw, 16)
    length = address_format(&a, text)
    name = (<char*>text)[:length].decode("ascii")
    v4 = bool(address_is_v4(&a))
    if kind == SOURCE_CLIENT and v4:
        return name
    return f"{name}/{plen - 96 if v4 else plen}"


cdef list areas_of(const uint64_t* mask):
    """Indexes of the areas in a mask, in order."""
    cdef uint32_t area
    return [area for area in range(AREAS_MAX) if mask[area >> 6] and mask[area >> 6] >> (area & 63) & 1]


cdef int parse_areas(list areas, uint64_t* mask) except -1:
    """The mask of areas; ValueError: one of them is none."""
    cdef int area
    for area in areas:
        if not 0 <= area < AREAS_MAX:
            raise ValueError(f"area {area} is none of {AREAS_MAX}")
        mask[area >> 6] |= <uint64_t>1 << (area & 63)
    return 0


cdef int parse_source(str kind, str source, BlockEntry* out) except -1:
    """Fill kind, plen and address from text; ValueError says what was expected."""
    if kind not in SOURCE_KINDS:
        raise ValueError(f"no source kind {kind!r}; one of {', '.join(SOURCE_KINDS)}")
    out.kind = SOURCE_KINDS[kind]
    if out.kind not in (SOURCE_CLIENT, SOURCE_PREFIX):
        if len(source) != 16 or not set(source) <= set("0123456789abcdef"):
            raise ValueError(f"{source!r} is no {kind}; expected 16 hex digits")
        raw = int(source, 16).to_bytes(8, "little") + bytes(8)
        memcpy(out.address.bytes, <const char*>raw, 16)
        return 0
    name, slash, length = source.partition("/")
    text = name.encode("ascii", "replace")
    if not address_parse(<const uint8_t*><const char*>text, <uint32_t>len(text), &out.address):
        raise ValueError(f"{name!r} is no address; expected IPv4 or IPv6")
    v4 = bool(address_is_v4(&out.address))
    bits = 32 if v4 else 128
    if slash and not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= bits):
        raise ValueError(f"{source!r}: prefix length must be 0..{bits}")
    if out.kind == SOURCE_PREFIX and not slash:
        raise ValueError(f"{source!r} is no prefix; expected address/length")
    if out.kind == SOURCE_CLIENT and slash and int(length) != (32 if v4 else 64):
        raise ValueError(f"{source!r} is no client; expected an IPv4 address or an IPv6 /64")
    out.plen = (int(length) if slash else bits) + (96 if v4 else 0)
    return 0


cdef class Memory:
    """All regions of a gateway, mapped. fds: one of each kind, which stay the caller's. slot: this worker's, -1 for none."""

    def __cinit__(self):
        cdef int kind
        for kind in range(REGIONS):
            self.maps[kind] = NULL

    def __init__(self, fds: dict, slot: int):
        cdef RegionPlan plan
        cdef uint64_t i
        cdef uint8_t* base
        if self.maps[REGION_CONTROL] != NULL:
            raise RuntimeError("Memory is mapped already; make another")
        missing = [kind for kind in REGION_KINDS if kind not in fds]
        if missing:
            raise RegionRefused(f"regions missing: {', '.join(missing)}; region_init makes them")
        plans = {kind: self._map(kind, fds[kind]) for kind in REGION_KINDS}
        self.shared.workers = plans["totals"]["slots"]
        if not plans["gauges"]["slots"] == plans["rings"]["slots"] == self.shared.workers:
            raise RegionRefused("totals, gauges and rings have different numbers of slots; make all regions anew")
        if not -1 <= slot < <int>self.shared.workers:
            raise RegionRefused(f"slot {slot} is none of {self.shared.workers}")
        self.shared.slot = slot
        self.shared.control = <Control*>self.maps[REGION_CONTROL]
        self.shared.secret = self.shared.control.secret
        self.shared.origins = <OriginState*>self.maps[REGION_ORIGINS]
        self.shared.limiter.cells = <Cell*>self.maps[REGION_LIMITER]
        self.shared.limiter.bucket_mask = plans["limiter"]["capacity"] // CELLS_BUCKET - 1
        self.shared.ladder.entries = <LadderEntry*>self.maps[REGION_LADDER]
        self.shared.ladder.bucket_mask = plans["ladder"]["capacity"] // LADDER_BUCKET - 1
        self.shared.known.entries = <KnownEntry*>self.maps[REGION_KNOWN]
        self.shared.known.bucket_mask = plans["known"]["capacity"] // KNOWN_BUCKET - 1
        self.shared.known.areas = self.shared.control.areas
        base = <uint8_t*>self.maps[REGION_BLOCKS]
        self.shared.blocks.epoch = &(<BlocksHead*>base).epoch
        self.shared.blocks.kinds = (<BlocksHead*>base).kinds
        self.shared.blocks.count = &(<BlocksHead*>base).count
        self.shared.blocks.entries = <BlockEntry*>(base + HEADER_BYTES)
        self.shared.blocks.bucket_mask = plans["blocks"]["capacity"] // BLOCKS_BUCKET - 1
        cache_map(&self.shared.cache, <uint8_t*>self.maps[REGION_CACHE], plans["cache"]["capacity"])
        self.shared.count_mask = plans["gauges"]["capacity"] // COUNTS_BUCKET - 1
        self.gauges_slot_bytes = plans["gauges"]["slot_bytes"]
        for i in range(self.shared.workers):
            plan = plans["totals"]
            self.shared.totals[i] = <Totals*>(<uint8_t*>self.maps[REGION_TOTALS] + i * plan.slot_bytes)
            self.shared.gauges[i] = <Gauges*>(<uint8_t*>self.maps[REGION_GAUGES] + i * self.gauges_slot_bytes)
            plan = plans["rings"]
            base = <uint8_t*>self.maps[REGION_RINGS] + i * plan.slot_bytes
            self.shared.rings[i].header = <RingHeader*>base
            self.shared.rings[i].data = base + HEADER_BYTES
            self.shared.rings[i].size = plan.capacity

    def __dealloc__(self):
        cdef int kind
        for kind in range(REGIONS):
            if self.maps[kind] != NULL:
                munmap(<uint8_t*>self.maps[kind] - HEADER_BYTES, self.map_bytes[kind])

    cdef Shared* pointer(self) noexcept nogil:
        return &self.shared

    def _map(self, kind: str, fd: int) -> RegionPlan:
        """Map one region and check its header against its size. maps[] points to the payload."""
        cdef RegionHeader header
        cdef RegionPlan plan
        cdef int number = REGION_KINDS[kind]
        raw = os.pread(fd, sizeof(header), 0)
        if len(raw) != sizeof(header):
            raise RegionRefused(f"region {kind}: too short for a header; region_init makes one")
        memcpy(&header, <const char*>raw, sizeof(header))
        if header.magic != REGION_MAGIC:
            raise RegionRefused(f"region {kind}: no region of ours; region_init makes one")
        if header.layout_version != LAYOUT_VERSION:
            raise RegionRefused(f"region {kind}: layout {header.layout_version}, this is {LAYOUT_VERSION}; restart the gateway")
        if header.kind != number:
            raise RegionRefused(f"region {kind}: is of kind {header.kind}, not {number}; were two descriptors exchanged?")
        if not region_plan(header.kind, header.capacity, header.slots, &plan) or plan.capacity != header.capacity \
                or plan.payload_bytes != header.payload_bytes or plan.slot_bytes != header.slot_bytes or plan.slots != header.slots:
            raise RegionRefused(f"region {kind}: its header contradicts itself; make it anew")
        total = HEADER_BYTES + plan.payload_bytes
        if os.fstat(fd).st_size != total:
            raise RegionRefused(f"region {kind}: {os.fstat(fd).st_size} bytes, its header says {total}; make it anew")
        cdef void* base = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if base == MAP_FAILED:
            raise OSError(f"region {kind}: cannot be mapped; is the descriptor open for writing?")
        self.maps[number] = <uint8_t*>base + HEADER_BYTES
        self.map_bytes[number] = total
        return plan

    def _worker(self, slot: int) -> int:
        if not 0 <= slot < <int>self.shared.workers:
            raise IndexError(f"slot {slot} is none of {self.shared.workers}")
        return slot

    @property
    def slot(self) -> int:
        return self.shared.slot

    @property
    def workers(self) -> int:
        return self.shared.workers

    def totals(self, area_ids: list) -> dict:
        """Counters summed over workers (they wrap at 2**64); under "areas" those of the areas asked for, by id."""
        cdef Totals total
        cdef uint64_t* words = <uint64_t*>&total
        cdef uint64_t* theirs
        cdef uint32_t worker
        cdef size_t i
        memset(&total, 0, sizeof(total))
        for worker in range(self.shared.workers):
            theirs = <uint64_t*>self.shared.totals[worker]
            for i in range(sizeof(Totals) // 8):
                words[i] += load_u64(&theirs[i])
        areas = {}
        for area in area_ids:
            if not 0 <= area < AREAS_MAX:
                raise IndexError(f"area {area} is none of {AREAS_MAX}")
            areas[area] = {name: value for name, value in (<dict>total.areas[<int>area]).items() if name != "reserved"}
        found = _totals_head(&total)
        found["areas"] = areas
        return found

    def gauges(self, slot: int) -> dict:
        """A worker's gauges as they stand; origin_in_flight has only origins with requests in flight, by id.
        pools: objects taken, and in all."""
        cdef Gauges copy
        memcpy(&copy, self.shared.gauges[<int>self._worker(slot)], sizeof(copy))
        return {"beat_ns": copy.beat_ns, "pid": copy.pid, "generation": copy.generation, "generation_refused": copy.generation_refused,
                "connections": copy.connections, "origin_connections": copy.origin_connections, "requests": copy.requests,
                "tarpit": copy.tarpit, "draining": copy.draining, "tunnels": copy.tunnels,
                "origin_waiting": copy.origin_waiting,
                "http2_connections": copy.http2_connections, "http2_streams": copy.http2_streams, "http2_bytes": copy.http2_bytes,
                "pools": {name: (copy.pools[i].used, copy.pools[i].size) for i, name in enumerate(POOL_NAMES)},
                "origin_in_flight": {i: copy.origin_in_flight[i] for i in range(ORIGINS_MAX) if copy.origin_in_flight[i]}}

    def gauges_layout(self) -> tuple:
        """(offset of slot 0 in the region's file, bytes a slot): for the keeper, which zeroes a dead worker's slot and reads beats."""
        return HEADER_BYTES, self.gauges_slot_bytes

    def zero_slot(self, slot: int) -> None:
        """Take back what a dead worker counted: its gauges and counts by key, not its totals."""
        memset(self.shared.gauges[<int>self._worker(slot)], 0, self.gauges_slot_bytes)

    def beat(self) -> None:
        """This worker lives: time and pid into its gauges."""
        if self.shared.slot < 0:
            raise RuntimeError("no slot, no beat; the supervisor beats in a page of its own")
        store_u64(&self.shared.gauges[self.shared.slot].pid, os.getpid())
        store_u64(&self.shared.gauges[self.shared.slot].beat_ns, time.monotonic_ns())

    def refuse_generation(self, generation: int) -> None:
        """This worker could not load that policy: the supervisor reads it in its gauges."""
        if self.shared.slot < 0:
            raise RuntimeError("no slot, nothing to refuse")
        store_u64(&self.shared.gauges[self.shared.slot].generation_refused, generation)

    def ring_read(self, slot: int, bytes_max: int) -> list:
        """Take finished records off a worker's ring, until bytes_max of payload are reached or it is empty: (RECORD_LINE, lines, how many)
        for lines in a row, each with its line end; (RECORD_ACT, payload, 1) for an act."""
        cdef Ring* ring = &self.shared.rings[<int>self._worker(slot)]
        cdef uint64_t most = min(max(bytes_max, 1), RING_READ_BYTES_MAX), used = 0, taken = 0
        cdef uint8_t* block = <uint8_t*>malloc(most + RECORD_BYTES_MAX + 1)
        cdef uint32_t kind = RECORD_LINE, length = 0, lines = 0
        cdef int answer = RING_RECORD
        found = []
        if block == NULL:
            raise MemoryError
        try:
            while answer == RING_RECORD and taken < most:
                with nogil:
                    while taken < most:
                        answer = ring_read(ring, &kind, block + used, &length)
                        if answer != RING_RECORD or kind == RECORD_ACT:
                            break
                        taken += length + 8
                        lines += 1
                        used += length
                        if length == 0 or block[used - 1] != 10:
                            block[used] = 10
                            used += 1
                        kind = RECORD_LINE
                if answer == RING_RECORD and kind == RECORD_ACT:
                    if lines:
                        found.append((RECORD_LINE, (<char*>block)[:used], lines))
                    found.append((RECORD_ACT, (<char*>block + used)[:length], 1))
                    taken += length + 8
                    used, lines, kind = 0, 0, RECORD_LINE
            if lines:
                found.append((RECORD_LINE, (<char*>block)[:used], lines))
        finally:
            free(block)
        self.ring_resyncs += answer == RING_RESYNC
        return found

    def blocks(self) -> list:
        """Blocks in force: kind, source, areas, since_ns, expires_ns (monotonic), case_id and rule_id (16 hex digits), hits."""
        cdef BlockEntry e
        cdef uint64_t i, now = time.monotonic_ns()
        found = []
        for i in range((self.shared.blocks.bucket_mask + 1) * BLOCKS_BUCKET):
            if blocks_at(&self.shared.blocks, &self.shared.secret, i, now, &e):
                found.append({
                    "kind": SOURCE_NAMES.get(e.kind, str(e.kind)),
                    "source": _source_text(e.kind, e.plen, (<char*>e.address.bytes)[:16]),
                    "areas": areas_of(e.areas),
                    "since_ns": <int64_t>e.since_ns, "expires_ns": e.expires_ns,
                    "case_id": f"{e.case_id:016x}", "rule_id": f"{e.rule_id:016x}", "hits": e.hits,
                })
        return found

    def blocks_count(self) -> tuple:
        """(blocks in force, those of each area by id): `blocks` without the list."""
        cdef BlockEntry e
        cdef uint64_t i, bits, now = time.monotonic_ns()
        cdef uint64_t count = 0
        cdef uint64_t areas[256]
        cdef uint32_t word, area
        memset(areas, 0, sizeof(areas))
        with nogil:
            for i in range((self.shared.blocks.bucket_mask + 1) * BLOCKS_BUCKET):
                if not blocks_at(&self.shared.blocks, &self.shared.secret, i, now, &e):
                    continue
                count += 1
                for word in range(AREA_WORDS):
                    bits = e.areas[word]
                    while bits:
                        area = 63 - leading_zeros_u64(bits)
                        bits &= ~(<uint64_t>1 << area)
                        areas[word * 64 + area] += 1
        return count, {area: areas[<int>area] for area in range(AREAS_MAX) if areas[<int>area]}

    def block_put(self, kind: str, source: str, areas: list, ttl_ns: int, ttl_max_ns: int, blocks_max: int, rule_id: int,
                  rule: int = 0, proven: bool = True) -> str:
        """Block a source for ttl_ns in these areas: new, extended, or refused_full, refused_ttl, refused_busy, refused_source. proven:
        packets come from this very address.

        Asks nothing about never-block, shared addresses or shares: that is the caller's. ValueError: source or area is none.
        """
        cdef BlockEntry wanted
        cdef uint64_t now = time.monotonic_ns()
        cdef uint64_t ttl = ttl_ns, ttl_max = ttl_max_ns, most = blocks_max
        cdef int answer
        memset(&wanted, 0, sizeof(wanted))
        parse_source(kind, source, &wanted)
        parse_areas(areas, wanted.areas)
        wanted.expires_ns = add_saturating_u64(now, ttl)
        wanted.case_id = case_next(&self.shared, now)
        wanted.rule_id = rule_id
        wanted.rule = rule
        wanted.proven = proven
        answer = blocks_put(&self.shared.blocks, &self.shared.secret, &wanted, ttl_max, most, now)
        if answer == BLOCK_NEW:
            mark_blocked(&self.shared, &wanted, now)
        return BLOCK_ANSWERS[answer]

    def block_remove(self, kind: str, source: str) -> bool:
        """Lift all blocks of a source. False: there was none in force. ValueError: source is none."""
        cdef BlockEntry named
        cdef uint64_t now = time.monotonic_ns()
        memset(&named, 0, sizeof(named))
        parse_source(kind, source, &named)
        lifted = blocks_remove(&self.shared.blocks, &self.shared.secret, named.kind, named.plen, &named.address, now)
        if lifted:
            self.sweep()
        return bool(lifted)

    def sweep(self) -> None:
        """The supervisor's round, each second: counts blocks and blocked known clients anew, forgets known clients that were away."""
        cdef uint64_t now = time.monotonic_ns(), epoch = self.blocks_epoch()
        cdef bint blocks = epoch != self.swept_epoch or load_u64(self.shared.blocks.count) != 0 or self.swept % SWEEP_ANYWAY == 0
        self.swept += 1
        self.swept_epoch = epoch
        with nogil:
            self.sweep_at = memory_sweep(&self.shared, blocks, self.sweep_at, now)

    def blocks_epoch(self) -> int:
        """A number that is another one after each change of the blocks, but for one that a process did not live to finish."""
        return load_u64(self.shared.blocks.epoch)

    def cache_purge(self, area_id: int, authority: bytes = b"", target: bytes = b"") -> int:
        """Forget what is kept of one URL of an area (host as clients send it, path and query), or of the whole area (no target).
        How many answers of the URL there were; 0 for an area, whose answers are not counted."""
        cdef uint64_t tag = 0, now = time.monotonic_ns()
        if not 0 <= area_id < AREAS_MAX:
            raise IndexError(f"area {area_id} is none of {AREAS_MAX}")
        if target:
            tag = cache_tag(&self.shared.secret, area_id, <const uint8_t*><const char*>authority, <uint32_t>len(authority),
                            <const uint8_t*><const char*>target, <uint32_t>len(target))
        return cache_purge(&self.shared.cache, area_id, tag, now)

    def cache_state(self) -> dict:
        """bytes: of the store; used: of these, written at least once; entries: keys that are known."""
        cdef Cache* c = &self.shared.cache
        cdef uint64_t i, entries = 0, tail
        if c.log_bytes == 0:
            return {"bytes": 0, "used": 0, "entries": 0}
        tail = load_u64(&c.head.tail)
        for i in range((c.bucket_mask + 1) * CACHE_BUCKET):
            entries += load_u64(&c.entries[i].key) != 0 and load_u64(&c.entries[i].pos) != 0
        used = 0 if tail < c.log_bytes else min(tail - c.log_bytes, c.log_bytes)
        return {"bytes": c.log_bytes, "used": used, "entries": entries}

    def area_state(self, area_id: int) -> dict:
        """What an area is going through: rush (bool), its times, clients seen healthy, how many of these are blocked."""
        cdef AreaState state
        if not 0 <= area_id < AREAS_MAX:
            raise IndexError(f"area {area_id} is none of {AREAS_MAX}")
        memcpy(&state, &self.shared.control.areas[<int>area_id], sizeof(state))
        return {"rush": bool(rush_is(&state, time.monotonic_ns())), "rush_since_ns": state.rush_since_ns,
                "rush_last_ns": state.rush_last_ns, "known_total": state.known_total, "known_blocked": state.known_blocked,
                "drained": bool(state.drained)}

    def area_drain(self, area_id: int, drained: bool) -> None:
        """No new requests for an area, or new ones again."""
        if not 0 <= area_id < AREAS_MAX:
            raise IndexError(f"area {area_id} is none of {AREAS_MAX}")
        store_u64(&self.shared.control.areas[<int>area_id].drained, drained)

    cdef OriginState* _origin(self, index) except NULL:
        if not 0 <= index < ORIGINS_MAX:
            raise IndexError(f"origin {index} is none of {ORIGINS_MAX}")
        return &self.shared.origins[<int>index]

    def origin_claim(self, index: int, key: int, since_ns: int) -> bool:
        """An origin's entry begins, unless it is its own already. since_ns: it serves since then (monotonic); 0: long ago."""
        cdef OriginState* s = self._origin(index)
        if load_u64(&s.key) == <uint64_t>key:
            return False
        store_u64(&s.key, 0)
        store_u64(&s.health, ORIGIN_HEALTH_UNKNOWN)
        store_u64(&s.health_since_ns, 0)
        store_u64(&s.since_ns, since_ns)
        store_u64(&s.ejected_until_ns, 0)
        store_u64(&s.failures, 0)
        store_u64(&s.ejections, 0)
        store_u64(&s.drained, 0)
        store_u64(&s.key, key)
        return True

    def renew_tickets(self, born_ns: int) -> None:
        """A new key for TLS session tickets, made at that time (monotonic); the oldest of TICKET_KEYS goes."""
        tickets_renew(&self.shared, os.urandom(TICKET_KEY_BYTES), born_ns)

    @property
    def tickets_born_ns(self) -> int:
        """When the key that seals now was made (monotonic)."""
        return load_u64(&self.shared.control.tickets.keys[0].born_ns)

    def origin_drain(self, index: int, drained: bool, since_ns: int) -> None:
        """No new requests for an origin, or new ones again, slowly since then."""
        cdef OriginState* s = self._origin(index)
        if not drained and load_u64(&s.drained):
            store_u64(&s.since_ns, since_ns)
        store_u64(&s.drained, drained)

    def origin_health(self, index: int, health: str, since_ns: int) -> None:
        """What the health checks found: unknown, up or down, since then. Up after down begins slowly."""
        cdef OriginState* s = self._origin(index)
        cdef uint64_t number = ORIGIN_HEALTHS.index(health)
        if number == ORIGIN_HEALTH_UP and load_u64(&s.health) == ORIGIN_HEALTH_DOWN:
            store_u64(&s.since_ns, since_ns)
            store_u64(&s.failures, 0)
        store_u64(&s.health_since_ns, since_ns)
        store_u64(&s.health, number)

    def origin_state(self, index: int, key: int) -> dict:
        """What is known of an origin: health, times (monotonic), connects that failed in a row, drained. Empty: nothing of this one."""
        cdef OriginState s = self._origin(index)[0]
        if s.key != <uint64_t>key:
            return {}
        return {"health": ORIGIN_HEALTHS[s.health] if s.health < <uint64_t>len(ORIGIN_HEALTHS) else "unknown",
                "health_since_ns": s.health_since_ns, "since_ns": s.since_ns, "ejected_until_ns": s.ejected_until_ns,
                "failures": s.failures, "ejections": s.ejections, "drained": bool(s.drained)}


cdef dict _totals_head(const Totals* t):
    """Gateway-wide counters, without the areas."""
    return {"accepted": t.accepted, "closed": t.closed, "dropped_blocked": t.dropped_blocked,
            "dropped_cap_client": t.dropped_cap_client, "dropped_cap_total": t.dropped_cap_total, "dropped_rule": t.dropped_rule,
            "bad_requests": t.bad_requests, "timeouts_head": t.timeouts_head, "timeouts_body": t.timeouts_body,
            "timeouts_idle": t.timeouts_idle, "timeouts_write": t.timeouts_write, "evicted_idle": t.evicted_idle,
            "origin_connects": t.origin_connects, "origin_connect_errors": t.origin_connect_errors,
            "origin_reused": t.origin_reused, "origin_retries": t.origin_retries, "origin_bad": t.origin_bad,
            "origin_retries_refused": t.origin_retries_refused, "origin_ejections": t.origin_ejections,
            "origin_waits": t.origin_waits, "origin_wait_refused": t.origin_wait_refused,
            "origin_shortages": t.origin_shortages, "accept_shortages": t.accept_shortages,
            "ring_lines": t.ring_lines, "ring_lines_lost": t.ring_lines_lost, "ring_acts": t.ring_acts,
            "ring_acts_refused": t.ring_acts_refused, "table_full": t.table_full, "passes": t.passes, "pass_ns": t.pass_ns,
            "tunnels": t.tunnels, "tunnels_refused": t.tunnels_refused, "tunnels_cut": t.tunnels_cut,
            "log_sampled": t.log_sampled, "bytes_spliced": t.bytes_spliced,
            "handshakes": t.handshakes, "handshakes_resumed": t.handshakes_resumed, "handshakes_failed": t.handshakes_failed,
            "handshakes_refused": t.handshakes_refused, "timeouts_handshake": t.timeouts_handshake,
            "http2_connections": t.http2_connections, "http2_streams": t.http2_streams, "http2_refused": t.http2_refused}
