// What CUDA C has beyond C++, for a C++ compiler of the CPU.
#pragma once

#include "threads.h"

#define __global__
#define __device__ static
#define __shared__ static
#define __launch_bounds__(threads)
#define threadIdx emulated::thread_index
#define blockIdx emulated::block_index
#define __syncthreads emulated::barrier

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(unsigned long long x) { return x ? __builtin_clzll(x) : 64; }
static inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / ::sqrt(x); }
static inline float exp10(float x) { return powf(10.0f, x); }
