# Blocks on their way to disk and back, and to the enforcer. Owns: which of them are taken down, and how those that come back get into
# the table.
# Invariants: what was handed out once is handed out again only when it has changed; never-block is asked for each that comes back.

cdef enum:
    SAVED_SCAN_MAX = 65536      # entries looked at in one go


cdef bytearray blocks_claimed(Memory memory, uint64_t at, uint64_t most, uint32_t reader, bint changed, uint64_t* next_at):
    """The entries themselves; next_at: the number to go on with."""
    cdef Shared* s = memory.pointer()
    cdef uint64_t entries = (s.blocks.bucket_mask + 1) * BLOCKS_BUCKET
    cdef uint64_t i = at, end, now = time.monotonic_ns(), count = 0, room = min(max(most, 1), SAVED_SCAN_MAX)
    cdef bytearray held = bytearray(room * sizeof(BlockEntry))
    cdef BlockEntry* e = <BlockEntry*><char*>held
    end = min(entries, i + SAVED_SCAN_MAX)
    with nogil:
        while i < end and count < room:
            count += block_claim(&s.blocks, &s.secret, i, now, reader, changed, &e[count])
            i += 1
    next_at[0] = i if i < entries else U64_MAX
    del held[count * sizeof(BlockEntry):]
    return held


def blocks_taken(memory: Memory, at: int, most: int, changed: bool) -> tuple:
    """Blocks in force from entry number `at` of the table on, `most` at most, and the number to go on with; None: that was all.

    Each is (kind, source, areas, since_ns, first_ns, expires_ns, case_id, rule_id, proven); from now on it counts as being on disk.
    changed: only those that do not yet.
    """
    cdef uint64_t after = 0
    cdef bytearray held = blocks_claimed(memory, at, most, BLOCK_READER_DISK, changed, &after)
    cdef const BlockEntry* e = <const BlockEntry*><char*>held
    return [
        (SOURCE_NAMES.get(e[n].kind, str(e[n].kind)), _source_text(e[n].kind, e[n].plen, (<char*>e[n].address.bytes)[:16]),
         areas_of(e[n].areas), <int64_t>e[n].since_ns, <int64_t>e[n].first_ns, e[n].expires_ns, e[n].case_id, e[n].rule_id,
         e[n].proven != 0)
        for n in range(len(held) // sizeof(BlockEntry))
    ], (after if after != U64_MAX else None)


def blocks_enforced(memory: Memory, at: int, most: int, changed: bool) -> tuple:
    """As blocks_taken, for the enforcer: each is (network, areas, expires_ns, rule_id, hits), of addresses and prefixes that packets are
    known to come from. A network is its address in network order, then a byte of prefix length. changed: only those that it does not have
    yet."""
    cdef uint64_t after = 0
    cdef bytearray held = blocks_claimed(memory, at, most, BLOCK_READER_ENFORCER, changed, &after)
    cdef const BlockEntry* e = <const BlockEntry*><char*>held
    cdef bint v4
    found = []
    for n in range(len(held) // sizeof(BlockEntry)):
        if not e[n].proven or e[n].kind not in (SOURCE_CLIENT, SOURCE_PREFIX):
            continue
        v4 = address_is_v4(&e[n].address)
        raw = (<char*>e[n].address.bytes)[12 if v4 else 0:16] + bytes((e[n].plen - (96 if v4 else 0),))
        found.append((raw, tuple(areas_of(e[n].areas)), e[n].expires_ns, e[n].rule_id, e[n].hits))
    return found, (after if after != U64_MAX else None)


def blocks_restore(memory: Memory, policy: PolicyImage, blocks: list) -> dict:
    """Put blocks back: (kind, source, areas, since_ns, first_ns, expires_ns, case_id, rule_id, proven, blocks_max) each. How often what
    came of it: new (of these displaced by later ones: displaced), extended, refused_…, never_block. Times are monotonic, below 0 before
    the boot."""
    cdef Shared* s = memory.pointer()
    cdef BlockEntry e
    cdef uint64_t most, now = time.monotonic_ns()
    cdef uint64_t before = load_u64(s.blocks.count)
    cdef int answer
    found = {}
    for kind, source, areas, since_ns, first_ns, expires_ns, case_id, rule_id, proven, blocks_max in blocks:
        memset(&e, 0, sizeof(e))
        try:
            parse_source(kind, source, &e)
            parse_areas(areas, e.areas)
        except ValueError:
            found["refused_source"] = found.get("refused_source", 0) + 1
            continue
        e.since_ns = <uint64_t><int64_t>since_ns
        e.first_ns = <uint64_t><int64_t>(first_ns or 1)
        e.expires_ns, e.case_id, e.rule_id, e.proven, most = expires_ns, case_id, rule_id, bool(proven), blocks_max
        if e.kind in (SOURCE_CLIENT, SOURCE_PREFIX) and policy_never_touches(&policy.policy, &e.address, e.plen):
            said = "never_block"
        else:
            answer = blocks_put(&s.blocks, &s.secret, &e, U64_MAX >> 1, most, now)
            said = BLOCK_ANSWERS[answer]
            if answer == BLOCK_NEW:
                mark_blocked(s, &e, now)
        found[said] = found.get(said, 0) + 1
    found["displaced"] = max(found.get("new", 0) - (load_u64(s.blocks.count) - before), 0)
    return found
