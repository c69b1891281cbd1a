//! Windows: mathematical functions that generated code and LLVM call, which other systems' C libraries have. A Windows
//! device need not have a C runtime. Compiled together with zig's compiler-rt, which has exp, log, sin, cos and their
//! kin, rounding, fmod, memcpy and the stack's probes; a library contains what it calls.
//!
//! Results are within some units of float64's last place. Those of float32 are float64's, rounded.

const std = @import("std");
const math = std.math;

// Nothing here can fail; any other handler would bring its output along.
pub const panic = std.debug.no_panic;

/// Exports a function of one float64 under `name`, and with an f appended one of float32 that calls it.
fn put1(comptime name: []const u8, comptime f: anytype) void {
    const Made = struct {
        fn double(x: f64) callconv(.c) f64 {
            return f(x);
        }
        fn single(x: f32) callconv(.c) f32 {
            return @floatCast(f(@as(f64, x)));
        }
    };
    @export(&Made.double, .{ .name = name });
    @export(&Made.single, .{ .name = name ++ "f" });
}

/// The same of two.
fn put2(comptime name: []const u8, comptime f: anytype) void {
    const Made = struct {
        fn double(x: f64, y: f64) callconv(.c) f64 {
            return f(x, y);
        }
        fn single(x: f32, y: f32) callconv(.c) f32 {
            return @floatCast(f(@as(f64, x), @as(f64, y)));
        }
    };
    @export(&Made.double, .{ .name = name });
    @export(&Made.single, .{ .name = name ++ "f" });
}

comptime {
    put1("asin", math.asin);
    put1("acos", math.acos);
    put1("atan", math.atan);
    put2("atan2", math.atan2);
    put1("sinh", math.sinh);
    put1("cosh", math.cosh);
    put1("tanh", math.tanh);
    put1("asinh", math.asinh);
    put1("acosh", math.acosh);
    put1("atanh", math.atanh);
    put1("log1p", math.log1p);
    put1("expm1", math.expm1);
    put1("cbrt", math.cbrt);
    put2("hypot", math.hypot);
    put2("pow", pow);
    put1("tgamma", gamma);
    put1("lgamma", lgamma);
    put1("erf", erf);
    put1("erfc", erfc);
    put2("fdim", fdim);
    put2("copysign", copysign);
    put2("remainder", remainder);
    put1("nearbyint", nearest);
    put1("rint", nearest);
    put1("roundeven", nearest);
}

export fn nextafter(x: f64, y: f64) callconv(.c) f64 {
    return math.nextAfter(f64, x, y);
}
export fn nextafterf(x: f32, y: f32) callconv(.c) f32 {
    return math.nextAfter(f32, x, y);
}
export fn ldexp(x: f64, n: c_int) callconv(.c) f64 {
    return math.ldexp(x, n);
}
export fn ldexpf(x: f32, n: c_int) callconv(.c) f32 {
    return math.ldexp(x, n);
}

fn pow(x: f64, y: f64) f64 {
    return math.pow(f64, x, y);
}
fn gamma(x: f64) f64 {
    return math.gamma(f64, x);
}
fn lgamma(x: f64) f64 {
    return math.lgamma(f64, x);
}
fn copysign(x: f64, y: f64) f64 {
    return math.copysign(x, y);
}
fn fdim(x: f64, y: f64) f64 {
    return if (x <= y) 0 else x - y;
}

/// To the nearest integer, halves to even: above 2**52 there are only integers, and adding it rounds.
fn nearest(x: f64) f64 {
    const size = @abs(x);
    if (!(size < 0x1p52)) return x;
    return math.copysign((size + 0x1p52) - 0x1p52, x);
}

/// IEEE's remainder: x - n y for the integer n nearest to x / y, even where two are as near. Source: fdlibm's way.
fn remainder(x: f64, y: f64) f64 {
    if (math.isNan(x) or math.isNan(y) or math.isInf(x) or y == 0) return math.nan(f64);
    const b = @abs(y);
    var a = @abs(x);
    if (b <= math.floatMax(f64) / 2) a = @rem(a, b + b);
    if (b < 0x1p-1021) {
        if (a + a > b) {
            a -= b;
            if (a + a >= b) a -= b;
        }
    } else if (a > b / 2) {
        a -= b;
        if (a >= b / 2) a -= b;
    }
    return if (math.signbit(x)) -a else a;
}

const two_over_sqrt_pi: f64 = 1.128379167095512573896158903121545172;

/// Where the series of erf hands over to the continued fraction of erfc.
const middle = 2.0;

/// erf of 0 <= x < 2: a series whose terms all have one sign (Abramowitz and Stegun, 7.1.6).
fn erfSeries(x: f64) f64 {
    var term = x;
    var sum = x;
    var n: f64 = 1;
    while (term > sum * 0x1p-56) : (n += 1) {
        term *= 2 * x * x / (2 * n + 1);
        sum += term;
    }
    return two_over_sqrt_pi * @exp(-x * x) * sum;
}

/// erfc of x >= 1, by its continued fraction (Abramowitz and Stegun, 7.1.14) from the innermost of enough terms.
fn erfcFraction(x: f64) f64 {
    if (x > 27.3) return 0;
    var n: f64 = 20 + 240 / (x * x);
    n = @floor(n);
    var rest: f64 = x;
    while (n > 0) : (n -= 1) rest = x + n / 2 / rest;
    // the square in two parts, as an error of it would be multiplied by x
    const high: f64 = @floatCast(@as(f32, @floatCast(x)));
    const power = @exp(-high * high) * @exp(-(x - high) * (x + high));
    return power / rest * (two_over_sqrt_pi / 2.0);
}

fn erf(x: f64) f64 {
    if (math.isNan(x)) return x;
    const size = @abs(x);
    return math.copysign(if (size < middle) erfSeries(size) else 1 - erfcFraction(size), x);
}
fn erfc(x: f64) f64 {
    if (math.isNan(x)) return x;
    if (x < 0) return 1 + erf(-x);
    return if (x < 1) 1 - erfSeries(x) else erfcFraction(x);
}
