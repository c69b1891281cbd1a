/* Hammers the runtime from several threads while its settings change; made to run under ThreadSanitizer. */

#include "threads.c"

#include <stdio.h>

enum { ITERATIONS = 2000, EXTENT = 97, CALLERS = 3 };

struct Sum {
    int64_t squares[EXTENT];
    int64_t fails_at;
};

static int32_t square(void *closure, int64_t begin, int64_t end, void *scratch) {
    struct Sum *sum = closure;
    int64_t *own = scratch;
    for (int64_t i = begin; i < end; i++) {
        if (i == sum->fails_at) return (int32_t)i + 1;
        own[i % 8] = i * i;
        sum->squares[i] = own[i % 8];
    }
    return 0;
}

static int32_t nest(void *closure, int64_t begin, int64_t end, void *scratch) {
    (void)scratch;
    for (int64_t i = begin; i < end; i++) {
        struct Sum *sums = closure;
        const int32_t status = crossfarmrt_parallel(square, &sums[i], EXTENT, 64);
        if (status) return status;
    }
    return 0;
}

static int check(const struct Sum *sum) {
    for (int64_t i = 0; i < EXTENT; i++)
        if (sum->squares[i] != i * i) return 0;
    return 1;
}

static void *caller(void *argument) {
    const int number = *(int *)argument;
    static const int32_t cpus[] = {0};
    for (int n = 0; n < ITERATIONS; n++) {
        struct Sum sum = {.fails_at = n % 5 ? -1 : 40};
        const int32_t status = crossfarmrt_parallel(square, &sum, EXTENT, 64 * (n % 7 + 1));
        if (status != (n % 5 ? 0 : 41) || (status == 0 && !check(&sum))) return "a loop went wrong";
        struct Sum sums[4] = {{.fails_at = -1}, {.fails_at = -1}, {.fails_at = -1}, {.fails_at = -1}};
        const int32_t nested = crossfarmrt_parallel(nest, sums, 4, 0);
        if (nested || !check(&sums[0]) || !check(&sums[3])) return "nested loops went wrong";
        if (number == 0 && n % 16 == 0 && crossfarmrt_set_threads(1 + n / 16 % 4, cpus, n / 16 % 2)) return "refused";
        if (number == 1 && n % 50 == 0) crossfarmrt_close();
    }
    return NULL;
}

int main(void) {
    pthread_t threads[CALLERS];
    int numbers[CALLERS], failed = 0;
    for (int i = 0; i < CALLERS; i++) {
        numbers[i] = i;
        pthread_create(&threads[i], NULL, caller, &numbers[i]);
    }
    for (int i = 0; i < CALLERS; i++) {
        void *said;
        pthread_join(threads[i], &said);
        if (said != NULL) failed = printf("%s\n", (char *)said);
    }
    return failed != 0;
}
