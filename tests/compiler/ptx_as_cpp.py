"""PTX → C++, statement by statement, for ``emulated_gpu/ptx.h``: what the generated PTX computes, without a GPU.

Written from NVIDIA's "Parallel Thread Execution ISA"; it knows the instructions that LLVM makes of generated kernels
and refuses any other. Registers are arrays of unsigned integers; an instruction reads and writes them as its type says.
"""

from __future__ import annotations

import re

_TYPES = {
    "b8": "uint8_t", "u8": "uint8_t", "s8": "int8_t", "b16": "uint16_t", "u16": "uint16_t", "s16": "int16_t",
    "b32": "uint32_t", "u32": "uint32_t", "s32": "int32_t", "b64": "uint64_t", "u64": "uint64_t", "s64": "int64_t",
    "f16": "half", "f32": "float", "f64": "double", "pred": "bool",
}  # fmt: skip
_TYPE = r"(?:[bus](?:8|16|32|64)|f(?:16|32|64)|pred)"
_REGISTER = re.compile(r"%(rs|rd|r|p)(\d+)$")
_SPECIAL = {"tid": "thread_index", "ctaid": "block_index", "ntid": "block_size", "nctaid": "grid_size"}
_GLOBAL = re.compile(r"^\.(?:visible )?\.?global \.align (\d+) \.b8 ([\w$]+)\[(\d+)\] = \{([^}]*)\};$", re.MULTILINE)
_FUNCTION = re.compile(
    r"^(?:\.visible )?\.(entry|func) *(?:\(([^)]*)\))? *([\w$]+)\(([^)]*)\)([^{};]*)(\{.*?^\}|;)",
    re.MULTILINE | re.DOTALL,
)
#: How LLVM takes half of a register: the other one goes to a register of this statement alone.
_UNUSED_HALF = re.compile(r"^\{ \.reg \.b16 (tmp); mov\.b32 \{([^}]*)\}, (%r\d+); \}$")
#: Opcode, without rounding and type, → function of ``ptx.h``; all operands and the result are of the type.
_PLAIN = {
    "add": "add", "sub": "sub", "mul": "mul", "mul.lo": "mul", "mul.hi": "mul_hi", "div": "quotient", "rem": "rest",
    "min": "minimum", "max": "maximum", "and": "bit_and", "or": "bit_or", "xor": "bit_xor", "not": "bit_not",
    "abs": "magnitude", "neg": "negated", "fma": "fused", "mad.lo": "mad", "sqrt": "root", "rcp": "inverse",
    "copysign": "with_sign", "prmt": "permute", "bfe": "extract", "mov": "same", "shf.l.wrap": "funnel",
}  # fmt: skip
_COMPARISONS = (
    "eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan", "lo", "ls", "hi", "hs",
)  # fmt: skip


def translate(ptx: str) -> str:
    """C++ with a ``run_NAME`` for each kernel. Raises ValueError for what it does not know."""
    ptx = re.sub(r"//[^\n]*", "", ptx)
    parts = ['#include "ptx.h"\n']
    for align, name, _, content in _GLOBAL.findall(ptx):
        parts.append(f"alignas({align}) static const unsigned char {name}[] = {{{content}}};\n")
    definitions = []
    for kind, results, name, parameters, _, body in _FUNCTION.findall(ptx):
        head = _head(kind, name, results, parameters)
        parts.append(f"{head};\n")
        if body != ";":
            bound = _entry_parameters(parameters) if kind == "entry" else ""
            definitions.append(f"{head} {{\n{bound}{_body(body[1:-1])}}}\n")
            if kind == "entry":
                definitions.append(f"CROSSFARM_RUN_PTX({name})\n")
    if not definitions:
        raise ValueError("no function in this PTX")
    return "".join([*parts, *definitions])


def _head(kind: str, name: str, results: str, parameters: str) -> str:
    if kind == "entry":
        return f"static void {name}(void **given)"
    names = re.findall(r"([\w$]+)(?:\[\d+\])?(?:,|$)", ",".join(p for p in (results.strip(), parameters.strip()) if p))
    return f"static void {name}({', '.join(f'unsigned char *{n}' for n in names)})"


def _entry_parameters(parameters: str) -> str:
    names = [p.split()[-1] for p in parameters.split(",") if p.strip()]
    return "".join(f"  unsigned char *{name} = (unsigned char *)given[{i}];\n" for i, name in enumerate(names))


