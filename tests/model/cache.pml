/* The cache's claims, index and log: ext/cache.pyx, cache_claim, cache_reserve, cache_write_end, cache_place, cache_forget
 * as cache_purge calls it (without the lock), cache_read.
 *
 * Two fetchers claim one key, the second once the claim is given up, purged or lapsed; somebody writes a record of another
 * key; the log has two runs, so that whoever is held up writes over later records. The origin's answer changes once, and
 * the key is purged after that.
 *
 * Asserted: what is read is whole, of the key that was asked for, and the very record that its position was reserved for;
 * once all is quiet, nothing that was asked for before the purge is found.
 *
 * Abstracted: a claim is one step under the bucket's lock; cache_place holds the lock while purges interleave; a record is
 * its key, its answer and a check that is ideal (a body's chunks have checks of their own, which the lead has in turn); the
 * key's entry is never taken over. A record of the other key is written in one step, else each word is one. Not asserted:
 * between cache_place's store of a position and its taking it back, a reader may get the answer from before the purge, for
 * some nanoseconds.
 *
 * +DREADER: somebody reads meanwhile; the origin's answer changes, and nobody purges.
 * -DNO_COMMIT: cache_place ends its claim without looking whether it is still there.
 * -DPOS_FIRST: cache_forget forgets the position, then the claim.
 * -DNO_CHECK: what was copied is not checked.
 * -DNO_POSITION: the check does not cover the position.
 */
#define LOG 2                   /* runs: position p lies in run p % LOG; the first is LOG, 0 means none */

byte tail = LOG;
byte key[LOG], answer[LOG], check[LOG];
byte pos, claim;                /* the entry of key 1 */
byte made_key[8], made_answer[8];       /* ghosts, by position */
byte version = 1, ended;
bool lock, lapsed;

#ifdef NO_POSITION
#define CHECK(k, a, p) (1 + 4 * (k) + (a))
#else
#define CHECK(k, a, p) (1 + 4 * (k) + (a) + 16 * (p))
#endif
#define WITHIN(p) ((p) >= LOG && (p) < tail && tail - (p) <= LOG)
#ifdef NO_CHECK
#define SOUND(k, a, p, c) ((k) == 1)
#else
#define SOUND(k, a, p, c) ((k) == 1 && (c) == CHECK(k, a, p))
#endif

inline write(k, a) {
    atomic { p = tail; tail++; made_key[p] = k; made_answer[p] = a };   /* cache_reserve */
    key[p % LOG] = k;
    answer[p % LOG] = a;
    check[p % LOG] = CHECK(k, a, p)
}

proctype fetcher(byte me) {
    byte asked, p;
    bool held;
    atomic {                    /* cache_claim */
        !lock && (claim == 0 || !lapsed);
        lapsed = lapsed || claim != 0;
        claim = me
    };
    asked = version;
    write(1, asked);
    atomic { !lock -> lock = true };
    held = (claim == me);       /* cache_place */
    if
    :: held ->
        pos = p;
#ifdef NO_COMMIT
        claim = 0
#else
        d_step { held = (claim == me); claim = (held -> 0 : claim) };
        if
        :: !held -> d_step { pos = (pos == p -> 0 : pos) }
        :: else
        fi
#endif
    :: else
    fi;
    lock = false;
    ended++
}

proctype other() {
    byte p;
    d_step { write(2, 3) };
    ended++
}

proctype purger() {
    version = 2;
#ifdef READER
    skip;
#elif defined(POS_FIRST)
    pos = 0;
    claim = 0;
#else
    claim = 0;
    pos = 0;
#endif
    ended++
}

proctype reader() {
    byte p, k, a, c;
    p = pos;
    if
    :: WITHIN(p) ->
        k = key[p % LOG];
        a = answer[p % LOG];
        c = check[p % LOG];
        if
        :: WITHIN(p) && SOUND(k, a, p, c) -> assert(made_key[p] == 1 && made_answer[p] == a)
        :: else
        fi
    :: else
    fi
}

init {
    atomic { run fetcher(1); run fetcher(2); run other(); run purger() };
#ifdef READER
    run reader();
#endif
    ended == 4;
#ifndef READER
    d_step {
        if
        :: WITHIN(pos) && SOUND(key[pos % LOG], answer[pos % LOG], pos, check[pos % LOG]) -> assert(answer[pos % LOG] == 2)
        :: else
        fi
    }
#endif
}
