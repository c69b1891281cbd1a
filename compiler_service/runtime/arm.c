/* 32-bit Arm: what LLVM calls where the CPU has no instruction, under the names of the "Run-time ABI for the Arm
 * Architecture". A device need not have a compiler's runtime library, which these functions usually come from.
 *
 * They take and give floats in integer registers, whatever the calling convention of the rest.
 */

#include <stddef.h>
#include <stdint.h>

#define RTABI __attribute__((visibility("hidden"), pcs("aapcs"), used))

/* ---- integer division; by zero it gives 0, as the CPU's own instruction does ---- */

/* Long division in binary, beginning at the first digit that the quotient can have. */
static uint32_t divide32(uint32_t n, uint32_t d, uint32_t *rest) {
    uint32_t quotient = 0;
    if (d != 0 && n >= d) {
        int digit = __builtin_clz(d) - __builtin_clz(n);
        for (d <<= digit; digit >= 0; digit--, d >>= 1) {
            quotient <<= 1;
            if (n >= d) {
                n -= d;
                quotient |= 1;
            }
        }
    }
    *rest = n;
    return quotient;
}

static int leading_zeros(uint64_t x) {
    const uint32_t high = (uint32_t)(x >> 32);
    return high ? __builtin_clz(high) : 32 + __builtin_clz((uint32_t)x);
}

static uint64_t divide64(uint64_t n, uint64_t d, uint64_t *rest) {
    uint64_t quotient = 0;
    if ((n | d) >> 32 == 0) {
        uint32_t rest32;
        quotient = divide32((uint32_t)n, (uint32_t)d, &rest32);
        *rest = rest32;
        return quotient;
    }
    if (d != 0 && n >= d) {
        int digit = leading_zeros(d) - leading_zeros(n);
        for (d <<= digit; digit >= 0; digit--, d >>= 1) {
            quotient <<= 1;
            if (n >= d) {
                n -= d;
                quotient |= 1;
            }
        }
    }
    *rest = n;
    return quotient;
}

/* Quotient towards zero; the rest has the sign of n. */
static int64_t divide_signed64(int64_t n, int64_t d, int64_t *rest) {
    const uint64_t n_sign = (uint64_t)(n >> 63), d_sign = (uint64_t)(d >> 63), sign = n_sign ^ d_sign;
    uint64_t rest_size;
    const uint64_t size = divide64(((uint64_t)n ^ n_sign) - n_sign, ((uint64_t)d ^ d_sign) - d_sign, &rest_size);
    *rest = (int64_t)((rest_size ^ n_sign) - n_sign);
    return (int64_t)((size ^ sign) - sign);
}

static int32_t divide_signed32(int32_t n, int32_t d, int32_t *rest) {
    const uint32_t n_sign = (uint32_t)(n >> 31), d_sign = (uint32_t)(d >> 31), sign = n_sign ^ d_sign;
    uint32_t rest_size;
    const uint32_t size = divide32(((uint32_t)n ^ n_sign) - n_sign, ((uint32_t)d ^ d_sign) - d_sign, &rest_size);
    *rest = (int32_t)((rest_size ^ n_sign) - n_sign);
    return (int32_t)((size ^ sign) - sign);
}

RTABI uint32_t __aeabi_uidiv(uint32_t n, uint32_t d) {
    uint32_t rest;
    return divide32(n, d, &rest);
}
RTABI int32_t __aeabi_idiv(int32_t n, int32_t d) {
    int32_t rest;
    return divide_signed32(n, d, &rest);
}

/* Quotient and rest are given in one 64-bit pair of registers: the rest is the upper half. */
RTABI uint64_t __aeabi_uidivmod(uint32_t n, uint32_t d) {
    uint32_t rest;
    const uint32_t quotient = divide32(n, d, &rest);
    return (uint64_t)rest << 32 | quotient;
}
RTABI uint64_t __aeabi_idivmod(int32_t n, int32_t d) {
    int32_t rest;
    const int32_t quotient = divide_signed32(n, d, &rest);
    return (uint64_t)(uint32_t)rest << 32 | (uint32_t)quotient;
}

