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
enum { SET_NAME = 15 };                          /* prctl operation */

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
    syscall(SYS_prctl, SET_NAME, "crossfarm", 0, 0, 0);
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

/* Reads a small file as text; 0 where there is none. */
static int read_text(const char *path, char *text, size_t room) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    size_t size = 0;
    for (ssize_t got; size < room - 1 && (got = read(file, text + size, room - 1 - size)) > 0;) size += (size_t)got;
    close(file);
    text[size] = 0;
    return size > 0;
}

/* Writes `part` up to a line's end at text[at]; the new end. */
static size_t append(char *text, size_t at, size_t room, const char *part) {
    while (*part && *part != '\n' && at < room - 1) text[at++] = *part++;
    text[at] = 0;
    return at;
}

static const char *after(const char *text, char mark) {
    while (*text && *text != mark) text++;
    return *text ? text + 1 : text;
}

static int64_t number(const char *text) {
    int64_t value = 0;
    for (; *text >= '0' && *text <= '9' && value < INT64_MAX / 16; text++) value = 10 * value + (*text - '0');
    return value;
}

/* CPUs' worth of time that the group in `folder` may use, rounded up; MAX_THREADS without a limit. */
static int32_t group_quota(char *folder, size_t end, size_t room, int version) {
    char text[64];
    int64_t quota, period;
    append(folder, end, room, version == 2 ? "/cpu.max" : "/cpu.cfs_quota_us");
    if (!read_text(folder, text, sizeof text)) return MAX_THREADS;
    quota = number(text); /* 0 for "max" and for -1 */
    if (version == 2) {
        period = number(after(text, ' '));
    } else {
        append(folder, end, room, "/cpu.cfs_period_us");
        period = read_text(folder, text, sizeof text) ? number(text) : 0;
    }
    if (quota == 0 || period == 0) return MAX_THREADS;
    int32_t cpus = 1;
    while (cpus < MAX_THREADS && cpus * period < quota) cpus++;
    return cpus;
}

/* Whether "cpu" is among the names, which have commas between them and a colon behind. */
static int lists_cpu(const char *names) {
    for (;; names++) {
        if (names[0] == 'c' && names[1] == 'p' && names[2] == 'u' && (names[3] == ',' || names[3] == ':')) return 1;
        while (*names && *names != ',' && *names != ':') names++;
        if (*names != ',') return 0;
    }
}

/* The least of the quotas of the process' control groups and those around them. In a container the paths may be those
 * of the machine, which are not there; the walk then ends at the container's own group. */
static int32_t cpu_quota(void) {
    char groups[4096], folder[1024];
    int32_t least = MAX_THREADS;
    if (!read_text(OWN_CGROUPS, groups, sizeof groups)) return least;
    for (const char *line = groups; *line; line = after(line, '\n')) { /* "0::/path" or "4:cpu,cpuacct:/path" */
        const char *controllers = after(line, ':'), *path = after(controllers, ':');
        const int version = *controllers == ':' ? 2 : 1;
        if (version == 1 && !lists_cpu(controllers)) continue;
        size_t end = append(folder, 0, sizeof folder, CGROUPS);
        if (version == 1) end = append(folder, end, sizeof folder, "/cpu");
        const size_t root = end;
        for (end = append(folder, end, sizeof folder, path);; end--) {
            if (end > root && folder[end] != '/' && folder[end] != 0) continue;
            const int32_t cpus = group_quota(folder, end, sizeof folder, version);
            if (cpus < least) least = cpus;
            if (end <= root) break;
        }
    }
    return least;
}

static int32_t usable_cpus(void) {
    struct Cpus cpus;
    process_cpus(&cpus);
    int32_t count = 0;
    for (size_t i = 0; i < sizeof cpus.words / sizeof *cpus.words; i++) count += __builtin_popcountll(cpus.words[i]);
    const int32_t most = cpu_quota();
    return count < 1 ? 1 : count < most ? count : most;
}
