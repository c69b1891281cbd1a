/* Parallel loops on a small pool of threads: linked into every library that has such loops.
 *
 * One source for Linux, Android (pthreads, futexes) and Windows. What generated code calls is hidden in the library;
 * what the library's user may call is exported. Functions of programs have names that begin with "crossfarm_", so none
 * of them can be called like these.
 *
 * How a loop runs. The caller describes it in `pool`, opens it, wakes the helpers and takes part. Each thread has an even
 * share of the iterations, always the same one, so that what it has in its cache from the last loop or the last call is
 * what it needs; when its share is done it helps with those of others (affinity scheduling: Markatos and LeBlanc, 1992).
 * Of a share chunks are taken, large ones first, small ones at the end (guided self-scheduling: Polychronopoulos and
 * Kuck, 1987), so that fast and slow cores end together. Then the caller closes the loop and waits for the helpers that
 * are inside; those that wake too late find it closed, and nobody waits for them.
 *
 * One loop at a time has the pool. A loop that begins meanwhile, in another thread of the program or inside the body of
 * the first, runs on its own thread alone: the cores have work already.
 *
 * A child of fork has none of the threads. It notices by its process id, and starts its own when it needs them.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>

#include "visibility.h"

/* Statuses of its own; those of loop bodies are positive. */
enum { OK = 0, NO_MEMORY = -1, BAD_ARGUMENT = -2 };

enum {
    MAX_THREADS = 1024,
    MAX_CPUS = 8192,       /* numbers of CPUs lie below */
    ALIGNMENT = 64,
    CHUNK_SHIFT = 2,       /* a chunk is what is left of a share, shifted by this */
    STACK_BYTES = 1 << 20, /* generated code needs some ten KiB */
    /* Looks at a word before a thread sleeps: 20 to 100 us, about as long as it takes to wake one, so that waiting costs
     * at most twice what it must (Karlin et al., "Empirical Studies of Competitive Spinning", 1991). Loops in a row find
     * everybody awake. */
    SPINS = 3000,
};

/* Iterations `begin` to `end` - 1 of a loop; nonzero is a failure. `scratch` is the thread's own memory. */
typedef int32_t (*Body)(void *closure, int64_t begin, int64_t end, void *scratch);

/* Runs `extent` iterations. `scratch_bytes` of 64-byte aligned memory of undefined content are each thread's for the
 * time of one call of `body`. After a failure no new chunks are begun, and the status is that of the first iteration,
 * in the loop's order, that failed: what a serial loop would return. NO_MEMORY: no scratch, nothing was run. */
HIDDEN int32_t crossfarmrt_parallel(Body body, void *closure, int64_t extent, int64_t scratch_bytes);

/* How later loops run: on `count` threads, the calling one among them; 0 for as many as there are CPUs in the list, or
 * else CPUs that this process may use (affinity and CPU quota). Helper i stays on cpus[i % number_of_cpus]; cpus[0]
 * is left to the caller, whose thread is never moved. Without a list the helpers run on the process' CPUs.
 * BAD_ARGUMENT: a count outside 0 to 1024, or a CPU that the process may not use; nothing has changed. */
EXPORTED int32_t crossfarmrt_set_threads(int32_t count, const int32_t *cpus, int32_t number_of_cpus);

/* How many threads the last loop could use, or the next one will where the settings have changed. */
EXPORTED int32_t crossfarmrt_threads(void);

/* Ends the helpers, after a loop that is running, and frees all memory. The next loop starts anew. Call it before the
 * library is unloaded: elsewhere than on Windows unloading does it too, but there a thread cannot end during it. Not to
 * be called from the body of a loop. */
EXPORTED void crossfarmrt_close(void);

/* ---- the system: memory, words to wait on, threads, CPUs ---- */

struct Helper;
static void help(struct Helper *helper); /* what a helper's thread runs */

typedef uint32_t Word; /* only touched through functions */

/* A set of CPUs. */
struct Cpus {
    uint64_t words[MAX_CPUS / 64];
};

static int has_cpu(const struct Cpus *cpus, int32_t cpu) {
    return cpu >= 0 && cpu < MAX_CPUS && (cpus->words[cpu / 64] >> (cpu % 64) & 1);
}

