"""ONNX's element types and crossfarm's dtypes."""

from __future__ import annotations

from crossfarm.errors import InvalidModule

#: TensorProto.DataType → dtype. Integers of two and four bits are held in a byte each.
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip
ELEMENT_TYPES = {dtype: number for number, dtype in DTYPES.items()}
#: Types of a constant that are unpacked to a wider dtype when it is read: number → dtype.
UNPACKED = {21: "uint8", 22: "int8", 25: "uint8", 26: "int8"}


def dtype_of(element_type: int, what: str) -> str:
    """The dtype of an ONNX element type. Raises InvalidModule, naming ``what`` has it, where there is none."""
    try:
        return DTYPES[element_type]
    except KeyError:
        raise InvalidModule(
            f"{what} has elements of type {name_of(element_type)}, which crossfarm does not have",
            hint=f"cast them to one of {', '.join(ELEMENT_TYPES)} when the model is exported",
        ) from None


def name_of(element_type: int) -> str:
    """What ONNX calls the element type."""
    from onnx import TensorProto

    known = TensorProto.DataType.items()
    return next((name for name, number in known if number == element_type), str(element_type))
