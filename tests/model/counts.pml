/* Counts by key and slots of a dead worker: ext/counts.pyx, counts_add, counts_take, counts_find, counts_sum;
 * scrubber/server/keeper.py, _died.
 *
 * Two workers count requests, the first of two keys, each in its slot of one cell; a limit lets one through at a time, as
 * the callers of counts_add do. The first may die between any two steps: the keeper zeroes its slot word by word, in any
 * order, and then starts its successor.
 *
 * Asserted: never are two of one key let through at once; a sum is right once everything is quiet, whoever died.
 *
 * Abstracted: more cells a bucket. Weak ordering is modelled as x86 has it: the stores of a worker wait in its own buffer,
 * in order, and reach memory at any later time, at a fence at the latest; the keeper sees a worker dead only after that.
 * Not asserted: a reader between the two loads of counts_find and counts_sum may see a cell that was taken over for
 * another key, so a sum may be too high for a moment.
 *
 * -DNO_FENCE: a worker looks at the others' counts while its own may still wait in the buffer.
 * -DNO_ZERO: the dead worker's slot stays as it is.
 * -DSTART_FIRST: the successor starts before the slot is zeroed.
 */
#define WORKERS 2
#define KEYS 2
#define REQUESTS 2              /* of a worker's life */
#define KEY 0
#define COUNT 1

typedef Slot { byte word[2] }   /* CountCell: key, count */
Slot memory[WORKERS];           /* as the others see it */
Slot own[WORKERS];              /* as its worker does: with what waits in the buffer */
chan buffer[WORKERS] = [3] of { byte, byte };
byte inside[KEYS + 1];          /* ghost: requests let through, of living workers */
byte within[WORKERS];           /* ghost: the key that a worker has let through */
bool alive[WORKERS], killed;

inline store(w, field, v) {
    atomic { nfull(buffer[w]); buffer[w]!field, v; own[w].word[field] = v }
}

active [WORKERS] proctype drain() {
    byte field, v;
end:
    do
    :: atomic { buffer[_pid]?field, v -> memory[_pid].word[field] = v }
    od
}

/* counts_add of one step up or down; sum: over all, for key k. */
inline add(w, k, up) {
    if
    :: own[w].word[KEY] != k ->
        if
        :: up && (own[w].word[KEY] == 0 || own[w].word[COUNT] == 0) ->
            store(w, COUNT, 0);
            store(w, KEY, k)
        :: else
        fi
    :: else
    fi;
    if
    :: own[w].word[KEY] == k && up -> store(w, COUNT, own[w].word[COUNT] + 1)
    :: own[w].word[KEY] == k && !up && own[w].word[COUNT] > 0 -> store(w, COUNT, own[w].word[COUNT] - 1)
    :: else
    fi;
#ifndef NO_FENCE
    empty(buffer[w]);
#endif
    sum = own[w].word[COUNT];
    if
    :: memory[1 - w].word[KEY] == k -> sum = sum + memory[1 - w].word[COUNT]
    :: else
    fi
}

proctype worker(byte w) {
    byte k, sum, done;
    {
        do
        :: done == REQUESTS -> break
        :: done < REQUESTS ->
            if
            :: k = 1
            :: w == 0 -> k = 2
            fi;
            done++;
            add(w, k, true);
            if
            :: sum > 1 -> skip      /* refused: it is taken back */
            :: else ->
                d_step { inside[k]++; within[w] = k; assert(inside[k] <= 1) };
                d_step { inside[k]--; within[w] = 0 }
            fi;
            add(w, k, false)
        od
    } unless {
        w == 0 && killed
    };
    skip;
    d_step {                        /* what a dead worker had let through ends with it */
        if
        :: within[w] -> inside[within[w]]--; within[w] = 0
        :: else
        fi;
        alive[w] = false
    }
}

active proctype keeper() {
    byte first;
    atomic { alive[0] = true; alive[1] = true; run worker(0); run worker(1) };
    if
    :: goto quiet
    :: killed = true
    fi;
    !alive[0] && empty(buffer[0]);
    killed = false;
#ifdef START_FIRST
    atomic { alive[0] = true; run worker(0) };
#endif
#ifndef NO_ZERO
    if
    :: first = KEY
    :: first = COUNT
    fi;
    d_step { memory[0].word[first] = 0; own[0].word[first] = 0 };
    d_step { memory[0].word[1 - first] = 0; own[0].word[1 - first] = 0 };
#endif
#ifndef START_FIRST
    atomic { alive[0] = true; run worker(0) };
#endif
quiet:
    !alive[0] && !alive[1] && empty(buffer[0]) && empty(buffer[1]);
    assert(memory[0].word[COUNT] + memory[1].word[COUNT] == 0)
}