def _body(text: str) -> str:
    lines: list[str] = []
    pending = ""
    for line in text.splitlines():
        pending = f"{pending} {' '.join(line.split())}".strip()
        pending = _UNUSED_HALF.sub(lambda m: f"mov.b32 {{{m[2]}}}, {m[3]};".replace(m[1], "_"), pending)
        if pending in ("{", "}") or pending.endswith((";", ":")):
            lines.append(_statement(pending))
            pending = ""
    if pending:
        raise ValueError(f"an unfinished statement: {pending}")
    # registers are declared before everything else, as a jump must not pass a declaration
    return "".join(f"  {line}\n" for line in lines)


def _statement(text: str) -> str:
    if text in ("{", "}"):
        return text
    if text.endswith(":"):
        return f"{_label(text[:-1])}:;"
    text = text.removesuffix(";").strip()
    if text.startswith(".pragma"):
        return ";"
    if text.startswith("."):
        return _declaration(text)
    guard = ""
    if text.startswith("@"):
        condition, text = text[1:].split(None, 1)
        negated = condition.startswith("!")
        guard = f"if ({'!' if negated else ''}{_operand(condition.removeprefix('!'), 'pred')}) "
    opcode, _, rest = text.partition(" ")
    return f"{guard}{{ {_instruction(opcode, _operands(rest))} }}"


