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
    REGIONS = 9

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
    uint64_t reserved[4]

cdef struct Control:
    HashKey secret
    uint64_t created_wall_ns
    uint64_t created_mono_ns
    uint64_t block_sequence     # source of case ids
    uint64_t reserved[3]
    AreaState areas[256]        # AREAS_MAX

# Everything a worker or the supervisor sees of the shared memory. slot is -1 in the supervisor.
cdef struct Shared:
    int32_t slot
    uint32_t workers
    Control* control
    Limiter limiter
    Ladder ladder
    Known known
    Blocks blocks
    Totals* totals[64]          # WORKERS_MAX
    Gauges* gauges[64]
    Ring rings[64]
