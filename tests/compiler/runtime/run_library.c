/* Calls one function of a shared library as a driver would: what tests run under an emulator.
 *
 * Standard input, all numbers little-endian: the library's path and the symbol, each as a 32-bit length and text with its
 * zero; the workspace's size, 64 bits; the number of slots, 32 bits; of each slot its kind, 32 bits, and either its
 * value, 64 bits (kind 0), or the size of a buffer, 64 bits, and its content (kind 1).
 * Standard output: the status, 32 bits, and then the content of each buffer; of a library that tells the times of steps
 * also those of the first MARKS.
 * The exit status is 0, or says at which step it failed.
 *
 * It begins without a C library's start files, which only a complete toolchain of the platform would have.
 */

#include <stddef.h>
#include <stdint.h>

enum { MARKS = 4 };
enum { READ_FAILED = 2, NO_LIBRARY, NO_SYMBOL, NO_MEMORY, WRITE_FAILED };

typedef int32_t (*Function)(void *workspace, uint64_t *slots);
typedef void (*Profile)(uint64_t *nanoseconds, uint32_t count);

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>

static void end(int status) { ExitProcess((UINT)status); }
static void *allocate(size_t size) { return HeapAlloc(GetProcessHeap(), 0, size); }
static ptrdiff_t get(void *to, size_t size) {
    DWORD done = 0;
    return ReadFile(GetStdHandle(STD_INPUT_HANDLE), to, (DWORD)size, &done, NULL) ? (ptrdiff_t)done : -1;
}
static ptrdiff_t put(const void *from, size_t size) {
    DWORD done = 0;
    return WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), from, (DWORD)size, &done, NULL) ? (ptrdiff_t)done : -1;
}
static void say(const char *path) { (void)path; }
static void *open_library(const char *path) { return (void *)LoadLibraryA(path); }
static Function find(void *library, const char *symbol) {
    return (Function)(void *)GetProcAddress((HMODULE)library, symbol);
}
static void close_library(void *library) {
    void (*stop)(void) = (void (*)(void))(void *)GetProcAddress((HMODULE)library, "crossfarmrt_close");
    if (stop) stop();
    FreeLibrary((HMODULE)library);
}
#else
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void end(int status) { _exit(status); }
static void *allocate(size_t size) { return malloc(size); }
static ptrdiff_t get(void *to, size_t size) { return read(0, to, size); }
static ptrdiff_t put(const void *from, size_t size) { return write(1, from, size); }
static void say(const char *text) { (void)!write(2, text, strlen(text)); }
static void *open_library(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) say(dlerror());
    return library;
}
static Function find(void *library, const char *symbol) { return (Function)dlsym(library, symbol); }
static void close_library(void *library) { dlclose(library); }
#endif

static void read_all(void *to, size_t size) {
    for (ptrdiff_t got; size > 0; size -= (size_t)got, to = (char *)to + got)
        if ((got = get(to, size)) <= 0) end(READ_FAILED);
}
static void write_all(const void *from, size_t size) {
    for (ptrdiff_t done; size > 0; size -= (size_t)done, from = (const char *)from + done)
        if ((done = put(from, size)) <= 0) end(WRITE_FAILED);
}
static uint32_t read32(void) {
    uint32_t value;
    read_all(&value, sizeof value);
    return value;
}
static uint64_t read64(void) {
    uint64_t value;
    read_all(&value, sizeof value);
    return value;
}

/* Memory at a multiple of 64. */
static void *aligned(uint64_t size) {
    char *memory = allocate((size_t)size + 64);
    if (memory == NULL) end(NO_MEMORY);
    return (void *)(((uintptr_t)memory + 63) & ~(uintptr_t)63);
}
static char *read_text(void) {
    const uint32_t size = read32();
    char *text = aligned(size);
    read_all(text, size);
    return text;
}

void start(void) {
    const char *path = read_text(), *symbol = read_text();
    void *library = open_library(path);
    if (library == NULL) end(NO_LIBRARY);
    const Function function = find(library, symbol);
    if (function == NULL) end(NO_SYMBOL);
    void *workspace = aligned(read64());
    const uint32_t count = read32();
    uint64_t *slots = aligned((uint64_t)count * 8 + 8), *sizes = aligned((uint64_t)count * 8 + 8);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t is_buffer = read32();
        sizes[i] = 0;
        slots[i] = read64();
        if (is_buffer) {
            sizes[i] = slots[i];
            void *buffer = aligned(sizes[i]);
            read_all(buffer, (size_t)sizes[i]);
            slots[i] = (uintptr_t)buffer;
        }
    }
    const Profile profile = (Profile)find(library, "crossfarmrt_profile");
    uint64_t marks[MARKS] = {0};
    if (profile) profile(marks, MARKS - 1);
    const int32_t status = function(workspace, slots);
    if (profile) profile(NULL, 0);
    write_all(&status, sizeof status);
    for (uint32_t i = 0; i < count; i++) write_all((void *)(uintptr_t)slots[i], (size_t)sizes[i]);
    if (profile) write_all(marks, sizeof marks);
    close_library(library);
    end(0);
}
