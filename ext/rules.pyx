# judge: see rules.pxd. Owns the walk: which rules are asked, what each is charged with, which verdict wins.
# Invariants: every rule that applies is charged, whatever the others say; what is taken (concurrent) is a charge that judge_done gives
# back; the severest verdict wins, the earlier rule on a tie; never-block is looked at last; a dry run differs in the verdict only.

cdef enum:
    BLOCK_RETRY_NS = 5000000000     # a source on a block rung that is not blocked: how often the block is tried again
    BLOCK_RETRY_SALT = 0x626c6f636b
    CONCURRENT_RETRY_NS = 1000000000

# One judgement under way.
cdef struct Walk:
    Shared* s
    const Facts* f
    Judgement* out
    AreaState* state            # NULL before a head
    uint64_t now_ns
    uint64_t known_key          # of the client in the area
    bint rush
    bint enforce


# What one rule's limit says of this request.
cdef struct Asked:
    bint over
    uint64_t key                # keyed hash over (rule id, key)
    Admission admission


cdef void judgement_clear(Judgement* out) noexcept nogil:
    memset(out, 0, sizeof(Judgement) - sizeof(out.charges))
    out.rule = -1
    out.rung = -1


# The keyed hash of one key; 0: the request has none.
cdef uint64_t key_value(const Walk* w, uint32_t key) noexcept nogil:
    cdef const Facts* f = w.f
    cdef uint8_t host[POLICY_HOST_BYTES_MAX]
    cdef uint32_t i, n
    if key == KEY_CLIENT:
        return f.client_key
    if key == KEY_PREFIX:
        return f.prefix_key
    if key == KEY_FINGERPRINT:
        return f.fingerprint
    if key == KEY_ACCOUNT:
        return f.account_key
    if key == KEY_JA3:
        return f.ja3_key
    if key == KEY_JA4:
        return f.ja4_key
    if key == KEY_HTTP2:
        return f.http2
    if key == KEY_AREA:
        return <uint64_t>f.area.area_id + 1 if f.area != NULL else 0
    if f.head == NULL:
        return 0
    if key == KEY_PATH:
        return siphash(&w.s.secret, f.path, f.path_len)
    n = f.head.host.len if f.head.host.len < POLICY_HOST_BYTES_MAX else POLICY_HOST_BYTES_MAX
    for i in range(n):
        host[i] = f.data[f.head.host.off + i]
        if c'A' <= host[i] <= c'Z':
            host[i] |= 0x20
    return siphash(&w.s.secret, host, n)


# The rule's key in limiter, ladder and counts; 0: it does not apply to this request.
cdef uint64_t rule_key(const Walk* w, const RuleSpec* r) noexcept nogil:
    cdef uint64_t value = key_value(w, r.key_a), other
    if value == 0:
        return 0
    if r.key_b:
        other = key_value(w, r.key_b)
        if other == 0:
            return 0
        value = siphash_pair(&w.s.secret, value, other)
    value = siphash_pair(&w.s.secret, r.id, value)
    return value if value else 1


cdef void charge_later(Walk* w, const RuleSpec* r, uint64_t key) noexcept nogil:
    cdef Charge* c
    if w.out.charge_count >= CHARGES_MAX:
        return                  # the loader saw to it that an area has no more
    c = &w.out.charges[w.out.charge_count]
    c.key = key
    c.rate = r.rate
    c.debt_max_ns = r.debt_max_ns
    c.unit = r.unit
    c.reserved = 0
    w.out.charge_count += 1


# Requests in flight of this key, this one included; back at once where they are too many.
cdef void ask_concurrent(Walk* w, const RuleSpec* r, uint32_t share_ppm, Asked* asked) noexcept nogil:
    cdef uint64_t most = r.rate.burst
    cdef uint32_t now
    if share_ppm < 1000000:
        most = mul_div_u64(most, share_ppm, 1000000)
        most = most if most else 1
    asked.admission.retry_ns = CONCURRENT_RETRY_NS
    if w.out.charge_count >= CHARGES_MAX:
        return
    now = counts_add(w.s, asked.key, 1)
    if now == COUNTS_FULL:
        if w.s.slot >= 0:
            w.s.totals[w.s.slot].table_full += 1
        return
    if now > most:
        asked.over = True
        counts_add(w.s, asked.key, -1)
    else:
        charge_later(w, r, asked.key)


