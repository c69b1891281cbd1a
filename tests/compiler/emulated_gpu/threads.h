// Threads of a GPU on one thread of a CPU: those of a group take turns, and change at barriers and at their ends.
//
// A group's threads run in a given order, each as far as it comes, which is the least help that a kernel can have: a
// value that another thread has still to store is not there yet without a barrier.
#pragma once

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

namespace emulated {

struct Index {
  unsigned x, y, z;
};

inline Index thread_index, block_index, block_size, grid_size;

enum State { RUNS, WAITS, DONE };

struct Thread {
  ucontext_t context;
  State state;
  char *stack;
};

const size_t stack_bytes = 64 << 10;
inline Thread *current;
inline ucontext_t scheduler;
inline void (*body)(void **);
inline void **arguments;

inline void barrier() {
  current->state = WAITS;
  swapcontext(&current->context, &scheduler);
}

inline void start() {
  body(arguments);
  current->state = DONE;
  swapcontext(&current->context, &scheduler);
}

// Runs all groups; backward: each group's threads from the last to the first.
inline int launch(void (*run)(void **), const unsigned *grid, const unsigned *group, void **given, int backward) {
  grid_size = {grid[0], grid[1], grid[2]};
  block_size = {group[0], group[1], group[2]};
  body = run;
  arguments = given;
  const unsigned count = group[0] * group[1] * group[2];
  Thread *threads = new Thread[count];
  for (unsigned t = 0; t < count; ++t) threads[t].stack = (char *)malloc(stack_bytes);
  int failed = 0;
  for (unsigned z = 0; z < grid[2] && !failed; ++z)
    for (unsigned y = 0; y < grid[1] && !failed; ++y)
      for (unsigned x = 0; x < grid[0] && !failed; ++x) {
        block_index = {x, y, z};
        for (unsigned t = 0; t < count; ++t) {
          getcontext(&threads[t].context);
          threads[t].context.uc_stack.ss_sp = threads[t].stack;
          threads[t].context.uc_stack.ss_size = stack_bytes;
          threads[t].context.uc_link = nullptr;
          makecontext(&threads[t].context, start, 0);
          threads[t].state = RUNS;
        }
        for (unsigned done = 0; done < count && !failed;) {
          unsigned waiting = 0;
          for (unsigned turn = 0; turn < count; ++turn) {
            const unsigned t = backward ? count - 1 - turn : turn;
            if (threads[t].state == DONE) continue;
            current = &threads[t];
            current->state = RUNS;
            thread_index = {t % group[0], t / group[0] % group[1], t / group[0] / group[1]};
            swapcontext(&scheduler, &current->context);
            if (current->state == DONE) ++done;
            else ++waiting;
          }
          failed = waiting && done;  // a barrier that not all threads reach
        }
      }
  for (unsigned t = 0; t < count; ++t) free(threads[t].stack);
  delete[] threads;
  return failed;
}

template <unsigned...> struct Numbers {};
template <unsigned count, unsigned... rest> struct UpTo : UpTo<count - 1, count - 1, rest...> {};
template <unsigned... rest> struct UpTo<0, rest...> {
  typedef Numbers<rest...> List;
};

template <typename... Types, unsigned... number>
void call(void (*kernel)(Types...), void **given, Numbers<number...>) {
  kernel(*(Types *)given[number]...);
}

// A kernel with its arguments, each given by its address as to cuLaunchKernel.
template <typename... Types> void unpack(void (*kernel)(Types...), void **given) {
  call(kernel, given, typename UpTo<sizeof...(Types)>::List());
}

}  // namespace emulated

#define CROSSFARM_RUN(name)                                                                               \
  extern "C" int run_##name(const unsigned *grid, const unsigned *group, void **given, int backward) {   \
    return emulated::launch([](void **a) { emulated::unpack(name, a); }, grid, group, given, backward);  \
  }
