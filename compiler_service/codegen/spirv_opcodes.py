"""Numbers of the SPIR-V specification that the generator uses: instructions, decorations, capabilities, and the rest.

Source: Khronos, "SPIR-V Specification", version 1.3 unified, sections 2.3 and 3; "SPIR-V Extended Instructions for
GLSL", version 1.00.
"""

from __future__ import annotations

from enum import IntEnum

MAGIC = 0x07230203
VERSION_1_3 = 0x00010300


class Op(IntEnum):
    """Instructions."""

    NAME = 5
    EXTENSION = 10
    EXT_INST_IMPORT = 11
    EXT_INST = 12
    MEMORY_MODEL = 14
    ENTRY_POINT = 15
    EXECUTION_MODE = 16
    CAPABILITY = 17
    TYPE_VOID = 19
    TYPE_BOOL = 20
    TYPE_INT = 21
    TYPE_FLOAT = 22
    TYPE_VECTOR = 23
    TYPE_ARRAY = 28
    TYPE_RUNTIME_ARRAY = 29
    TYPE_STRUCT = 30
    TYPE_POINTER = 32
    TYPE_FUNCTION = 33
    CONSTANT_TRUE = 41
    CONSTANT_FALSE = 42
    CONSTANT = 43
    CONSTANT_COMPOSITE = 44
    FUNCTION = 54
    FUNCTION_PARAMETER = 55
    FUNCTION_END = 56
    FUNCTION_CALL = 57
    VARIABLE = 59
    LOAD = 61
    STORE = 62
    ACCESS_CHAIN = 65
    DECORATE = 71
    MEMBER_DECORATE = 72
    COMPOSITE_CONSTRUCT = 80
    COMPOSITE_EXTRACT = 81
    COPY_OBJECT = 83
    CONVERT_F_TO_U = 109
    CONVERT_F_TO_S = 110
    CONVERT_S_TO_F = 111
    CONVERT_U_TO_F = 112
    U_CONVERT = 113
    S_CONVERT = 114
    F_CONVERT = 115
    BITCAST = 124
    S_NEGATE = 126
    F_NEGATE = 127
    I_ADD = 128
    F_ADD = 129
    I_SUB = 130
    F_SUB = 131
    I_MUL = 132
    F_MUL = 133
    U_DIV = 134
    S_DIV = 135
    F_DIV = 136
    U_MOD = 137
    U_MUL_EXTENDED = 151
    LOGICAL_EQUAL = 164
    LOGICAL_NOT_EQUAL = 165
    LOGICAL_OR = 166
    LOGICAL_AND = 167
    LOGICAL_NOT = 168
    SELECT = 169
    I_EQUAL = 170
    I_NOT_EQUAL = 171
    U_GREATER_THAN = 172
    S_GREATER_THAN = 173
    U_GREATER_THAN_EQUAL = 174
    S_GREATER_THAN_EQUAL = 175
    U_LESS_THAN = 176
    S_LESS_THAN = 177
    U_LESS_THAN_EQUAL = 178
    S_LESS_THAN_EQUAL = 179
    F_ORD_EQUAL = 180
    F_UNORD_NOT_EQUAL = 183
    F_ORD_LESS_THAN = 184
    F_ORD_GREATER_THAN = 186
    F_ORD_LESS_THAN_EQUAL = 188
    F_ORD_GREATER_THAN_EQUAL = 190
    SHIFT_RIGHT_LOGICAL = 194
    SHIFT_RIGHT_ARITHMETIC = 195
    SHIFT_LEFT_LOGICAL = 196
    BITWISE_OR = 197
    BITWISE_XOR = 198
    BITWISE_AND = 199
    NOT = 200
    BIT_FIELD_S_EXTRACT = 202
    BIT_COUNT = 205
    CONTROL_BARRIER = 224
    PHI = 245
    LOOP_MERGE = 246
    SELECTION_MERGE = 247
    LABEL = 248
    BRANCH = 249
    BRANCH_CONDITIONAL = 250
    RETURN = 253
    RETURN_VALUE = 254


class Glsl(IntEnum):
    """Instructions of ``GLSL.std.450``."""

    ROUND_EVEN = 2
    TRUNC = 3
    F_ABS = 4
    S_ABS = 5
    FLOOR = 8
    CEIL = 9
    SQRT = 31
    INVERSE_SQRT = 32
    U_MIN = 38
    S_MIN = 39
    U_MAX = 41
    S_MAX = 42
    FMA = 50
    UNPACK_HALF_2X16 = 62
    FIND_U_MSB = 75


class Capability(IntEnum):
    SHADER = 1
    FLOAT16 = 9
    FLOAT64 = 10
    INT64 = 11
    INT16 = 22
    INT8 = 39
    STORAGE_BUFFER_16BIT_ACCESS = 4433
    STORAGE_BUFFER_8BIT_ACCESS = 4448
    SIGNED_ZERO_INF_NAN_PRESERVE = 4466
    ROUNDING_MODE_RTE = 4467


class Decoration(IntEnum):
    BLOCK = 2
    ARRAY_STRIDE = 6
    BUILT_IN = 11
    RESTRICT = 19
    ALIASED = 20
    COHERENT = 23
    NON_WRITABLE = 24
    BINDING = 33
    DESCRIPTOR_SET = 34
    OFFSET = 35
    NO_CONTRACTION = 42


class Storage(IntEnum):
    """Storage classes."""

    INPUT = 1
    WORKGROUP = 4
    FUNCTION = 7
    PUSH_CONSTANT = 9
    STORAGE_BUFFER = 12


class Mode(IntEnum):
    """Execution modes."""

    LOCAL_SIZE = 17
    SIGNED_ZERO_INF_NAN_PRESERVE = 4461
    ROUNDING_MODE_RTE = 4462


class BuiltIn(IntEnum):
    WORKGROUP_ID = 26
    LOCAL_INVOCATION_ID = 27


ADDRESSING_LOGICAL = 0
MEMORY_GLSL450 = 1
EXECUTION_GL_COMPUTE = 5
SCOPE_WORKGROUP = 2
#: AcquireRelease, of storage buffers (UniformMemory) and of what the group shares (WorkgroupMemory).
BARRIER_SEMANTICS = 0x8 | 0x40 | 0x100
NO_CONTROL = 0
LOOP_UNROLL = 1
