/* Linux and Android: what threads.c asks of the system. No errno, and of pthreads only functions whose arguments are
 * the same in every C library and version: an object built with one library's headers runs with another's. */

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CGROUPS /* where control groups are mounted, and which of them the process is in */
#define CGROUPS "/sys/fs/cgroup"
#define OWN_CGROUPS "/proc/self/cgroup"
#endif

enum { WAIT_PRIVATE = 128, WAKE_PRIVATE = 129 }; /* futex operations */

static uint32_t process_id(void) { return (uint32_t)getpid(); }

static void *allocate(size_t bytes) { return malloc(bytes); }
static void release(void *memory) { free(memory); }

/* Sleeps while *word is `value`; may return early. */
static void sleep_while(Word *word, uint32_t value) {
    syscall(SYS_futex, word, WAIT_PRIVATE, value, NULL, NULL, 0);
}
static void wake(Word *word, int32_t sleepers) { syscall(SYS_futex, word, WAKE_PRIVATE, sleepers, NULL, NULL, 0); }

/* ---- threads ---- */

typedef pthread_t Thread;

static void *thread_main(void *helper) {
    help(helper);
    return NULL;
}

/* 0 if the system refuses. The thread takes no signals but those of its own faults: they are the program's threads'. */
static int start_thread(Thread *thread, struct Helper *helper) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t blocked, before;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return 0;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before); /* a new thread begins with its maker's mask */
    const int refused = pthread_create(thread, &attributes, thread_main, helper);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return !refused;
}

static void join_thread(Thread thread) { pthread_join(thread, NULL); }

/* ---- CPUs ---- */

/* The affinity mask of the process' first thread: others may have been moved for a time. */
static void process_cpus(struct Cpus *cpus) {
    *cpus = (struct Cpus){{0}};
    if (syscall(SYS_sched_getaffinity, getpid(), sizeof *cpus, cpus) <= 0)
        syscall(SYS_sched_getaffinity, 0, sizeof *cpus, cpus); /* the first thread has ended */
}

/* Moves the present thread to a CPU, or for -1 lets it run on all of the process'. */
static void place_thread(int32_t cpu) {
    struct Cpus cpus = {{0}};
    if (cpu >= 0)
        cpus.words[cpu / 64] = (uint64_t)1 << (cpu % 64);
    else
        process_cpus(&cpus);
    syscall(SYS_sched_setaffinity, 0, sizeof cpus, &cpus);
}

static int32_t usable_cpus(void) {
    struct Cpus cpus;
    process_cpus(&cpus);
    int32_t count = 0;
    for (size_t i = 0; i < sizeof cpus.words / sizeof *cpus.words; i++) count += __builtin_popcountll(cpus.words[i]);
    if (count > MAX_THREADS) count = MAX_THREADS;
    return count > 0 ? count : 1;
}
