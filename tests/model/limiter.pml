/* Limiter cells: ext/limiter.pyx, limiter_look, limiter_holds, limiter_admit, limiter_swap.
 *
 * Parties ask twice each for a unit of their key; now is 0 and a unit is 1 of time, so that a cell's time is what was
 * charged to it. A look reads key and time of a cell in two steps; a swap is one.
 *
 * Asserted: a cell's time is never more than what was charged to its key: nobody is charged for another; nobody is told
 * that he is limited when a cell of his key never held that much; of two parties that ask for one new key four times in
 * all, in a full bucket of two cells in which another key is charged meanwhile, exactly a burst of 2 passes.
 *
 * Abstracted: how times pass; the bound of LIMITER_TRIES; that each key's look begins at a cell of its own, the same
 * for all who ask for that key. Assumed: a cell does not change hands three times between two
 * loads that lie nanoseconds apart.
 *
 * +DEVICTION: a bucket of one cell that two keys of three parties fight for; nothing is asserted on how many pass.
 * +DTHIRD: three parties that ask once each.
 * +DWITHDRAWN: another key gives a cell up between the looks of both, so that both take one for their new key, and the
 *     second is charged again before it can be withdrawn: it stays, and the first is not seen any more. One more than the
 *     burst may pass, no more; this is known and left so, as it takes three such events within nanoseconds.
 * -DNO_SCAN: who takes a cell does not look for another one of the same key.
 * -DNO_HOLDS: as EVICTION, and what was read is believed without a second look.
 * -DKEY_ONLY: as EVICTION, and the second look is at the key alone.
 * -DTIME_ONLY: as EVICTION, and the swap is of the time alone.
 */
#if defined(NO_HOLDS) || defined(KEY_ONLY) || defined(TIME_ONLY)
#define EVICTION
#endif

#define BURST 2
#ifdef EVICTION
#define CELLS 1
#define PARTIES 3
#define ASKS 2
#elif defined(THIRD)
#define CELLS 2
#define PARTIES 3
#define ASKS 1
#else
#define CELLS 2
#define PARTIES 2
#define ASKS 2
#endif

byte key[CELLS], tat[CELLS];    /* key 0: empty */
byte charged[5];                /* ghost, by key: swaps that charged it, withdrawn or not */
byte most[5];                   /* ghost, by key: the latest time that a cell of it ever held */
byte passed;
byte ended;

#ifdef TIME_ONLY
#define HELD(c, k, t) (tat[c] == t)
#else
#define HELD(c, k, t) (key[c] == k && tat[c] == t)
#endif

proctype party(byte k) {
    byte i, k0, t0, sight, sight_key, sight_tat, backlog, asks;
    bool found, swapped;
    do
    :: asks == ASKS -> break
    :: asks < ASKS ->
again:  skip;
        d_step { i = 0; sight = CELLS; sight_key = 0; sight_tat = 0; found = false };
        skip;
        do                      /* limiter_look */
        :: i < CELLS && !found ->
            k0 = key[i];
            d_step {            /* the second load, and what is worked out of both */
                t0 = tat[i];
                if
                :: k0 == k || sight == CELLS || (sight_key != 0 && (k0 == 0 || t0 < sight_tat)) ->
                    sight = i; sight_key = k0; sight_tat = t0; found = (k0 == k)
                :: else
                fi;
                i++
            }
        :: else -> break
        od;
        skip;
#ifndef NO_HOLDS
        if                      /* limiter_holds: two loads */
        :: found ->
            if
            :: key[sight] != k -> goto again
            :: else
            fi;
#ifndef KEY_ONLY
            if
            :: tat[sight] != sight_tat -> goto again
            :: else
            fi
#else
            skip
#endif
        :: else
        fi;
#endif
        backlog = (found -> sight_tat : 0);
        if
        :: backlog + 1 > BURST ->
            assert(most[k] >= BURST);
            goto next           /* limited */
        :: else
        fi;
        skip;
        d_step {                /* limiter_swap: both words or neither */
            swapped = false;
            if
            :: HELD(sight, sight_key, sight_tat) ->
                swapped = true;
#ifdef TIME_ONLY
                if :: !found -> key[sight] = k :: else fi;
#else
                key[sight] = k;
#endif
                tat[sight] = backlog + 1;
                charged[k]++;
                if :: tat[sight] > most[k] -> most[k] = tat[sight] :: else fi;
                assert(tat[sight] <= charged[key[sight]])
            :: else
            fi
        };
        if
        :: !swapped -> goto again
        :: else
        fi;
#ifndef NO_SCAN
        i = 0;
        do
        :: sight_key != k && i < CELLS ->
            if
            :: i != sight && key[i] == k ->
                d_step {
                    swapped = true;
                    if
                    :: key[sight] == k && tat[sight] == backlog + 1 -> key[sight] = 0; tat[sight] = 0; swapped = false
                    :: else
                    fi
                };
                if
                :: !swapped -> goto again
                :: else -> break
                fi
            :: else -> i++
            fi
        :: else -> break
        od;
#endif
        passed++;
next:   asks++
    od;
    ended++
}

#ifndef EVICTION
/* What another key does meanwhile, so that which cell is to be taken changes between two looks. */
proctype rival() {
    d_step {
        if
#ifdef WITHDRAWN
        :: key[0] == 3 -> key[0] = 0; tat[0] = 0
#else
        :: key[0] == 3 -> tat[0] = 2
#endif
        :: else
        fi
    }
}
#endif

init {
    atomic {
#ifndef EVICTION
        key[0] = 3; charged[3] = 2;
#ifdef WITHDRAWN
        tat[0] = 2;
#endif
        key[1] = 4; tat[1] = 1; charged[4] = 1;
        run rival();
#endif
        run party(1);
#ifdef EVICTION
        run party(2);
#else
        run party(1);
#endif
#if PARTIES == 3
        run party(1);
#endif
    }
    ended == PARTIES;
#ifdef WITHDRAWN
    assert(passed >= BURST && passed <= BURST + 1)
#elif !defined(EVICTION)
    assert(passed == BURST)
#endif
}
