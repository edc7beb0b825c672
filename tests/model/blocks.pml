/* Entries of the block table and their bucket's lock: ext/lock.pyx; ext/blocks.pyx, block_read, block_write, block_insert,
 * block_extend, as blocks_put calls them.
 *
 * A bucket of three entries. The first worker blocks a source; the second extends the block of another one, that is in
 * force already, and blocks a third; somebody looks up. The first may die between any two steps: its lock is broken.
 *
 * Asserted: an entry that counts is a block that somebody made, never a mix of two. Once all is quiet, what was answered
 * as made is found, and what was in force before is, whoever died.
 *
 * Abstracted: a block is its source and its expiry, which all other fields stand for; the keyed check is ideal: right for
 * exactly one pair. A writer reads an entry in one step (it holds the bucket). LOCK_SPINS and BLOCK_READ_TRIES are as
 * large as need be for a lock, 1 for a reader. Each word is a step of its own, in the order that fence_full and
 * fence_acquire keep. A look-up that meets an entry that is being written again and again misses it; that is not asserted.
 *
 * +DLATE: the first worker is kept from its CPU for longer than the lock holds, at any step, and goes on; its clock may
 *     also be so late that it takes the second's lock for a dead owner's. Both then write side by side: the one entry that
 *     the late one writes may be spoiled, or hold only one of those that were put there; no other is.
 * -DNO_CHECK: as LATE, and an entry counts whatever its check.
 * -DNO_SEQUENCE: readers look neither at the sequence nor at the check.
 * -DNO_LOCK: nobody takes the bucket.
 * -DNO_BREAK: the lock of a dead owner is never broken.
 */
#ifdef NO_CHECK
#define LATE
#endif
#define ENTRIES 3
#define CHECK(s, e) (8 * (s) + (e))

byte seq[ENTRIES], src[ENTRIES], expires[ENTRIES], check[ENTRIES];
byte lock;                      /* 0, or who took it: stamps of two that both hold it differ by more than 5 ms */
byte where[4];                  /* ghost, by source: the entry where it was put last */
bool dead, late, made1, done1, done2;

#ifdef NO_CHECK
#define COUNTS(s, e, c) ((s) != 0)
#else
#define COUNTS(s, e, c) ((s) != 0 && (c) == CHECK(s, e))
#endif
#ifdef NO_BREAK
#define STALE false
#else
#define STALE (dead || late)
#endif

/* blocks_put: lock_take, block_insert or block_extend with block_write, lock_give. */
inline put(me, s, e) {
#ifndef NO_LOCK
    atomic { (lock == 0 || (lock != me && STALE)) -> lock = me };
#endif
    place = ENTRIES; i = 0;
    do
    :: i < ENTRIES ->
        d_step {
            if
            :: (seq[i] & 1) == 0 && COUNTS(src[i], expires[i], check[i]) ->
                if
                :: src[i] == s -> place = i; i = ENTRIES
                :: else -> i++
                fi
            :: else ->
                if
                :: place == ENTRIES -> place = i
                :: else
                fi;
                i++
            fi
        }
    :: else -> break
    od;
    assert(place < ENTRIES);
    i = seq[place] | 1;
    atomic { seq[place] = i; where[s] = place };
    src[place] = s;
    expires[place] = e;
    check[place] = CHECK(s, e);
    seq[place] = i + 1;
#ifndef NO_LOCK
    d_step {
        if
        :: lock == me -> lock = 0
        :: else
        fi
    }
#endif
}

proctype first() {
    byte i, place;
    {
        put(1, 2, 2);
        made1 = true
    } unless {
        dead
    };
    done1 = true
}

proctype second() {
    byte i, place;
    put(2, 1, 4);
    put(2, 3, 3);
    done2 = true
}

/* The first worker's fate. */
proctype fate() {
end:
#ifdef LATE
    late = true
#else
    atomic { !done1 -> dead = true }
#endif
}

proctype reader() {
    byte i, before, s, e, c;
    select(i : 0 .. 2);
    before = seq[i];
    s = src[i];
    e = expires[i];
    c = check[i];
    d_step {
        if
#ifdef NO_SEQUENCE
        :: s != 0 ->
#else
        :: (before & 1) == 0 && seq[i] == before && COUNTS(s, e, c) ->
#endif
            assert((s == 1 && (e == 1 || e == 4)) || (s == 2 && e == 2) || (s == 3 && e == 3))
        :: else
        fi
    }
}

byte found[4], n;

init {
    d_step { src[0] = 1; expires[0] = 1; check[0] = CHECK(1, 1) };
    atomic { run first(); run second(); run reader(); run fate() };
    done1 && done2;
    atomic {
        n = 0;
        do
        :: n < ENTRIES ->
            if
            :: (seq[n] & 1) == 0 && COUNTS(src[n], expires[n], check[n]) ->
                found[src[n]] = 1;
                assert(CHECK(src[n], expires[n]) == check[n])
            :: else -> assert(src[n] == 0 || n == where[2] || dead)
            fi;
            n++
        :: else -> break
        od;
#ifdef LATE
        assert(found[1] || where[1] == where[2]);
        assert(found[3] || where[3] == where[2])
#else
        assert(found[1] && found[3] && (found[2] || !made1))
#endif
    }
}
