// Meanings of PTX instructions, for what tests/compiler/ptx_as_cpp.py writes. Compiled with -fwrapv.
#pragma once

#include <stdint.h>

#include "threads.h"

#define CROSSFARM_RUN_PTX(name)                                                                           \
  extern "C" int run_##name(const unsigned *grid, const unsigned *group, void **given, int backward) {   \
    return emulated::launch(name, grid, group, given, backward);                                         \
  }

typedef _Float16 half;

// Low bits of a register as a value.
template <typename To, typename From> static inline To as(From bits) {
  static_assert(sizeof(To) <= sizeof(From), "a register holds the value");
  To value;
  memcpy(&value, &bits, sizeof(To));
  return value;
}

// A value into a register, which may be wider: signed ones keep their sign.
template <typename Register, typename Value> static inline void put(Register &target, Value value) {
  static_assert(sizeof(Value) <= sizeof(Register), "a register holds the value");
  if constexpr (sizeof(Value) == sizeof(Register)) memcpy(&target, &value, sizeof(Value));
  else target = (Register)value;
}

template <typename T> static inline T &memory(uint64_t address, unsigned align) {
  if (address % align) {
    fprintf(stderr, "an access of %u bytes at %llx, which is not aligned to them\n", align, (unsigned long long)address);
    abort();
  }
  return *(T *)address;
}

template <typename T> static inline T same(T a) { return a; }
template <typename T> static inline T add(T a, T b) { return (T)(a + b); }
template <typename T> static inline T sub(T a, T b) { return (T)(a - b); }
template <typename T> static inline T mul(T a, T b) { return (T)(a * b); }
static inline uint16_t mul(uint16_t a, uint16_t b) { return (uint16_t)((uint32_t)a * b); }
template <typename T> static inline T mad(T a, T b, T c) { return (T)(mul(a, b) + c); }
template <typename T> static inline T quotient(T a, T b) { return (T)(a / b); }
template <typename T> static inline T rest(T a, T b) { return (T)(a % b); }
template <typename T> static inline T bit_and(T a, T b) { return (T)(a & b); }
template <typename T> static inline T bit_or(T a, T b) { return (T)(a | b); }
template <typename T> static inline T bit_xor(T a, T b) { return (T)(a ^ b); }
template <typename T> static inline T bit_not(T a) { return (T)~a; }
static inline bool bit_not(bool a) { return !a; }
static inline uint16_t mul_hi(uint16_t a, uint16_t b) { return (uint16_t)(((uint32_t)a * b) >> 16); }
static inline int16_t mul_hi(int16_t a, int16_t b) { return (int16_t)(((int32_t)a * b) >> 16); }
static inline uint32_t mul_hi(uint32_t a, uint32_t b) { return (uint32_t)(((uint64_t)a * b) >> 32); }
static inline int32_t mul_hi(int32_t a, int32_t b) { return (int32_t)(((int64_t)a * b) >> 32); }
static inline uint64_t mul_hi(uint64_t a, uint64_t b) { return (uint64_t)(((unsigned __int128)a * b) >> 64); }
static inline int64_t mul_hi(int64_t a, int64_t b) { return (int64_t)(((__int128)a * b) >> 64); }

// float16 is computed in float32, which rounds to the same after each operation.
static inline half add(half a, half b) { return (half)((float)a + (float)b); }
static inline half sub(half a, half b) { return (half)((float)a - (float)b); }
static inline half mul(half a, half b) { return (half)((float)a * (float)b); }
static inline float fused(float a, float b, float c) { return fmaf(a, b, c); }
static inline double fused(double a, double b, double c) { return fma(a, b, c); }
static inline float root(float a) { return sqrtf(a); }
static inline double root(double a) { return sqrt(a); }
template <typename T> static inline T inverse(T a) { return (T)1 / a; }

// Of floats: the other one where one is NaN.
template <typename T> static inline T minimum(T a, T b) { return b != b || a < b ? a : b; }
template <typename T> static inline T maximum(T a, T b) { return b != b || a > b ? a : b; }
template <typename T> static inline T magnitude(T a) { return a < 0 ? (T)-a : a; }
static inline float magnitude(float a) { return fabsf(a); }
static inline double magnitude(double a) { return fabs(a); }
static inline half magnitude(half a) { return as<half>((uint16_t)(as<uint16_t>(a) & 0x7fff)); }
template <typename T> static inline T negated(T a) { return (T)-a; }
static inline float with_sign(float sign, float a) { return copysignf(a, sign); }
static inline double with_sign(double sign, double a) { return copysign(a, sign); }

