/* The hints of the block table: ext/blocks.pyx, blocks_put (behind the write), blocks_remove, blocks_sweep, and what a
 * look-up needs: the entry, and its bit in kinds.
 *
 * Two blocks with a bit each are put, the second after it was lifted, while the supervisor sweeps; another one sweeps
 * beside it, as during an upgrade. A sweeper may die between any two steps; somebody sweeps after it.
 *
 * Asserted: an entry that was put has its bit once all is quiet, at the latest after one whole sweep where a sweeper died
 * between its swap and its putting back.
 *
 * Abstracted: an entry is written and read in one step (blocks.pml has that). Each access is a step; all that matter for
 * the order are read-modify-writes. Not asserted: a look-up between a sweep's swap and its putting back may miss a block,
 * for some nanoseconds.
 *
 * -DNO_EPOCH: the sweep does not look whether something changed meanwhile.
 * -DHINT_FIRST: a put sets its bit, then counts the epoch.
 * -DFORGETFUL: the sweep does not keep what it replaces.
 */
byte present[2];                /* entries */
byte epoch, kinds, sweeps;
bool done;                      /* the worker is */
bool broken;                    /* a sweeper died */

inline put(n) {
    present[n] = 1;
#ifdef HINT_FIRST
    kinds = kinds | (1 << n);
    epoch++;
#else
    epoch++;
    kinds = kinds | (1 << n);
#endif
}

proctype worker() {
    put(0);
    present[1] = 0;             /* blocks_remove */
    epoch++;
    put(1);
    done = true
}

proctype sweep(bool mortal) {
    byte before, used, replaced;
    {
        before = epoch;
        if :: present[0] -> used = used | 1 :: else fi;
        if :: present[1] -> used = used | 2 :: else fi;
        d_step { replaced = kinds; kinds = used };      /* swap_u64 */
#ifdef FORGETFUL
        replaced = 0;
#endif
#ifndef NO_EPOCH
        if
        :: epoch != before -> kinds = kinds | replaced
        :: else
        fi
#endif
    } unless {
        mortal && broken        /* taken as soon as it is so */
    };
    sweeps++
}

proctype killer() {
    if
    :: broken = true
    :: skip
    fi
}

init {
    present[1] = 1;
    kinds = 2;
    atomic { run worker(); run sweep(true); run sweep(false); run killer() };
    done && sweeps == 2;
    if
    :: broken -> run sweep(false); sweeps == 3
    :: else
    fi;
    assert(present[0] == 1 && present[1] == 1);
    assert(kinds == 3)
}
