# The source table, writable half: blocks with expiry, shared by all workers and the supervisor.
cdef struct BlockEntry:         # 128 bytes
    uint32_t lock               # sequence lock: odd while written; broken after BLOCK_LOCK_NS
    uint8_t kind                # SOURCE_*; 0: empty
    uint8_t plen                # 128-bit form, for CLIENT and PREFIX
    uint16_t rule               # rule index at the time, for display only
    Address address             # CLIENT, PREFIX; else the 64-bit key hash in the first 8 bytes
    uint64_t areas[4]           # AREA_WORDS: areas whose mandates allow it
    uint64_t since_ns
    uint64_t expires_ns         # monotonic
    uint64_t first_ns           # start of the evidence that the cumulative TTL counts from
    uint64_t case_id
    uint64_t rule_id            # the clause: RuleSpec.id
    uint64_t hits               # refused connections and requests
    uint64_t reserved

cdef struct Blocks:
    BlockEntry* entries
    uint64_t bucket_mask
    uint64_t* epoch             # grows with every change
    uint64_t* kinds             # 1 + highest prefix-length use: bit mask of plens in use (0..128 >> 2) and of kinds, so lookups skip what is empty
    uint64_t* count             # live entries (approximate between sweeps)

cdef enum:
    BLOCK_NEW = 1
    BLOCK_EXTENDED = 2
    BLOCK_REFUSED_FULL = 3      # blocks_max reached
    BLOCK_REFUSED_TTL = 4       # cumulative TTL used up: needs new evidence

# Is this address blocked for any of want[]? Fills out (a copy) when so. Narrowest first: client, then prefixes in use.
cdef bint blocks_find_address(Blocks* t, const HashKey* secret, const Address* a, uint64_t now_ns, BlockEntry* out) noexcept nogil
cdef bint blocks_find_key(Blocks* t, const HashKey* secret, uint8_t kind, uint64_t key, uint64_t now_ns, BlockEntry* out) noexcept nogil
# Insert or extend. wanted: kind, plen, address, areas, expires_ns, case_id, rule_id filled by the caller; ttl_max_ns and blocks_max bound it.
cdef int blocks_put(Blocks* t, const HashKey* secret, const BlockEntry* wanted, uint64_t ttl_max_ns, uint64_t blocks_max,
                    uint64_t now_ns) noexcept nogil
cdef bint blocks_remove(Blocks* t, const HashKey* secret, uint8_t kind, uint8_t plen, const Address* a) noexcept nogil