// Amounts beyond the width are taken for the width.
template <typename T> static inline T shift_left(T a, uint32_t n) {
  return n >= 8 * sizeof(T) ? (T)0 : (T)((uint64_t)a << n);
}
template <typename T> static inline T shift_right(T a, uint32_t n) {
  if (n >= 8 * sizeof(T)) return a < 0 ? (T)-1 : (T)0;
  return (T)(a >> n);
}
static inline uint32_t funnel(uint32_t a, uint32_t b, uint32_t n) {
  return (uint32_t)(((uint64_t)b << 32 | a) << (n & 31) >> 32);
}
static inline uint32_t permute(uint32_t a, uint32_t b, uint32_t selection) {
  const uint64_t bytes = (uint64_t)b << 32 | a;
  uint32_t result = 0;
  for (int k = 0; k < 4; ++k) {
    const unsigned code = selection >> 4 * k & 15;
    const uint8_t byte = (uint8_t)(bytes >> 8 * (code & 7));
    result |= (uint32_t)(code & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << 8 * k;
  }
  return result;
}
static inline uint32_t extract(uint32_t a, uint32_t first, uint32_t count) {
  const uint64_t mask = ((uint64_t)1 << (count & 255)) - 1;
  return (uint32_t)((first & 255) > 31 ? 0 : a >> (first & 255) & (count > 31 ? ~0ull : mask));
}
static inline uint32_t popc(uint32_t a) { return (uint32_t)__builtin_popcount(a); }
static inline uint32_t popc(uint64_t a) { return (uint32_t)__builtin_popcountll(a); }
static inline uint32_t clz(uint32_t a) { return a ? (uint32_t)__builtin_clz(a) : 32; }
static inline uint32_t clz(uint64_t a) { return a ? (uint32_t)__builtin_clzll(a) : 64; }

// Comparisons are false where an operand is NaN; those that end in u are true.
template <typename T> static inline bool is_nan(T a, T b) { return a != a || b != b; }
template <typename T> static inline bool is_num(T a, T b) { return !is_nan(a, b); }
template <typename T> static inline bool is_eq(T a, T b) { return a == b; }
template <typename T> static inline bool is_ne(T a, T b) { return is_num(a, b) && a != b; }
template <typename T> static inline bool is_lt(T a, T b) { return a < b; }
template <typename T> static inline bool is_le(T a, T b) { return a <= b; }
template <typename T> static inline bool is_gt(T a, T b) { return a > b; }
template <typename T> static inline bool is_ge(T a, T b) { return a >= b; }
template <typename T> static inline bool is_equ(T a, T b) { return is_nan(a, b) || a == b; }
template <typename T> static inline bool is_neu(T a, T b) { return a != b; }
template <typename T> static inline bool is_ltu(T a, T b) { return is_nan(a, b) || a < b; }
template <typename T> static inline bool is_leu(T a, T b) { return is_nan(a, b) || a <= b; }
template <typename T> static inline bool is_gtu(T a, T b) { return is_nan(a, b) || a > b; }
template <typename T> static inline bool is_geu(T a, T b) { return is_nan(a, b) || a >= b; }
template <typename T> static inline bool is_lo(T a, T b) { return a < b; }
template <typename T> static inline bool is_ls(T a, T b) { return a <= b; }
template <typename T> static inline bool is_hi(T a, T b) { return a > b; }
template <typename T> static inline bool is_hs(T a, T b) { return a >= b; }

template <typename To, typename From> static inline To convert_plain(From a) { return (To)a; }
template <typename To, typename From> static inline To convert_rn(From a) { return (To)a; }

// To an integer, or to an integral float; saturating, NaN gives 0.
template <typename To> static inline To integral(double a) {
  if constexpr (__is_same(To, half) || __is_same(To, float) || __is_same(To, double)) return (To)a;
  else {
    const bool has_sign = (To)-1 < (To)0;
    const double top = ldexp(1.0, 8 * (int)sizeof(To) - has_sign);
    const To largest = (To)(~0ull >> (64 - 8 * sizeof(To) + has_sign));
    if (a != a) return (To)0;
    if (a >= top) return largest;
    if (a <= (has_sign ? -top : 0.0)) return has_sign ? (To)(-largest - 1) : (To)0;
    return (To)a;
  }
}
template <typename To, typename From> static inline To convert_rzi(From a) { return integral<To>(trunc((double)a)); }
template <typename To, typename From> static inline To convert_rni(From a) { return integral<To>(nearbyint((double)a)); }
template <typename To, typename From> static inline To convert_rmi(From a) { return integral<To>(floor((double)a)); }
template <typename To, typename From> static inline To convert_rpi(From a) { return integral<To>(ceil((double)a)); }
