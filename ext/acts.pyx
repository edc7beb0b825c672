# Acts: what changes a source's standing and is therefore recorded: a rung entered or passed over, a block made or refused.
# Owns make_block, the only way from a rule to the block table, and the record's text. Invariants: every check in its order, never-block
# last; no block without its record; a refused block changes nothing.
#
# A record is one JSON line in the worker's ring, with the monotonic time (ns), which the reader turns into @timestamp.

cdef enum:
    BLOCK_MADE = 0
    BLOCK_REFUSED = 1
    BLOCK_SHARED = 2            # many people behind one address: the pair of client and fingerprint is asked instead
    ACT_BYTES_MAX = 4096        # of a record; room for it is asked for before a block is made


cdef Text measure_text(int measure) noexcept nogil:
    if measure == MEASURE_OBSERVE:
        return "observe"
    if measure == MEASURE_THROTTLE:
        return "throttle"
    if measure == MEASURE_CHALLENGE:
        return "challenge"
    if measure == MEASURE_TARPIT:
        return "tarpit"
    if measure == MEASURE_DENY:
        return "deny"
    if measure == MEASURE_DROP:
        return "drop"
    if measure == MEASURE_BLOCK:
        return "block"
    return "blackhole"


cdef Text proof_text(int proof) noexcept nogil:
    if proof == PROOF_PROXY:
        return "PROXY"
    return "CHAIN" if proof == PROOF_CHAIN else "SOCKET"


cdef Text key_text(uint32_t key) noexcept nogil:
    if key == KEY_CLIENT:
        return "client"
    if key == KEY_PREFIX:
        return "prefix"
    if key == KEY_FINGERPRINT:
        return "fingerprint"
    if key == KEY_ACCOUNT:
        return "account"
    if key == KEY_PATH:
        return "path"
    if key == KEY_HOST:
        return "host"
    return "area"


cdef void put_ip(Writer* w, const Address* a) noexcept nogil:
    cdef uint8_t text[46]
    put(w, text, address_format(a, text))


# A prefix as people write it; a whole IPv4 address alone.
cdef void put_prefix(Writer* w, const Address* a, int plen) noexcept nogil:
    cdef bint v4 = address_is_v4(a)
    put_ip(w, a)
    if plen < 128:
        put_byte(w, c'/')
        put_uint(w, <uint64_t>(plen - 96 if v4 else plen))


cdef inline int client_plen(const Address* a) noexcept nogil:
    return 128 if address_is_v4(a) else 64


cdef inline int prefix_plen(const Address* a) noexcept nogil:
    return 120 if address_is_v4(a) else 48


# What a key stands for in this request. An account only as its keyed hash: who it is, is nobody's business here.
cdef void act_source(Writer* w, const Facts* f, uint32_t key) noexcept nogil:
    cdef Address a
    if key == KEY_CLIENT:
        put_prefix(w, &f.client, client_plen(&f.client))
    elif key == KEY_PREFIX:
        a = f.client_full
        address_mask(&a, prefix_plen(&a))
        put_prefix(w, &a, prefix_plen(&a))
    elif key == KEY_FINGERPRINT:
        put_text(w, "h1_")
        put_hex16(w, f.fingerprint)
    elif key == KEY_ACCOUNT:
        put_hex16(w, f.account_key)
    elif key == KEY_PATH:
        put_json(w, f.path, f.path_len, 256)
    elif key == KEY_HOST:
        put_json(w, f.data + f.head.host.off, f.head.host.len, 256)
    elif f.area != NULL:
        put_json(w, f.policy.text + f.area.name.off, f.area.name.len, 256)


cdef void put_areas(Writer* w, const uint64_t* mask) noexcept nogil:
    cdef uint32_t area
    cdef bint more = False
    for area in range(AREAS_MAX):
        if mask[area >> 6] >> (area & 63) & 1:
            if more:
                put_byte(w, c',')
            put_uint(w, area)
            more = True


# One thing that was done or refused.
cdef struct Act:
    Text action                 # rung, skip, block, refuse
    const RuleSpec* rule
    int32_t rung
    int32_t measure
    uint64_t ttl_ns             # 0: none
    uint64_t case_id            # 0: none
    int refusal                 # REFUSAL_*