#ifdef _WIN32
#include "system_windows.h"
#else
#include "system_linux.h"
#endif

static uint32_t get(const Word *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static void put(Word *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }
static int replace(Word *word, uint32_t old, uint32_t new) {
    return __atomic_compare_exchange_n(word, &old, new, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield");
#endif
}

/* Returns when *word differs from `value`, or earlier. */
static void wait_while(Word *word, uint32_t value) {
    for (int i = 0; i < SPINS; i++) {
        if (get(word) != value) return;
        relax();
    }
    sleep_while(word, value);
}

/* A lock: 0 free, 1 held, 2 held and somebody may wait (Drepper, "Futexes Are Tricky", 2005). */
static int try_lock(Word *word) { return replace(word, 0, 1); }
static void lock(Word *word) {
    if (try_lock(word)) return;
    while (__atomic_exchange_n(word, 2, __ATOMIC_SEQ_CST) != 0) sleep_while(word, 2);
}
static void unlock(Word *word) {
    if (__atomic_exchange_n(word, 0, __ATOMIC_SEQ_CST) == 2) wake(word, 1);
}

/* ---- scratch memory ---- */

/* Memory that grows and is kept for the next loop. */
struct Arena {
    void *memory;
    size_t size;
};

/* `bytes` of it, aligned; NULL where the system gives no more, or for no bytes. */
static void *reserve(struct Arena *arena, int64_t bytes) {
    if (bytes <= 0) return NULL;
    if ((uint64_t)bytes > PTRDIFF_MAX - ALIGNMENT) return NULL;
    if (arena->size < (size_t)bytes) {
        release(arena->memory);
        arena->memory = allocate((size_t)bytes + ALIGNMENT);
        arena->size = arena->memory == NULL ? 0 : (size_t)bytes;
        if (arena->memory == NULL) return NULL;
    }
    return (void *)(((uintptr_t)arena->memory + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1));
}

static void empty(struct Arena *arena) {
    release(arena->memory);
    arena->memory = NULL;
    arena->size = 0;
}

/* ---- the pool ---- */

struct Helper {
    struct Helper *next;
    Thread thread;
    int32_t share; /* its own */
    int32_t cpu; /* -1: any of the process' */
    struct Arena arena;
};

struct Settings {
    int32_t count;
    int32_t number_of_cpus;
    int32_t cpus[MAX_THREADS];
};

/* Iterations that one thread begins with, in a cache line of its own. */
struct Share {
    _Alignas(ALIGNMENT) int64_t next; /* first one that nobody has taken */
    int64_t end;
};

enum { OPEN = 1u << 31 }; /* in pool.state; the rest counts the helpers inside the loop */

static struct {
    Word process; /* whose state this is; see adopt */
    Word use;     /* lock: held by the caller whose loop has the pool */
    Word epoch;   /* grows with each loop and at the end; helpers sleep on it */
    Word state;   /* OPEN and the number of helpers inside; the caller sleeps on it */
    Word ending;  /* helpers shall end */

    struct Helper *helpers;
    int32_t threads;    /* that loops run on: the helpers and the caller; 0 when helpers are still to be started */
    struct Arena arena; /* the caller's */

    Word settings_use; /* lock of the settings */
    Word version;      /* of the settings; grows */
    uint32_t applied;  /* version that the helpers were started by */
    struct Settings settings;

    /* the loop */
    Body body;
    void *closure;
    int64_t extent;
    int64_t scratch_bytes;
    Word failure_use;  /* lock of changes to the two below */
    int64_t failed_at; /* first iteration of the first chunk that failed; `extent` where none did */
    int32_t status;    /* of that chunk */
    struct Share shares[MAX_THREADS];
} pool;

/* Makes the state this process' own: after a fork the parent's helpers are not here, and its locks may be held by
 * threads that are not either. What the parent had allocated stays, unused: it may have been about to change. */
static void adopt(void) {
    const uint32_t self = process_id(), claimed = self | 1u << 31;
    for (uint32_t owner; (owner = get(&pool.process)) != self; relax()) {
        if (owner == claimed || !replace(&pool.process, owner, claimed)) continue;
        pool.use = pool.epoch = pool.state = pool.ending = pool.settings_use = pool.failure_use = 0;
        pool.helpers = NULL;
        pool.threads = 0;
        pool.arena = (struct Arena){NULL, 0};
        put(&pool.process, self);
        return;
    }
}

/* Ends all helpers and frees what they had. The caller holds pool.use. */
static void end_helpers(void) {
    put(&pool.ending, 1);
    __atomic_add_fetch(&pool.epoch, 1, __ATOMIC_SEQ_CST);
    wake(&pool.epoch, MAX_THREADS);
    for (struct Helper *next; pool.helpers != NULL; pool.helpers = next) {
        next = pool.helpers->next;
        join_thread(pool.helpers->thread);
        empty(&pool.helpers->arena);
        release(pool.helpers);
    }
    put(&pool.ending, 0);
    pool.threads = 0;
}

/* The number of threads that the settings mean. The caller holds pool.settings_use. */
static int32_t wanted_threads(void) {
    if (pool.settings.count > 0) return pool.settings.count;
    return pool.settings.number_of_cpus > 0 ? pool.settings.number_of_cpus : usable_cpus();
}

/* Starts helpers as the settings say, or as many as the system allows. The caller holds pool.use. */
static void start_helpers(void) {
    const struct Settings *settings = &pool.settings;
    lock(&pool.settings_use);
    const int32_t count = wanted_threads();
    pool.threads = 1;
    for (int32_t at = 1; pool.threads < count; at++) { /* cpus[0] is the caller's */
        struct Helper *helper = allocate(sizeof *helper);
        if (helper == NULL) break;
        if (at >= settings->number_of_cpus) at = 0;
        *helper = (struct Helper){
            .next = pool.helpers,
            .share = pool.threads,
            .cpu = settings->number_of_cpus ? settings->cpus[at] : -1,
        };
        if (!start_thread(&helper->thread, helper)) {
            release(helper);
            break;
        }
        pool.helpers = helper;
        pool.threads++;
    }
    pool.applied = get(&pool.version);
    unlock(&pool.settings_use);
}

/* Takes a share's next chunk; its size, 0 when nothing is left. */
static int64_t take(struct Share *share, int64_t *begin) {
    int64_t at = __atomic_load_n(&share->next, __ATOMIC_SEQ_CST), size;
    do {
        const int64_t left = share->end - at;
        if (left <= 0) return 0;
        size = left >> CHUNK_SHIFT;
        if (size == 0) size = 1;
    } while (!__atomic_compare_exchange_n(&share->next, &at, at + size, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    *begin = at;
    return size;
}

/* Keeps the status of the first chunk, in the loop's order, that failed. */
static void fail(int64_t at, int32_t status) {
    lock(&pool.failure_use);
    if (at < pool.failed_at) {
        __atomic_store_n(&pool.failed_at, at, __ATOMIC_SEQ_CST);
        pool.status = status;
    }
    unlock(&pool.failure_use);
}

/* Runs chunks: of the thread's own share, then of those that follow it. Chunks behind one that failed are left out,
 * those before it are not, so that in the end it is the first one of all. */
static void work(int32_t own, void *scratch) {
    for (int32_t i = 0; i < pool.threads; i++) {
        struct Share *share = &pool.shares[own + i < pool.threads ? own + i : own + i - pool.threads];
        int64_t begin;
        for (int64_t size; (size = take(share, &begin)) != 0;) {
            if (begin > __atomic_load_n(&pool.failed_at, __ATOMIC_SEQ_CST)) break;
            const int32_t status = pool.body(pool.closure, begin, begin + size, scratch);
            if (status != OK) fail(begin, status);
        }
    }
}

static void help(struct Helper *helper) {
    place_thread(helper->cpu);
    for (;;) {
        const uint32_t epoch = get(&pool.epoch);
        if (get(&pool.ending)) return;
        uint32_t state = get(&pool.state);
        while (state & OPEN && !replace(&pool.state, state, state + 1)) state = get(&pool.state);
        if (state & OPEN) {
            void *scratch = reserve(&helper->arena, pool.scratch_bytes);
            /* without memory it leaves the work to others: the caller has got some */
            if (scratch != NULL || pool.scratch_bytes <= 0) work(helper->share, scratch);
            if (__atomic_sub_fetch(&pool.state, 1, __ATOMIC_SEQ_CST) == 0) wake(&pool.state, 1);
        }
        wait_while(&pool.epoch, epoch);
    }
}

static int32_t share(Body body, void *closure, int64_t extent, int64_t scratch_bytes, void *scratch) {
    pool.body = body;
    pool.closure = closure;
    pool.extent = extent;
    pool.scratch_bytes = scratch_bytes;
    pool.failed_at = extent;
    pool.status = OK;
    int64_t begin = 0;
    for (int32_t i = 0; i < pool.threads; i++) {
        const int64_t end = begin + extent / pool.threads + (i < extent % pool.threads);
        pool.shares[i] = (struct Share){begin, end};
        begin = end;
    }
    put(&pool.state, OPEN);
    __atomic_add_fetch(&pool.epoch, 1, __ATOMIC_SEQ_CST);
    wake(&pool.epoch, (extent < pool.threads ? (int32_t)extent : pool.threads) - 1);
    work(0, scratch);
    uint32_t inside = __atomic_and_fetch(&pool.state, ~(uint32_t)OPEN, __ATOMIC_SEQ_CST);
    for (; inside != 0; inside = get(&pool.state)) wait_while(&pool.state, inside);
    return pool.status;
}

int32_t crossfarmrt_parallel(Body body, void *closure, int64_t extent, int64_t scratch_bytes) {
    if (extent <= 0) return OK;
    adopt();
    const int mine = try_lock(&pool.use);
    struct Arena own = {NULL, 0}, *arena = mine ? &pool.arena : &own;
    void *scratch = reserve(arena, scratch_bytes);
    int32_t status;
    if (scratch == NULL && scratch_bytes > 0) {
        status = NO_MEMORY;
    } else {
        if (mine && extent > 1) {
            if (pool.threads > 0 && pool.applied != get(&pool.version)) end_helpers();
            if (pool.threads == 0) start_helpers();
        }
        if (mine && extent > 1 && pool.threads > 1)
            status = share(body, closure, extent, scratch_bytes, scratch);
        else
            status = body(closure, 0, extent, scratch);
    }
    empty(&own);
    if (mine) unlock(&pool.use);
    return status;
}

int32_t crossfarmrt_set_threads(int32_t count, const int32_t *cpus, int32_t number_of_cpus) {
    adopt();
    if (count < 0 || count > MAX_THREADS || number_of_cpus < 0 || number_of_cpus > MAX_THREADS) return BAD_ARGUMENT;
    struct Cpus usable;
    process_cpus(&usable);
    for (int32_t i = 0; i < number_of_cpus; i++)
        if (!has_cpu(&usable, cpus[i])) return BAD_ARGUMENT;
    lock(&pool.settings_use);
    struct Settings *settings = &pool.settings;
    int same = settings->count == count && settings->number_of_cpus == number_of_cpus;
    for (int32_t i = 0; same && i < number_of_cpus; i++) same = settings->cpus[i] == cpus[i];
    if (!same) {
        settings->count = count;
        settings->number_of_cpus = number_of_cpus;
        for (int32_t i = 0; i < number_of_cpus; i++) settings->cpus[i] = cpus[i];
        put(&pool.version, get(&pool.version) + 1);
    }
    unlock(&pool.settings_use);
    return OK;
}

int32_t crossfarmrt_threads(void) {
    adopt();
    lock(&pool.use);
    lock(&pool.settings_use);
    const int started = pool.threads > 0 && pool.applied == get(&pool.version);
    const int32_t threads = started ? pool.threads : wanted_threads();
    unlock(&pool.settings_use);
    unlock(&pool.use);
    return threads;
}

void crossfarmrt_close(void) {
    adopt();
    lock(&pool.use);
    end_helpers();
    empty(&pool.arena);
    unlock(&pool.use);
}

#ifndef _WIN32
/* At unload and at exit. If a loop is running, a process ends whose other threads still work: nobody waits for them. */
__attribute__((destructor)) static void unload(void) {
    if (get(&pool.process) != process_id() || !try_lock(&pool.use)) return;
    end_helpers();
    empty(&pool.arena);
    unlock(&pool.use);
}
#endif