/* Of 64 bits in r0:r1 and r2:r3, which no C function can return: the rest goes through the stack. */
RTABI uint64_t crossfarmrt_divide_unsigned(uint64_t n, uint64_t d, uint64_t *rest) { return divide64(n, d, rest); }
RTABI int64_t crossfarmrt_divide_signed(int64_t n, int64_t d, int64_t *rest) { return divide_signed64(n, d, rest); }

#define DIVMOD(name, function)                                                 \
    RTABI __attribute__((naked)) void name(void) {                             \
        __asm__("push {r11, lr}\n"                                             \
                "sub sp, sp, #16\n"                                            \
                "add r12, sp, #8\n"                                            \
                "str r12, [sp]\n" /* the fifth argument: where the rest goes */ \
                "bl " #function "\n"                                           \
                "ldrd r2, r3, [sp, #8]\n"                                      \
                "add sp, sp, #16\n"                                            \
                "pop {r11, pc}\n");                                            \
    }
DIVMOD(__aeabi_uldivmod, crossfarmrt_divide_unsigned)
DIVMOD(__aeabi_ldivmod, crossfarmrt_divide_signed)

/* ---- 64-bit integers ↔ floats ---- */

/* Both halves are exact in float64, and so is the product: the sum is rounded once. */
RTABI double __aeabi_ul2d(uint64_t x) { return (double)(uint32_t)(x >> 32) * 0x1p32 + (double)(uint32_t)x; }
RTABI double __aeabi_l2d(int64_t x) { return (double)(int32_t)(x >> 32) * 0x1p32 + (double)(uint32_t)x; }

/* To float32 with one rounding: digits that float64 has no room for only say whether there is a remainder. They go into
 * the last one that is kept, which is rounding to odd. */
static uint64_t in_53_bits(uint64_t x) { return x >> 53 ? (x & ~(uint64_t)0x7FF) | ((x & 0x7FF) != 0) << 11 : x; }

RTABI float __aeabi_ul2f(uint64_t x) { return (float)__aeabi_ul2d(in_53_bits(x)); }
RTABI float __aeabi_l2f(int64_t x) {
    const float size = __aeabi_ul2f(x < 0 ? -(uint64_t)x : (uint64_t)x);
    return x < 0 ? -size : size;
}

/* Towards zero. Callers have sorted out what does not fit; what is given then is of no use to anybody. */
RTABI uint64_t __aeabi_d2ulz(double x) {
    const uint32_t high = (uint32_t)(x * 0x1p-32);
    return (uint64_t)high << 32 | (uint32_t)(x - (double)high * 0x1p32);
}
RTABI int64_t __aeabi_d2lz(double x) {
    const uint64_t size = __aeabi_d2ulz(x < 0 ? -x : x);
    return (int64_t)(x < 0 ? -size : size);
}
RTABI uint64_t __aeabi_f2ulz(float x) { return __aeabi_d2ulz(x); }
RTABI int64_t __aeabi_f2lz(float x) { return __aeabi_d2lz(x); }

/* ---- memory: the C library's, which need not have these names ---- */

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);

#define MEMORY(suffix)                                                                                    \
    RTABI void __aeabi_memcpy##suffix(void *to, const void *from, size_t size) { memcpy(to, from, size); } \
    RTABI void __aeabi_memmove##suffix(void *to, const void *from, size_t size) { memmove(to, from, size); } \
    RTABI void __aeabi_memset##suffix(void *to, size_t size, int byte) { memset(to, byte, size); }         \
    RTABI void __aeabi_memclr##suffix(void *to, size_t size) { memset(to, 0, size); }
MEMORY()
MEMORY(4)
MEMORY(8)