# Write the record. False: the ring had no room.
cdef bint act_record(Shared* s, const Facts* f, const Act* act, uint64_t now_ns) noexcept nogil:
    cdef uint8_t line[ACT_BYTES_MAX]
    cdef const RuleSpec* r = act.rule
    cdef uint64_t here[AREA_WORDS]
    cdef Totals* totals
    cdef Writer w
    if s.slot < 0:
        return False
    totals = s.totals[s.slot]
    w.at = line
    w.end = line + sizeof(line)
    w.full = False
    put_text(&w, "{\"ns\":")
    put_uint(&w, now_ns)
    put_text(&w, ",\"event.kind\":\"act\",\"event.action\":\"")
    put_text(&w, act.action)
    put_text(&w, "\",\"rule.name\":\"")
    put_json(&w, f.policy.text + r.name.off, r.name.len, 256)
    put_text(&w, "\",\"scrubber.rung\":")
    put_uint(&w, <uint64_t>act.rung)
    put_text(&w, ",\"scrubber.measure\":\"")
    put_text(&w, measure_text(act.measure))
    put_text(&w, "\",\"scrubber.source_kind\":\"")
    put_text(&w, key_text(r.key_a))
    if r.key_b:
        put_byte(&w, c'+')
        put_text(&w, key_text(r.key_b))
    put_text(&w, "\",\"scrubber.source\":\"")
    act_source(&w, f, r.key_a)
    if r.key_b:
        put_byte(&w, c'+')
        act_source(&w, f, r.key_b)
    put_text(&w, "\",\"client.ip\":\"")
    put_ip(&w, &f.client_full)
    put_text(&w, "\",\"scrubber.proof\":\"")
    put_text(&w, proof_text(f.proof))
    put_text(&w, "\",\"scrubber.areas\":[")
    if f.area == NULL or act.measure == MEASURE_BLOCK:
        put_areas(&w, r.areas)
    else:
        memset(here, 0, sizeof(here))
        here[f.area.area_id >> 6] = <uint64_t>1 << (f.area.area_id & 63)
        put_areas(&w, here)
    put_byte(&w, c']')
    if act.ttl_ns:
        put_text(&w, ",\"scrubber.ttl_s\":")
        put_uint(&w, act.ttl_ns / 1000000000)
    if act.case_id:
        put_text(&w, ",\"scrubber.case\":\"")
        put_hex16(&w, act.case_id)
        put_byte(&w, c'"')
    if act.refusal != REFUSAL_NONE:
        put_text(&w, ",\"scrubber.reason\":\"")
        put_text(&w, refusal_text(act.refusal))
        put_byte(&w, c'"')
    put_text(&w, ",\"scrubber.enforced\":")
    put_either(&w, f.policy.header.enforce and not never_blocked(f), "true}", "false}")
    if w.full or not ring_write(&s.rings[s.slot], RECORD_ACT, line, <uint32_t>(w.at - line)):
        totals.ring_acts_refused += 1
        return False
    totals.ring_acts += 1
    return True


# The source that a block by this rule is aimed at, and its areas. False: the key names none (the loader refuses such rules).
cdef bint block_aim(const Facts* f, const RuleSpec* r, BlockEntry* out) noexcept nogil:
    memset(out, 0, sizeof(BlockEntry))
    memcpy(out.areas, r.areas, sizeof(out.areas))
    out.rule_id = r.id
    if r.key_a == KEY_CLIENT or r.key_b == KEY_CLIENT:
        out.kind = SOURCE_CLIENT
        out.plen = <uint8_t>client_plen(&f.client)
        out.address = f.client
        return True
    if r.key_b:
        return False
    if r.key_a == KEY_PREFIX:
        out.kind = SOURCE_PREFIX
        out.plen = <uint8_t>prefix_plen(&f.client_full)
        out.address = f.client_full
        address_mask(&out.address, out.plen)
        return True
    if r.key_a == KEY_FINGERPRINT and f.fingerprint:
        out.kind = SOURCE_FINGERPRINT
        memcpy(out.address.bytes, &f.fingerprint, 8)
        return True
    return False


# Why this block must not be made, in the order of the checks. never-block comes last.
cdef int block_refusal(Shared* s, const Facts* f, const RuleSpec* r, const BlockEntry* e, uint64_t now_ns) noexcept nogil:
    cdef uint64_t here
    cdef int refusal
    if f.area != NULL:
        here = r.areas[f.area.area_id >> 6] >> (f.area.area_id & 63) & 1
        if not here:
            return REFUSAL_AREA
    if r.expires_ns <= now_ns or e.expires_ns <= now_ns:
        return REFUSAL_EXPIRED
    if load_u64(s.blocks.count) >= r.blocks_max:
        return REFUSAL_BLOCKS_MAX
    refusal = proportion_refusal(s, e, f.client_key, r.clients_share_ppm, now_ns)
    if refusal != REFUSAL_NONE:
        return refusal
    if s.slot < 0 or not ring_has_room(&s.rings[s.slot], RECORD_ACT, 2 * ACT_BYTES_MAX):
        return REFUSAL_RECORD
    if never_blocked(f) or (e.kind != SOURCE_FINGERPRINT and policy_never_touches(f.policy, &e.address, e.plen)):
        return REFUSAL_NEVER
    return REFUSAL_NONE


