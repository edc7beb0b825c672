/* The ring: ext/ring.pyx, ring_has_room, ring_write, ring_read.
 *
 * One producer (a worker), one consumer (the supervisor). Either may die between any two steps and is started again,
 * as the keeper does: only once the former is dead. A cell is 8 bytes: a record is a cell of length and number, and 1 or
 * 2 cells of payload, which wrap.
 *
 * Asserted: what is read is the next committed record that no tail has passed, whole: in order, none left out, none twice
 * within a consumer's life (one that died before it moved the tail leaves its record to its successor); never a resync.
 * In the end all that was committed has been read.
 *
 * Abstracted: kinds and the reserve for acts, the bounds against hostile numbers. Memory is sequentially consistent:
 * stores of head and tail release, loads acquire, and neither side needs a store to be seen before a later load of its own.
 *
 * -DCOMMIT_FIRST: the head moves before the write.
 * -DNO_ROOM: the producer does not look whether there is room.
 * -DTAIL_FIRST: the tail moves before the copy.
 * -DTWO_PRODUCERS: a successor starts while the former worker still runs.
 */
#define SIZE 4
#define RECORDS 4               /* attempts, those that die on the way among them */
#define LENGTH(n) (1 + (n) % 2) /* cells of payload */
#define MARK(n) (16 * LENGTH(n) + (n))

byte cells[SIZE];
byte head, tail;
byte begun;                     /* attempts so far: each has its number, so that a mix of two shows */
byte committed[8], commits, passed; /* ghosts: what the head has passed, what the tail has */
byte producer_deaths, consumer_deaths;
bool producer_done;

proctype producer() {
    byte at, n, i, seen;
    do
    :: begun >= RECORDS -> break
    :: producer_deaths < 1 -> producer_deaths++; goto dead
    :: begun < RECORDS ->
        atomic { n = begun; begun++; i = 0 }
        at = head;
        do
        :: seen = tail;
            if
#ifndef NO_ROOM
            :: at - seen + 1 + LENGTH(n) > SIZE -> tail != seen /* no room: it is asked again later */
#endif
            :: else -> break
            fi
        od;
        skip;
#ifdef COMMIT_FIRST
        d_step { head = at + 1 + LENGTH(n); committed[commits] = n; commits++ };
#endif
        if
        :: producer_deaths < 1 -> producer_deaths++; goto dead
        :: cells[at % SIZE] = MARK(n)
        fi;
        do
        :: i < LENGTH(n) ->
            if
            :: producer_deaths < 1 -> producer_deaths++; goto dead
            :: cells[(at + 1 + i) % SIZE] = n; i++
            fi
        :: else -> break
        od;
        if
        :: producer_deaths < 1 -> producer_deaths++; goto dead
#ifndef COMMIT_FIRST
        :: d_step { head = at + 1 + LENGTH(n); committed[commits] = n; commits++ }
#else
        :: skip
#endif
        fi
    od;
    producer_done = true;
    goto end;
dead:
    run producer();
end:
    skip
}

proctype consumer() {
    byte h, t, mark, n, i;
    do
    :: producer_done && head == tail -> break
    :: consumer_deaths < 1 -> consumer_deaths++; goto dead
    :: head != tail ->          /* else RING_EMPTY */
        h = head;
        t = tail;
        if
        :: h == t -> goto next
        :: else
        fi;
        assert(h - t <= SIZE);
        mark = cells[t % SIZE];
        assert(mark >= 16 && 1 + mark / 16 <= h - t);   /* else it were a resync */
        n = mark % 16;
        assert(passed < commits && committed[passed] == n);
#ifdef TAIL_FIRST
        d_step { tail = t + 1 + mark / 16; passed++ };
#endif
        i = 0;
        do
        :: i < mark / 16 -> assert(cells[(t + 1 + i) % SIZE] == n); i++
        :: else -> break
        od;
        if
        :: consumer_deaths < 1 -> consumer_deaths++; goto dead
#ifndef TAIL_FIRST
        :: d_step { tail = t + 1 + mark / 16; passed++ }
#else
        :: skip
#endif
        fi;
next:   skip
    od;
    assert(passed == commits);
    goto end;
dead:
    run consumer();
end:
    skip
}

init {
    atomic {
        run producer();
        run consumer();
#ifdef TWO_PRODUCERS
        run producer();
#endif
    }
}