cdef void ask_limit(Walk* w, const RuleSpec* r, Asked* asked) noexcept nogil:
    cdef uint32_t share_ppm = r.newcomer_share_ppm if r.area_wide and not w.out.known else 1000000
    memset(&asked.admission, 0, sizeof(Admission))
    asked.over = False
    if r.unit == UNIT_NONE:
        asked.over = True
        asked.admission.retry_ns = r.calm_ns
    elif r.unit == UNIT_CONCURRENT:
        ask_concurrent(w, r, share_ppm, asked)
    elif r.unit == UNIT_BYTES or r.unit == UNIT_ORIGIN_NS:
        limiter_admit(&w.s.limiter, asked.key, &r.rate, 0, share_ppm, w.now_ns, &asked.admission)
        asked.over = asked.admission.limited
        charge_later(w, r, asked.key)
    else:
        limiter_admit(&w.s.limiter, asked.key, &r.rate, 1, share_ppm, w.now_ns, &asked.admission)
        asked.over = asked.admission.limited


# The severest verdict wins, the earlier rule on a tie; of several that throttle, the longest wait counts.
cdef void take(Walk* w, const RuleSpec* r, int32_t rung, int measure, int verdict, const Admission* a) noexcept nogil:
    cdef Judgement* out = w.out
    cdef bint counts = r.unit == UNIT_REQUESTS or r.unit == UNIT_CONNECTIONS or r.unit == UNIT_HANDSHAKES or r.unit == UNIT_ABUSES
    if out.rule >= 0 and verdict <= out.decided:
        if verdict == VERDICT_THROTTLE and out.decided == VERDICT_THROTTLE and a.retry_ns > out.retry_ns:
            out.retry_ns = a.retry_ns
        return
    out.rule = <int32_t>(r - w.f.policy.rules)
    out.rung = rung
    out.measure = measure
    out.decided = verdict
    out.retry_ns = a.retry_ns
    out.limit_count = r.rate.count if counts else 0
    out.limit_period_ns = r.rate.period_ns
    out.remaining = a.remaining
    out.reset_ns = a.reset_ns


# Rungs that can be applied now, as a mask; how long each holds; whether one of them stands over what is within the limit, too.
cdef uint32_t rungs_now(const Walk* w, const RuleSpec* r, uint64_t* hold_ns, bint* standing) noexcept nogil:
    cdef uint8_t wanted = RUNG_VALID if w.now_ns < r.expires_ns else RUNG_EXPIRED
    cdef const RungSpec* spec
    cdef uint32_t i, available = 0
    standing[0] = False
    for i in range(r.rungs.len):
        spec = &w.f.policy.rungs[r.rungs.off + i]
        hold_ns[i] = spec.hold_ns
        if spec.available & wanted:
            available |= <uint32_t>1 << i
            # A block stands in the block table; only a dry run has to remember it here.
            if spec.measure >= MEASURE_TARPIT and (spec.measure != MEASURE_BLOCK or not w.enforce):
                standing[0] = True
    return available


cdef inline int verdict_of(int measure) noexcept nogil:
    if measure == MEASURE_THROTTLE:
        return VERDICT_THROTTLE
    if measure == MEASURE_TARPIT:
        return VERDICT_TARPIT
    if measure == MEASURE_DENY:
        return VERDICT_DENY
    if measure == MEASURE_DROP or measure == MEASURE_BLOCK:
        return VERDICT_DROP
    return VERDICT_PASS


# Many people behind one address: only the pair of client and fingerprint that exceeds the limit by itself is throttled. Fingerprints that
# no known client has share one pair, so that changing faces gains nothing.
cdef bint pair_over(Walk* w, const RuleSpec* r, Asked* asked) noexcept nogil:
    cdef uint64_t face = 0, key
    if r.unit != UNIT_REQUESTS or w.f.area == NULL:
        return True
    key = known_fingerprint_key(&w.s.secret, w.f.area.area_id, w.f.fingerprint)
    if w.f.fingerprint and known_fingerprint_clients(&w.s.known, key):
        face = w.f.fingerprint
    key = siphash_pair(&w.s.secret, asked.key, face)
    limiter_admit(&w.s.limiter, key, &r.rate, 1, 1000000, w.now_ns, &asked.admission)
    return asked.admission.limited


