// The part of CUDA's header of this name that generated sources use.
#pragma once

struct __half {
  _Float16 value;
};

static inline __half __ushort_as_half(unsigned short bits) {
  __half half;
  memcpy(&half, &bits, 2);
  return half;
}

static inline unsigned short __half_as_ushort(__half half) {
  unsigned short bits;
  memcpy(&bits, &half, 2);
  return bits;
}

static inline float __half2float(__half half) { return (float)half.value; }
static inline __half __float2half_rn(float value) { return __half{(_Float16)value}; }
