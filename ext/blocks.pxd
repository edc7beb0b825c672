# The source table, writable half: blocks with expiry, shared by all workers and the supervisor.
# One entry a source and area mask: two mandates that block one source each bind their own areas, each with its own expiry.
cdef struct BlockEntry:         # 128 bytes
    uint32_t lock               # sequence: odd while written
    uint8_t kind                # SOURCE_*; 0: empty
    uint8_t plen                # 128-bit form, for CLIENT (128, or 64) and PREFIX
    uint16_t rule               # rule index at the time, for display only
    Address address             # CLIENT, PREFIX; else the 64-bit key hash in the first 8 bytes
    uint64_t areas[4]           # AREA_WORDS: areas whose mandates allow it
    uint64_t since_ns
    uint64_t expires_ns         # monotonic
    uint64_t first_ns           # start of the evidence that the cumulative TTL counts from; as since_ns, below 0 where before the boot
    uint64_t case_id
    uint64_t rule_id            # the clause: RuleSpec.id
    uint32_t proven             # 1: packets come from this address: a socket of ours said so, or an operator; 0: a proxy's word
    uint32_t saved              # see block_claim; not covered by check
    uint64_t hits               # refused connections and requests; not covered by check
    uint64_t check              # keyed hash of all of the above but lock, saved and hits: a torn or forged entry is none
    uint32_t writer             # lock word of the bucket (lock.pxd); used in a bucket's first entry
    uint32_t enforced           # see block_claim

# Head of the region's payload; hints only: whatever stands there, look-ups stay bounded.
cdef struct BlocksHead:         # 64 bytes, in a page of its own
    uint64_t epoch              # grows with every change
    uint64_t count              # live entries (exact after a sweep)
    uint64_t kinds[4]           # [0]: bit mask of SOURCE_* in use; [1]..[3]: of prefix lengths 0..128
    uint64_t reserved[2]

cdef struct Blocks:
    BlockEntry* entries
    uint64_t bucket_mask
    uint64_t* epoch
    uint64_t* kinds             # four words, as in BlocksHead
    uint64_t* count

cdef enum:
    BLOCK_NEW = 1
    BLOCK_EXTENDED = 2          # or in force for as long as was asked
    BLOCK_REFUSED_FULL = 3      # blocks_max reached, or a bucket full of blocks that last longer
    BLOCK_REFUSED_TTL = 4       # cumulative TTL used up: needs new evidence
    BLOCK_REFUSED_BUSY = 5      # another process holds the bucket: ask again
    BLOCK_REFUSED_SOURCE = 6    # no such kind, a prefix length that is none, no area

    BLOCK_CLIENTS_MAX = 256

    BLOCK_READER_DISK = 0
    BLOCK_READER_ENFORCER = 1

# Is this address blocked, for whatever area? Narrowest first: client, then prefixes in use. Fills out (a copy) when so.
cdef bint blocks_find_address(Blocks* t, const HashKey* secret, const Address* a, uint64_t now_ns, BlockEntry* out) noexcept nogil
cdef bint blocks_find_key(Blocks* t, const HashKey* secret, uint8_t kind, uint64_t key, uint64_t now_ns, BlockEntry* out) noexcept nogil
# The same for some areas: any of want[AREA_WORDS], or (whole) every one of them, each by some block. out: the narrowest block that counts.
# whole with an empty want is never so.
cdef bint blocks_match_address(Blocks* t, const HashKey* secret, const Address* a, const uint64_t* want, bint whole,
                               uint64_t now_ns, BlockEntry* out) noexcept nogil
cdef bint blocks_match_key(Blocks* t, const HashKey* secret, uint8_t kind, uint64_t key, const uint64_t* want, bint whole,
                           uint64_t now_ns, BlockEntry* out) noexcept nogil
# How many clients a block is aimed at: 1, or the addresses (IPv6: the /64s) of a prefix; 0: no address, or a prefix of more than
# BLOCK_CLIENTS_MAX, which nobody looks through. Number i of them.
cdef uint32_t blocks_clients(const BlockEntry* e) noexcept nogil
cdef void blocks_client(const BlockEntry* e, uint32_t i, Address* out) noexcept nogil
# Insert or extend. wanted: kind, plen, address, areas, expires_ns, case_id, rule_id filled by the caller; ttl_max_ns and blocks_max
# bound it: the expiry is cut to ttl_max_ns from the beginning of the block (now, where first_ns is 0). CLIENT and PREFIX addresses are
# brought into form here.
cdef int blocks_put(Blocks* t, const HashKey* secret, const BlockEntry* wanted, uint64_t ttl_max_ns, uint64_t blocks_max,
                    uint64_t now_ns) noexcept nogil
# Lift all blocks of a source, whatever their areas. False: there was none.
cdef bint blocks_remove(Blocks* t, const HashKey* secret, uint8_t kind, uint8_t plen, const Address* a,
                        uint64_t now_ns) noexcept nogil
# One refused connection or request more, on the entry that found is a copy of.
cdef void blocks_hit(Blocks* t, const HashKey* secret, const BlockEntry* found) noexcept nogil
# Copy entry number i (i < (bucket_mask + 1) * BLOCKS_BUCKET) where it is in force.
cdef bint blocks_at(Blocks* t, const HashKey* secret, uint64_t i, uint64_t now_ns, BlockEntry* out) noexcept nogil
# Number i where it is in force, for a reader: the low half of its check (never 0) is noted in saved or enforced. It is with this reader
# from now on; a change in the meantime is another one. changed: only where it is not yet.
cdef bint block_claim(Blocks* t, const HashKey* secret, uint64_t i, uint64_t now_ns, uint32_t reader, bint changed,
                      BlockEntry* out) noexcept nogil
# Count anew: live entries, kinds and prefix lengths in use. Called by the supervisor each second.
cdef void blocks_sweep(Blocks* t, const HashKey* secret, uint64_t now_ns) noexcept nogil
