/* Replacing a policy: ext/engine.pyx, Engine._install and swap (PolicyRef: current, refs); ext/client.pyx and ext/exchange.pyx,
 * a request's hold; scrubber/server: supervisor.py _put_in_force, keeper.py _publish, _settled and _start, worker.py.
 *
 * A supervisor publishes policies one after the other, the keeper hands them on and keeps the last for workers yet to start,
 * a worker serves two requests at a time that walk the policy they began with, takes a new one between two passes, or
 * refuses it; it may die at any time and is started anew. Places for policies: 3 (POLICIES_MAX).
 *
 * Asserted: a request never walks an image that is unmapped, or another one than it began with. At most the one in force,
 * the one before it and what requests hold is mapped (the one before goes when the next comes). A worker that is told to
 * retire what generation G does not name obeys G or a later one, or refused it. Once all is quiet, the worker obeys what the
 * keeper holds, or has refused it.
 *
 * Abstracted: prefix images, which go with their policy's; how a refusal is answered: by the former policy as a further
 * generation, which is the next publish here. Channels are queues in order, as SOCK_SEQPACKET is; the keeper and a
 * worker are one thread each, so what they do between two waits is one step for the others.
 *
 * -DNO_REFS: a place is free once its policy is not in force.
 * -DSWAP_IN_PASS: a policy is taken in the middle of a pass.
 * -DSPLIT_START: the keeper obeys messages between reading what a new worker is to begin with and having its channel.
 */
#define PLACES 3
#define REQUESTS 2              /* at a time */
#define BEGINS 3
#define LAST 4                  /* generation */

mtype = { PUBLISH, SETTLED, RETIRE };
chan to_keeper = [2] of { mtype, byte };
chan to_worker = [6] of { mtype, byte };

byte held = 1;                  /* the keeper's generation */
byte taken, refused;            /* the worker's gauges */
bool alive, died;
byte begun;

/* The worker's memory: places, and of each request its place + 1 and the generation that it began with. */
byte policy[PLACES], refs[PLACES], current;
byte place[REQUESTS], walks[REQUESTS];

/* Engine._install: free what is not in force and held by nobody, take the first of these. */
inline install(g) {
    i = 0; free = PLACES; old = 0;
    do
    :: i < PLACES ->
        if
#ifdef NO_REFS
        :: i != current || policy[i] == 0 ->
#else
        :: (i != current || policy[i] == 0) && refs[i] == 0 ->
#endif
            policy[i] = 0;
            if
            :: free == PLACES -> free = i
            :: else
            fi
        :: else -> old = old + (policy[i] != 0 && refs[i] == 0)
        fi;
        i++
    :: else -> break
    od;
    assert(old <= 1);           /* what is in force until now */
    if
    :: free < PLACES -> policy[free] = g; current = free; taken = g
    :: else -> refused = g
    fi;
    i = 0; free = 0; old = 0
}

inline obey() {
    if
    :: to_worker?PUBLISH(g) ->
        if
        :: install(g)
        :: refused = g          /* not found sound */
        fi
    :: to_worker?RETIRE(g) -> assert(taken >= g || refused >= g)
    fi;
    g = 0
}

inline request(r) {
    if
    :: place[r] == 0 && begun < BEGINS ->
        d_step { begun++; p = current; walks[r] = policy[p] };
        d_step { refs[p]++; place[r] = p + 1; p = 0 }
    :: place[r] != 0 -> assert(policy[place[r] - 1] == walks[r])
    :: place[r] != 0 -> d_step { refs[place[r] - 1]--; place[r] = 0 }
    fi
}

#ifdef SWAP_IN_PASS
active proctype second_thread() {
    byte g, i, free, old;
end:
    do
    :: atomic { nempty(to_worker) -> obey() }
    od
}
#endif

proctype worker() {
    byte g, i, free, old, p;
end:
    do
#ifndef SWAP_IN_PASS
    :: atomic { nempty(to_worker) -> obey() }
#endif
    :: request(0)
    :: request(1)
    :: atomic { !died -> died = true; break }
    od;
    atomic {
        do
        :: to_worker?_, _
        :: empty(to_worker) -> break
        od;
        taken = 0; refused = 0; alive = false
    }
}

inline start(first) {
    i = 0;
    do
    :: i < PLACES -> policy[i] = 0; refs[i] = 0; i++
    :: else -> break
    od;
    place[0] = 0; place[1] = 0; current = 0;
    install(first);
    alive = true;
    run worker()
}

active proctype keeper() {
    byte g, i, free, old;
#ifdef SPLIT_START
    byte first;
#endif
end:
    do
    :: atomic { to_keeper?PUBLISH(g) -> held = g; if :: alive -> to_worker!PUBLISH, g :: else fi }
    :: atomic { to_keeper?SETTLED(g) -> if :: alive && g == held -> to_worker!RETIRE, g :: else fi }
#ifdef SPLIT_START
    :: !alive && first == 0 -> first = held
    :: atomic { first != 0 -> start(first); first = 0 }
#else
    :: atomic { !alive -> start(held) }
#endif
    od
}

active proctype supervisor() {
    byte g = 2;
    do
    :: g <= LAST ->
        to_keeper!PUBLISH, g;
        if
        :: taken >= g -> to_keeper!SETTLED, g
        :: true -> to_keeper!SETTLED, g         /* it has waited long enough */
        :: refused >= g                         /* the former policy follows as the next generation */
        fi;
        g++
    :: else -> break
    od;
    atomic { empty(to_keeper) && empty(to_worker) && alive -> assert(taken == held || refused == held) }
}
