"""A loop around a native function that runs without the interpreter, for measuring functions of a few nanoseconds.

Agents have no compiler, so the loop is a few dozen bytes of machine code, written out below with its assembly, in a
page that is made executable. Where the system allows no such page or the architecture has no code here, there is none,
and measurements say that their loop was interpreted.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import sys
from collections.abc import Callable
from typing import Any

# int32_t loop(int32_t (*f)(void *, uint64_t *), void *workspace, uint64_t *slots, uint64_t n)
# calls f n times and stops at the first status that is not zero, which it returns.
_X86_64_SYSV = bytes.fromhex(
    "53"  # push rbx
    "55"  # push rbp
    "4154"  # push r12
    "4155"  # push r13
    "50"  # push rax            ; aligns the stack
    "4889fb"  # mov rbx, rdi
    "4889f5"  # mov rbp, rsi
    "4989d4"  # mov r12, rdx
    "4989cd"  # mov r13, rcx
    "31c0"  # xor eax, eax
    "4d85ed"  # test r13, r13
    "7411"  # jz done
    # again:
    "4889ef"  # mov rdi, rbp
    "4c89e6"  # mov rsi, r12
    "ffd3"  # call rbx
    "85c0"  # test eax, eax
    "7505"  # jnz done
    "49ffcd"  # dec r13
    "75ef"  # jnz again
    # done:
    "59"  # pop rcx
    "415d"  # pop r13
    "415c"  # pop r12
    "5d"  # pop rbp
    "5b"  # pop rbx
    "c3"  # ret
)

_AARCH64 = b"".join(
    word.to_bytes(4, "little")
    for word in (
        0xA9BD7BFD,  # stp x29, x30, [sp, #-48]!
        0xA90153F3,  # stp x19, x20, [sp, #16]
        0xA9025BF5,  # stp x21, x22, [sp, #32]
        0xAA0003F3,  # mov x19, x0
        0xAA0103F4,  # mov x20, x1
        0xAA0203F5,  # mov x21, x2
        0xAA0303F6,  # mov x22, x3
        0x52800000,  # mov w0, #0
        0xB40000F6,  # cbz x22, done
        # again:
        0xAA1403E0,  # mov x0, x20
        0xAA1503E1,  # mov x1, x21
        0xD63F0260,  # blr x19
        0x35000060,  # cbnz w0, done
        0xF10006D6,  # subs x22, x22, #1
        0x54FFFF61,  # b.ne again
        # done:
        0xA9425BF5,  # ldp x21, x22, [sp, #32]
        0xA94153F3,  # ldp x19, x20, [sp, #16]
        0xA8C37BFD,  # ldp x29, x30, [sp], #48
        0xD65F03C0,  # ret
    )
)

_CODE = {"x86_64": _X86_64_SYSV, "aarch64": _AARCH64}


def repeater(function: Any) -> Callable[[Any, Any, int], int] | None:
    """``f(workspace, slots, n)`` that calls the native ``function`` n times and returns its first nonzero status."""
    loop = _loop()
    if loop is None:
        return None
    address = ctypes.cast(function, ctypes.c_void_p)
    return lambda workspace, slots, number: int(loop(address, workspace, slots, ctypes.c_uint64(number)))


@functools.cache
def _loop() -> Any:
    """The loop as a function of this process, None where there can be none."""
    code = _CODE.get(platform.machine())
    if code is None or sys.platform != "linux":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except (OSError, ValueError):
        return None  # the system allows no memory that is writable and executable
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    libc_clear = getattr(ctypes.CDLL(None), "__clear_cache", None)
    if libc_clear is not None:
        libc_clear(ctypes.c_void_p(address), ctypes.c_void_p(address + len(code)))
    elif platform.machine() == "aarch64":
        return None  # its instruction cache does not see what was written
    loop: Any = ctypes.CFUNCTYPE(ctypes.c_int32)(address)
    loop.page = page  # lives as long as the function
    return loop