# Over the limit on a block rung: the verdict that follows.
cdef int over_block(Walk* w, const RuleSpec* r, int32_t rung, bint entered, Asked* asked) noexcept nogil:
    cdef Rate attempts
    cdef Admission attempt
    cdef uint64_t case_id = 0
    cdef int answer = BLOCK_REFUSED
    attempts.count = 1
    attempts.period_ns = BLOCK_RETRY_NS
    attempts.burst = 1
    if w.state != NULL and known_shared(&w.s.known, w.known_key, w.now_ns) and not entered:
        answer = BLOCK_SHARED
    else:
        limiter_admit(&w.s.limiter, siphash_pair(&w.s.secret, asked.key, BLOCK_RETRY_SALT), &attempts, 1, 1000000, w.now_ns, &attempt)
        if entered or not attempt.limited:
            answer = make_block(w.s, w.f, r, rung, entered, w.now_ns, &case_id)
        elif not w.enforce:
            answer = BLOCK_MADE
    if answer == BLOCK_MADE:
        w.out.case_id = case_id
        return VERDICT_DROP
    if answer == BLOCK_SHARED and not pair_over(w, r, asked):
        return VERDICT_PASS
    return VERDICT_THROTTLE


cdef void rule_over(Walk* w, const RuleSpec* r, const uint64_t* hold_ns, uint32_t available, Asked* asked) noexcept nogil:
    cdef LadderStep step
    cdef int measure = MEASURE_OBSERVE, verdict
    if r.area_wide:
        w.out.crowd = True
        if w.state != NULL:
            rush_note(w.state, w.now_ns)
    ladder_over(&w.s.ladder, asked.key, hold_ns, r.rungs.len, available, r.calm_ns, w.now_ns, &step)
    if step.entered:
        note_rung(w.s, w.f, r, &step, w.now_ns)
    if step.rung >= 0:
        measure = w.f.policy.rungs[r.rungs.off + step.rung].measure
    verdict = verdict_of(measure)
    if measure == MEASURE_BLOCK:
        verdict = over_block(w, r, step.rung, step.entered and step.skipped < 0, asked)
        if verdict != VERDICT_DROP:
            measure = MEASURE_THROTTLE if verdict == VERDICT_THROTTLE else MEASURE_OBSERVE
    if r.area_wide and verdict > VERDICT_PASS:
        w.out.shed = True
        if w.out.known and verdict > VERDICT_THROTTLE:
            verdict = VERDICT_THROTTLE      # severer ones are for newcomers
            measure = MEASURE_THROTTLE
    take(w, r, step.rung, measure, verdict, &asked.admission)


# Within the limit, but not yet calm: tarpit, deny and drop stand for every request that the rule covers.
cdef void rule_under(Walk* w, const RuleSpec* r, const uint64_t* hold_ns, uint32_t available, Asked* asked) noexcept nogil:
    cdef LadderStep step
    cdef int measure
    ladder_under(&w.s.ladder, asked.key, hold_ns, r.rungs.len, available, r.calm_ns, w.now_ns, &step)
    if step.rung < 0:
        return
    measure = w.f.policy.rungs[r.rungs.off + step.rung].measure
    if measure < MEASURE_TARPIT or (measure == MEASURE_BLOCK and w.enforce):
        return
    take(w, r, step.rung, measure, verdict_of(measure), &asked.admission)


cdef void ask_rule(Walk* w, const RuleSpec* r) noexcept nogil:
    cdef uint64_t hold_ns[RUNGS_MAX]
    cdef uint32_t available
    cdef bint standing
    cdef Asked asked
    if r.key_a == 0 or not conditions_hold(w.f, r, w.out.known, w.rush):
        return
    asked.key = rule_key(w, r)
    if asked.key == 0:
        return
    ask_limit(w, r, &asked)
    available = rungs_now(w, r, hold_ns, &standing)
    if asked.over:
        rule_over(w, r, hold_ns, available, &asked)
    elif standing and not r.area_wide:
        rule_under(w, r, hold_ns, available, &asked)


# A block that was met or made binds some of the listener's areas only: its connection may ask for the others. At accept it binds all.
cdef bint block_spares(const Walk* w) noexcept nogil:
    cdef const Facts* f = w.f
    cdef BlockEntry found
    cdef uint32_t i
    if w.out.measure != MEASURE_BLOCK or f.area == NULL:
        return False
    if w.out.blocked:
        return not block_find(w, f.listener.areas, True, &found)
    for i in range(AREA_WORDS):
        if f.listener.areas[i] & ~f.policy.rules[w.out.rule].areas[i]:
            return True
    return False