def _declaration(text: str) -> str:
    register = re.match(r"\.reg \.(\w+)\s+%(\w+)<(\d+)>$", text)
    if register:
        dtype, name, count = register.groups()
        return f"{_TYPES[dtype]} {name}[{count}];"
    pointer = re.match(r"\.reg \.b64\s+%(SPL?)$", text)
    if pointer:
        return f"uint64_t {pointer.group(1)};"
    memory = re.match(r"\.(shared|local|param) (?:\.align (\d+) )?\.(\w+) ([\w$]+)(?:\[(\d+)\])?$", text)
    if memory:
        space, _, dtype, name, count = memory.groups()
        size = int(count or 1) * (1 if dtype == "b8" else int(dtype[1:]) // 8)
        return f"alignas(16) {'static ' if space == 'shared' else ''}unsigned char {name}[{size}];"
    raise ValueError(f"a declaration that is not known: {text}")


def _instruction(opcode: str, operands: list[str]) -> str:
    base, types = opcode, []
    while match := re.match(rf"(.+)\.({_TYPE})$", base):
        base = match.group(1)
        types.insert(0, match.group(2))
    if base in ("bra", "bra.uni"):
        return f"goto {_label(operands[0])};"
    if base == "ret":
        return "return;"
    if base in ("bar.sync", "barrier.sync"):
        return "emulated::barrier();"
    if base.startswith("call"):
        results, function, given = (operands[0], operands[1], operands[2]) if len(operands) == 3 else ("()", *operands)
        names = [n.strip() for part in (results, given) for n in part.strip("()").split(",") if n.strip()]
        return f"{function}({', '.join(names)});"
    if base.startswith(("ld.", "st.")):
        return _memory(base, types[0], operands)
    if base.startswith("setp."):
        comparison = base.split(".")[1]
        if comparison not in _COMPARISONS:
            raise ValueError(f"a comparison that is not known: {opcode}")
        a, b = (_operand(o, types[0]) for o in operands[1:])
        return f"{_operand(operands[0], 'pred')} = is_{comparison}({a}, {b});"
    if base == "selp":
        a, b, condition = operands[1], operands[2], _operand(operands[3], "pred")
        return _put(operands[0], f"{condition} ? {_operand(a, types[0])} : {_operand(b, types[0])}", types[0])
    if base == "mov" and "{" in "".join(operands):
        return _packed(operands, types[0])
    if base in ("shl", "shr"):
        function = "shift_left" if base == "shl" else "shift_right"
        amount = _operand(operands[2], "u32")
        return _put(operands[0], f"{function}({_operand(operands[1], types[0])}, {amount})", types[0])
    if base in ("popc", "clz"):
        return _put(operands[0], f"{base}({_operand(operands[1], types[0])})", "u32")
    if base in ("mul.wide", "mad.wide"):
        wide = f"{types[0][0]}{2 * int(types[0][1:])}"
        value = f"({_TYPES[wide]}){_operand(operands[1], types[0])} * {_operand(operands[2], types[0])}"
        more = f" + {_operand(operands[3], wide)}" if base == "mad.wide" else ""
        return _put(operands[0], value + more, wide)
    if base.startswith("cvta"):
        return _put(operands[0], _operand(operands[1], "u64"), "u64")
    if opcode == "cvt.rn.f16x2.f32":
        high, low = (f"(uint32_t)as<uint16_t>((half){_operand(o, 'f32')})" for o in operands[1:])
        return _put(operands[0], f"{high} << 16 | {low}", "b32")
    if base.startswith("cvt"):
        target, source = types
        rounding = base.split(".")[1] if "." in base else "plain"
        return _put(operands[0], f"convert_{rounding}<{_TYPES[target]}>({_operand(operands[1], source)})", target)
    plain = _PLAIN.get(base.removesuffix(".rn").removesuffix(".NaN"))
    if plain is None or len(types) != 1:
        raise ValueError(f"an instruction that is not known: {opcode} {', '.join(operands)}")
    values = ", ".join(_operand(o, types[0]) for o in operands[1:])
    return _put(operands[0], f"{plain}({values})", types[0])


def _memory(base: str, dtype: str, operands: list[str]) -> str:
    load = base.startswith("ld.")
    space = base.split(".")[1]
    if space not in ("global", "shared", "local", "param"):
        raise ValueError(f"memory that is not known: {base}")
    register, address = operands if load else reversed(operands)
    names = [n.strip() for n in register.strip("{}").split(",")] if register.startswith("{") else [register]
    inside = address.strip("[]")
    offset = re.match(r"(.+?)(?:\+(-?\d+))?$", inside)
    assert offset is not None
    at = f"{_operand(offset.group(1), 'u64')} + ({offset.group(2) or 0})"
    width = int(dtype[1:]) // 8
    steps = []
    for k, name in enumerate(names):
        element = f"memory<{_TYPES[dtype]}>({at} + {k * width}, {width * len(names) if k == 0 else width})"
        if name != "_":
            steps.append(_put(name, element, dtype) if load else f"{element} = {_operand(name, dtype)};")
    return " ".join(steps)


def _packed(operands: list[str], dtype: str) -> str:
    """``mov`` between a register and several of its parts."""
    target, source = operands
    parts = [n.strip() for n in (target if target.startswith("{") else source).strip("{}").split(",")]
    width = int(dtype[1:]) // len(parts)
    if target.startswith("{"):
        whole = _operand(source, f"b{dtype[1:]}")
        return " ".join(
            _put(part, f"(uint{width}_t)({whole} >> {k * width})", f"b{width}")
            for k, part in enumerate(parts)
            if part != "_"
        )
    joined = " | ".join(f"(uint{dtype[1:]}_t){_operand(p, f'b{width}')} << {k * width}" for k, p in enumerate(parts))
    return _put(target, joined, dtype)


def _put(register: str, value: str, dtype: str) -> str:
    return f"put({_name(register)}, ({_TYPES[dtype]})({value}));"


def _name(register: str) -> str:
    if register in ("%SP", "%SPL"):
        return register[1:]
    match = _REGISTER.match(register)
    if match is None:
        raise ValueError(f"a register that is not known: {register}")
    return f"{match.group(1)}[{match.group(2)}]"


def _operand(text: str, dtype: str) -> str:
    """An expression of the C++ type of ``dtype``."""
    text = text.strip()
    type_ = _TYPES[dtype]
    if _REGISTER.match(text) or text in ("%SP", "%SPL"):
        return f"as<{type_}>({_name(text)})" if dtype != "pred" else _name(text)
    if text.startswith("%"):
        name, _, axis = text[1:].partition(".")
        return f"emulated::{_SPECIAL[name]}.{axis}"
    if re.match(r"0[fF][0-9A-Fa-f]{8}$", text):
        return f"as<{type_}>((uint32_t)0x{text[2:]}u)"
    if re.match(r"0[dD][0-9A-Fa-f]{16}$", text):
        return f"as<{type_}>((uint64_t)0x{text[2:]}ull)"
    if re.match(r"-?(0x[0-9A-Fa-f]+|\d+)$", text):
        bits = {"f16": "uint16_t", "f32": "uint32_t", "f64": "uint64_t"}.get(dtype)
        suffix = "ull" if not text.startswith("-") else "ll"
        if text == "-9223372036854775808":
            text, suffix = "(-9223372036854775807ll - 1)", ""
        return f"as<{type_}>(({bits}){text}{suffix})" if bits else f"({type_})({text}{suffix})"
    if re.match(r"[\w$]+$", text):
        return f"(uint64_t){text}"
    raise ValueError(f"an operand that is not known: {text}")


def _operands(text: str) -> list[str]:
    """Split at commas outside of brackets."""
    found, depth, current = [], 0, ""
    for c in text:
        depth += (c in "{[(") - (c in "}])")
        if c == "," and depth == 0:
            found.append(current.strip())
            current = ""
        else:
            current += c
    return [*found, current.strip()] if current.strip() else found


def _label(text: str) -> str:
    return text.strip().replace("$", "_")
