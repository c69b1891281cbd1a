/* The times of calls that a function makes: linked into every library with functions of calls.
 *
 * Such a function marks its begin with 0 and the end of its n-th call with n. Where nobody asked for the times a mark
 * is a load and a branch. One caller at a time asks: the times are of whatever function of the library runs meanwhile,
 * in whatever thread, and are read when it has returned.
 */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>

#include "visibility.h"

/* The function that runs has got to `step`. */
HIDDEN void crossfarmrt_mark(uint32_t step);

/* From now on marks are written to `nanoseconds`: step's time on a clock that never goes back at nanoseconds[step],
 * for steps below `count`. NULL: no longer. */
EXPORTED void crossfarmrt_profile(uint64_t *nanoseconds, uint32_t count);

enum { SECOND = 1000000000 };

#ifdef _WIN32

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

static uint64_t now(void) {
    LARGE_INTEGER ticks, frequency;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&ticks);
    const uint64_t count = (uint64_t)ticks.QuadPart, each = (uint64_t)frequency.QuadPart;
    return count / each * SECOND + count % each * SECOND / each;
}

#else

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* What the kernel writes, and what the C library does where words have 64 bits. Elsewhere C libraries disagree on the
 * size of seconds and on the function's name, and the kernel is asked without them. */
struct Time {
    long seconds, nanoseconds;
};

static uint64_t now(void) {
    struct Time time = {0, 0};
#if __SIZEOF_LONG__ == 8
    clock_gettime(CLOCK_MONOTONIC, (struct timespec *)&time);
#elif defined(SYS_clock_gettime32)
    syscall(SYS_clock_gettime32, CLOCK_MONOTONIC, &time);
#else
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time);
#endif
    return (uint64_t)time.seconds * SECOND + (uint64_t)time.nanoseconds;
}

#endif

static uint64_t *times; /* NULL: nobody asked */
static uint32_t room;

void crossfarmrt_mark(uint32_t step) {
    uint64_t *const to = __atomic_load_n(&times, __ATOMIC_ACQUIRE);
    if (to != NULL && step < room) to[step] = now();
}

void crossfarmrt_profile(uint64_t *nanoseconds, uint32_t count) {
    __atomic_store_n(&times, NULL, __ATOMIC_RELEASE);
    room = count;
    __atomic_store_n(&times, nanoseconds, __ATOMIC_RELEASE);
}