# Never-block is looked at here, last: whatever was decided, such an address passes.
cdef void finish(Walk* w) noexcept nogil:
    cdef Judgement* out = w.out
    # A reset would reach further than the verdict does: the connection is the proxy's, or other areas' as well.
    if out.decided == VERDICT_DROP and (w.f.proof == PROOF_CHAIN or block_spares(w)):
        out.decided = VERDICT_DENY
    if out.decided != VERDICT_PASS and never_blocked(w.f):
        out.decided = VERDICT_PASS
        out.blocked = False
        out.shed = False
        out.case_id = 0
    out.verdict = out.decided if w.enforce else VERDICT_PASS


cdef void walk_begin(Walk* w, Shared* s, const Facts* f, uint64_t now_ns, Judgement* out) noexcept nogil:
    judgement_clear(out)
    w.s = s
    w.f = f
    w.out = out
    w.now_ns = now_ns
    w.enforce = f.policy.header.enforce != 0
    w.state = NULL
    w.known_key = 0
    w.rush = False
    if f.area != NULL:
        w.state = &s.control.areas[f.area.area_id]
        w.known_key = known_key(&s.secret, f.area.area_id, f.client_key)
        w.rush = rush_is(w.state, now_ns)
        out.known = known_is(&s.known, w.known_key, now_ns)


cdef void met_block(Walk* w, const BlockEntry* found) noexcept nogil:
    cdef const Policy* p = w.f.policy
    w.out.blocked = True
    w.out.decided = VERDICT_DROP
    w.out.measure = MEASURE_BLOCK
    w.out.case_id = found.case_id
    # The rule may have another index since, or be gone: then the case alone tells.
    if found.rule < p.header.rules.count and p.rules[found.rule].id == found.rule_id:
        w.out.rule = found.rule
    if w.enforce and not never_blocked(w.f):
        blocks_hit(&w.s.blocks, &w.s.secret, found)


cdef void judge_connection(Shared* s, const Facts* f, uint64_t now_ns, Judgement* out) noexcept nogil:
    cdef const ListenerSpec* listener = f.listener
    cdef BlockEntry found
    cdef uint32_t i
    cdef Walk w
    walk_begin(&w, s, f, now_ns, out)
    if listener.trusted and prefixes_find(&f.policy.prefixes[listener.trusted - 1], &f.client_full):
        return
    if blocks_match_address(&s.blocks, &s.secret, &f.client_full, listener.areas, True, now_ns, &found):
        met_block(&w, &found)
    else:
        for i in range(listener.rules.len):
            ask_rule(&w, &f.policy.rules[f.policy.area_rules[listener.rules.off + i]])
        if out.decided != VERDICT_PASS:
            out.decided = VERDICT_DROP
    finish(&w)


# Client and prefixes first, then fingerprint and account.
cdef bint block_find(const Walk* w, const uint64_t* want, bint whole, BlockEntry* found) noexcept nogil:
    cdef Blocks* t = &w.s.blocks
    cdef const HashKey* secret = &w.s.secret
    cdef const Facts* f = w.f
    if blocks_match_address(t, secret, &f.client_full, want, whole, w.now_ns, found):
        return True
    if f.fingerprint and blocks_match_key(t, secret, SOURCE_FINGERPRINT, f.fingerprint, want, whole, w.now_ns, found):
        return True
    return f.account_key != 0 and blocks_match_key(t, secret, SOURCE_ACCOUNT, f.account_key, want, whole, w.now_ns, found)


cdef bint request_blocked(Walk* w) noexcept nogil:
    cdef const Facts* f = w.f
    cdef uint64_t here[AREA_WORDS]
    cdef BlockEntry found
    memset(here, 0, sizeof(here))
    here[f.area.area_id >> 6] = <uint64_t>1 << (f.area.area_id & 63)
    if not block_find(w, here, False, &found):
        return False
    met_block(w, &found)
    return True


