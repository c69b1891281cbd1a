/* Windows 8 and later: what threads.c asks of the system. */

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

static uint32_t process_id(void) { return 1; } /* there is no fork */

static void *allocate(size_t bytes) { return HeapAlloc(GetProcessHeap(), 0, bytes); }
static void release(void *memory) {
    if (memory != NULL) HeapFree(GetProcessHeap(), 0, memory);
}

/* Sleeps while *word is `value`; may return early. */
static void sleep_while(Word *word, uint32_t value) { WaitOnAddress(word, &value, sizeof value, INFINITE); }
static void wake(Word *word, int32_t sleepers) {
    for (; sleepers > 0 && sleepers < 4; sleepers--) WakeByAddressSingle(word);
    if (sleepers > 0) WakeByAddressAll(word);
}

/* ---- threads ---- */

typedef HANDLE Thread;

/* The library that this code is in; with a reference more, where it shall stay loaded. */
static HMODULE own_library(DWORD flags) {
    HMODULE library = NULL;
    flags |= GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS;
    GetModuleHandleExA(flags, (const char *)(uintptr_t)&own_library, &library);
    return library;
}

static DWORD WINAPI thread_main(void *helper) {
    help(helper);
    FreeLibraryAndExitThread(own_library(GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT), 0);
}

/* 0 if the system refuses. The library stays loaded as long as the thread runs, also where nobody calls
 * crossfarmrt_close before unloading it. */
static int start_thread(Thread *thread, struct Helper *helper) {
    HMODULE library = own_library(0);
    *thread = CreateThread(NULL, STACK_BYTES, thread_main, helper, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    if (*thread == NULL) FreeLibrary(library);
    return *thread != NULL;
}

static void join_thread(Thread thread) {
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}

/* ---- CPUs: those of the process' own group, 64 at most ---- */

static void process_cpus(struct Cpus *cpus) {
    DWORD_PTR process = 1, machine;
    GetProcessAffinityMask(GetCurrentProcess(), &process, &machine);
    *cpus = (struct Cpus){{process}};
}

/* Moves the present thread to a CPU, or for -1 lets it run on all of the process'. */
static void place_thread(int32_t cpu) {
    struct Cpus cpus = {{0}};
    if (cpu >= 0)
        cpus.words[0] = (uint64_t)1 << cpu;
    else
        process_cpus(&cpus);
    SetThreadAffinityMask(GetCurrentThread(), (DWORD_PTR)cpus.words[0]);
}

static int32_t usable_cpus(void) {
    struct Cpus cpus;
    process_cpus(&cpus);
    const int32_t count = __builtin_popcountll(cpus.words[0]);
    return count > 0 ? count : 1;
}
