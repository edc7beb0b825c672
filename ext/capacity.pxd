# Every capacity of the core in one place, with its unit. Shared-memory layouts depend on these:
# whoever changes one raises LAYOUT_VERSION.

cdef enum:
    LAYOUT_VERSION = 6

    WORKERS_MAX = 64            # worker slots a gateway
    AREAS_MAX = 256             # safe areas a gateway; area indexes are stable for its whole life
    AREA_WORDS = 4              # 64-bit words of an area mask
    LISTENERS_MAX = 64
    POOLS_MAX = 512             # origin pools a gateway; indexes of pools and origins last while they are configured
    ORIGINS_MAX = 1024          # origins in all pools together
    ORIGINS_POOL_MAX = 64       # origins a pool: a bit each in Exchange.tried
    RULES_MAX = 1024            # compiled rules a policy
    RUNGS_MAX = 8               # rungs a ladder
    CHARGES_MAX = 8             # rules that may charge one request when it ends
    RULES_AREA_MAX = 64         # rules walked for one request

    HEADERS_MAX = 128           # parsed header fields a head (hard cap; the limit an area sets is lower or equal)
    HEAD_BYTES_MAX = 16384      # request or response head (hard cap)
    BUFFER_BYTES = 24576        # a pooled buffer: one head and what we add to it
    RELAY_BYTES = 262144        # the worker's one copy buffer, shared by all connections within a pass
    PATH_BYTES_MAX = 2048       # normalised path as rules and routes see it; what fills it may be longer, and is refused
    NOTE_BYTES = 1536           # the part of an access line known before the answer
    LINE_BYTES_MAX = 4096       # a finished access line

    LOG_PASS_PER_S_MAX = 1000000000
    CELLS_BUCKET = 8            # limiter cells a bucket (two cache lines)
    COUNTS_BUCKET = 8
    BLOCKS_BUCKET = 4
    KNOWN_BUCKET = 4
    LADDER_BUCKET = 4