# A connection rule was asked at accept, unless it waits for the head, or the address became known with it only.
cdef bint asked_at_accept(const Facts* f, uint16_t rule) noexcept nogil:
    cdef uint32_t i
    if f.proof == PROOF_CHAIN:
        return False
    for i in range(f.listener.rules.len):
        if f.policy.area_rules[f.listener.rules.off + i] == rule:
            return True
    return False


cdef void ask_hello(Walk* w, bint abuses) noexcept nogil:
    """The area's rules about connections: those about abuses, or all others."""
    cdef const Policy* p = w.f.policy
    cdef const Span* rules = &w.f.area.hello_rules
    cdef uint32_t i
    for i in range(rules.len):
        if (p.rules[p.area_rules[rules.off + i]].unit == UNIT_ABUSES) == abuses:
            ask_rule(w, &p.rules[p.area_rules[rules.off + i]])


cdef void judge_hello(Shared* s, const Facts* f, uint64_t now_ns, Judgement* out) noexcept nogil:
    cdef Walk w
    walk_begin(&w, s, f, now_ns, out)
    if not request_blocked(&w):
        ask_hello(&w, False)
        # There is no other answer to a ClientHello.
        if out.decided != VERDICT_PASS:
            out.decided = VERDICT_DROP
    finish(&w)


cdef void judge_request(Shared* s, const Facts* f, uint64_t now_ns, Judgement* out) noexcept nogil:
    cdef const Policy* p = f.policy
    cdef uint16_t rule
    cdef uint32_t i
    cdef Walk w
    walk_begin(&w, s, f, now_ns, out)
    if not request_blocked(&w):
        if f.first_request:
            for i in range(f.area.connection_rules.len):
                rule = p.area_rules[f.area.connection_rules.off + i]
                if not asked_at_accept(f, rule):
                    ask_rule(&w, &p.rules[rule])
            # A connection may ask for another area than the one that its ClientHello named.
            if f.ja4 != NULL and f.hello_area != f.area.area_id:
                ask_hello(&w, False)
        for i in range(f.area.rules.len):
            ask_rule(&w, &p.rules[p.area_rules[f.area.rules.off + i]])
    finish(&w)


cdef void judge_abuse(Shared* s, const Facts* f, uint64_t now_ns, Judgement* out) noexcept nogil:
    cdef Walk w
    walk_begin(&w, s, f, now_ns, out)
    ask_hello(&w, True)
    # The connection ends, whatever the rule says: what is left of it is a ladder's rung, or a block.
    out.decided = VERDICT_DROP
    finish(&w)


cdef bint judge_standing(Shared* s, const Facts* f, uint64_t now_ns) noexcept nogil:
    cdef Judgement j
    cdef Walk w
    walk_begin(&w, s, f, now_ns, &j)
    return w.enforce and not never_blocked(f) and request_blocked(&w)


cdef inline uint16_t face_of(uint64_t fingerprint, uint64_t account_key) noexcept nogil:
    cdef uint64_t x = account_key if account_key else fingerprint
    cdef uint16_t face = <uint16_t>(x ^ (x >> 16) ^ (x >> 32) ^ (x >> 48))
    return face if face or x == 0 else 1


cdef void judge_done(Shared* s, const AreaSpec* area, const Judgement* j, uint64_t client_key, uint64_t fingerprint, uint64_t account_key,
                     uint64_t nbytes, uint64_t origin_ns, bint good, uint64_t now_ns) noexcept nogil:
    cdef const Charge* c
    cdef AreaState* state
    cdef uint64_t key
    cdef uint32_t i
    for i in range(j.charge_count if j.charge_count < CHARGES_MAX else CHARGES_MAX):
        c = &j.charges[i]
        if c.unit == UNIT_CONCURRENT:
            counts_add(s, c.key, -1)
        else:
            limiter_charge(&s.limiter, c.key, &c.rate, nbytes if c.unit == UNIT_BYTES else origin_ns, c.debt_max_ns, now_ns)
    # A crowd or a block says nothing new of this client.
    if area == NULL or j.crowd or j.blocked:
        return
    good = good and j.rule < 0
    state = &s.control.areas[area.area_id]
    key = known_key(&s.secret, area.area_id, client_key)
    known_note(&s.known, state, key, face_of(fingerprint, account_key), good, now_ns)
    if good and fingerprint:
        known_note_fingerprint(&s.known, state, key, known_fingerprint_key(&s.secret, area.area_id, fingerprint), now_ns)