cdef inline bint never_blocked(const Facts* f) noexcept nogil:
    cdef uint64_t listed = f.policy.header.never_block
    return listed != 0 and prefixes_find(&f.policy.prefixes[listed - 1], &f.client_full) != 0


# Block the source of a rule that is on a block rung. loud: record a refusal (else the same one was recorded before). In a dry run all is
# decided and recorded, nothing put. BLOCK_*; case_id of what was made.
cdef int make_block(Shared* s, const Facts* f, const RuleSpec* r, int32_t rung, bint loud, uint64_t now_ns,
                    uint64_t* case_id) noexcept nogil:
    cdef const RungSpec* spec = &f.policy.rungs[r.rungs.off + rung]
    cdef uint64_t ttl_ns = spec.ttl_ns if spec.ttl_ns < r.block_ttl_max_ns else r.block_ttl_max_ns
    cdef AreaTotals* totals = area_totals(s, f, r)
    cdef BlockEntry e
    cdef Act act
    cdef int answer
    case_id[0] = 0
    memset(&act, 0, sizeof(act))
    act.rule = r
    act.rung = rung
    act.measure = MEASURE_BLOCK
    act.action = "refuse"
    act.refusal = REFUSAL_SOURCE
    if block_aim(f, r, &e):
        e.expires_ns = add_saturating_u64(now_ns, ttl_ns)
        if e.expires_ns > r.expires_ns:
            e.expires_ns = r.expires_ns
        e.rule = <uint16_t>(r - f.policy.rules)
        e.proven = f.proof == PROOF_SOCKET
        act.refusal = block_refusal(s, f, r, &e, now_ns)
    if act.refusal != REFUSAL_NONE:
        if loud:
            act_record(s, f, &act, now_ns)
            if totals != NULL:
                totals.refused_acts += 1
        return BLOCK_SHARED if act.refusal == REFUSAL_SHARED_ADDRESS else BLOCK_REFUSED
    e.case_id = case_next(s, now_ns)
    act.action = "block"
    act.ttl_ns = e.expires_ns - now_ns
    act.case_id = e.case_id
    if not f.policy.header.enforce and not loud:
        return BLOCK_MADE
    if not act_record(s, f, &act, now_ns):
        return BLOCK_REFUSED
    totals.measures[MEASURE_BLOCK] += 1
    if not f.policy.header.enforce:
        return BLOCK_MADE
    answer = blocks_put(&s.blocks, &s.secret, &e, r.block_ttl_max_ns, r.blocks_max, now_ns)
    if answer != BLOCK_NEW and answer != BLOCK_EXTENDED:
        act.action = "refuse"
        act.refusal = refusal_of(answer)
        act_record(s, f, &act, now_ns)
        totals.refused_acts += 1
        totals.measures[MEASURE_BLOCK] -= 1
        return BLOCK_REFUSED
    case_id[0] = e.case_id
    if answer == BLOCK_NEW:
        mark_blocked(s, &e, now_ns)
    return BLOCK_MADE


# Where this worker counts for the area; before a head, for the first area of the rule's mandate. NULL: it has no slot.
cdef AreaTotals* area_totals(Shared* s, const Facts* f, const RuleSpec* r) noexcept nogil:
    cdef uint32_t area
    if s.slot < 0:
        return NULL
    if f.area != NULL:
        return &s.totals[s.slot].areas[f.area.area_id]
    for area in range(AREAS_MAX):
        if r.areas[area >> 6] >> (area & 63) & 1:
            return &s.totals[s.slot].areas[area]
    return NULL


# A rung was entered, or passed over because it is not available here.
cdef void note_rung(Shared* s, const Facts* f, const RuleSpec* r, const LadderStep* step, uint64_t now_ns) noexcept nogil:
    cdef AreaTotals* totals = area_totals(s, f, r)
    cdef const RungSpec* rungs = &f.policy.rungs[r.rungs.off]
    cdef Act act
    memset(&act, 0, sizeof(act))
    act.rule = r
    if step.skipped >= 0:
        act.action = "skip"
        act.rung = step.skipped
        act.measure = rungs[step.skipped].measure
        act.refusal = REFUSAL_UNAVAILABLE
        act_record(s, f, &act, now_ns)
        return
    if step.rung < 0 or rungs[step.rung].measure == MEASURE_BLOCK:
        return                  # a block is its own act
    act.action = "rung"
    act.rung = step.rung
    act.measure = rungs[step.rung].measure
    act_record(s, f, &act, now_ns)
    if totals != NULL and not never_blocked(f):
        totals.measures[act.measure] += 1
