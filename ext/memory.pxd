# Shared-memory regions: a 4096-byte header page (magic, layout version, kind, sizes), then the payload.
# Made and filled by `region_init` in `scrubber run`; mapped by workers and the supervisor. Readers treat them as hostile:
# every size is derived from the checked header, never from the payload.
cdef enum:
    REGION_CONTROL = 1          # secret, area states; shared by all
    REGION_LIMITER = 2          # GCRA cells; shared by all
    REGION_LADDER = 3           # (rule, key) -> rung; shared by all
    REGION_KNOWN = 4            # known clients; shared by all
    REGION_BLOCKS = 5           # block table; shared by all
    REGION_TOTALS = 6           # counters that only grow, a slot a worker; kept when a worker dies
    REGION_GAUGES = 7           # beat, open connections, counts by key, a slot a worker; zeroed by the keeper when it dies
    REGION_RINGS = 8            # a ring a worker
    REGION_CACHE = 9            # stored answers; shared by all
    REGION_ORIGINS = 10         # health, ejection and drain of each origin; shared by all
    REGIONS = 11

cdef struct RegionHeader:
    uint64_t magic              # "SCRUBMEM"
    uint32_t layout_version
    uint32_t kind
    uint64_t capacity           # entries in all (a slot, for TOTALS/GAUGES/RINGS)
    uint64_t payload_bytes
    uint64_t slot_bytes         # 0 where the region has no worker slots
    uint32_t slots
    uint32_t reserved

# What an area is going through; on its own cache line. Written by any worker, with atomic stores.
cdef struct AreaState:
    uint64_t rush_since_ns      # when area-wide limits began to shed; 0: calm
    uint64_t rush_last_ns       # last time they shed
    uint64_t known_total        # clients that became known
    uint64_t known_blocked      # of these, blocked now (proportion: clients_share_max)
    uint64_t drained            # 1: an operator takes no new requests here
    uint64_t reserved[3]

# The keys of TLS session tickets, of all workers. Written by the supervisor alone.
cdef enum:
    TICKET_KEYS = 3             # the one that seals, and former ones that still open
    TICKET_KEY_BYTES = 80       # name, cipher and mac

cdef struct TicketKey:
    uint64_t born_ns            # 0: none
    uint8_t name[16]
    uint8_t cipher[32]          # AES-256
    uint8_t mac[32]             # HMAC-SHA-256

cdef struct Tickets:
    uint64_t sequence           # odd while it is being written
    TicketKey keys[3]           # TICKET_KEYS, youngest first

cdef struct Control:
    HashKey secret
    uint64_t created_wall_ns
    uint64_t created_mono_ns
    uint64_t block_sequence     # source of case ids
    uint64_t reserved[3]
    AreaState areas[256]        # AREAS_MAX
    Tickets tickets

cdef struct OriginState

# Everything a worker or the supervisor sees of the shared memory. slot is -1 in the supervisor.
cdef struct Shared:
    int32_t slot
    uint32_t workers
    HashKey secret              # copied when mapped: use this one, nobody can change it later
    uint64_t count_mask         # buckets - 1 of the count cells behind each Gauges
    Control* control
    Limiter limiter
    Ladder ladder
    Known known
    Blocks blocks
    Cache cache
    OriginState* origins        # ORIGINS_MAX
    Totals* totals[64]          # WORKERS_MAX
    Gauges* gauges[64]
    Ring rings[64]

# A region's size in bytes and how it divides; False: no such kind, or sizes beyond reason.
cdef struct RegionPlan:
    uint64_t capacity           # rounded up to a power of two
    uint64_t slot_bytes
    uint64_t payload_bytes
    uint32_t slots

cdef bint region_plan(uint32_t kind, uint64_t capacity, uint32_t slots, RegionPlan* out) noexcept nogil
cdef bint tickets_read(const Shared* s, TicketKey* out) noexcept nogil
# A new case id: 64 bits that nobody can guess or count up.
cdef uint64_t case_next(Shared* s, uint64_t now_ns) noexcept nogil
# The supervisor's round: blocks counted anew, known clients that are blocked with them, a piece of the known clients' table looked through.
# at: where in that table; returns where to go on.
cdef uint64_t memory_sweep(Shared* s, bint blocks, uint64_t at, uint64_t now_ns) noexcept nogil

cdef class Memory:
    cdef Shared shared
    cdef void* maps[11]         # REGIONS
    cdef uint64_t map_bytes[11]
    cdef uint64_t gauges_slot_bytes
    cdef uint64_t sweep_at
    cdef uint64_t swept             # sweeps so far, and the epoch of the blocks at the last one
    cdef uint64_t swept_epoch
    cdef readonly uint64_t ring_resyncs     # times that a ring's numbers made no sense
    cdef Shared* pointer(self) noexcept nogil
    cdef OriginState* _origin(self, index) except NULL
