"""A tensor as files have it: a type, a shape, and bytes in the order of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Bytes of a number, by the types of safetensors.
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}


@dataclass(frozen=True)
class Raw:
    """A tensor."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def numpy(self) -> Any:
        """As a numpy array; numbers of bfloat16, which numpy does not have, become 32 bits."""
        numpy = require_numpy()
        if self.dtype == "BF16":
            wide = numpy.frombuffer(self.data, "<u2").astype("<u4") << 16
            return wide.view("<f4").reshape(self.shape)
        kind = "?" if self.dtype == "BOOL" else NUMPY[self.dtype]
        return numpy.frombuffer(self.data, kind).reshape(self.shape).copy()

    @classmethod
    def of(cls, value: Any) -> Raw:
        """Of a numpy array, or of a tensor of PyTorch."""
        numpy = require_numpy()
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
        found = numpy.ascontiguousarray(value)
        kinds = {numpy.dtype(kind): name for name, kind in NUMPY.items()} | {numpy.dtype("?"): "BOOL"}
        if found.dtype not in kinds:
            raise TypeError(f"a tensor of {found.dtype} has no form in a file; give float32, float16 or float64")
        return cls(kinds[found.dtype], numpy.shape(value), found.tobytes())


def require_numpy() -> Any:
    """numpy, or how to get it."""
    try:
        import numpy
    except ImportError as error:
        raise ImportError("weights come as numpy arrays, and numpy is not installed: pip install numpy") from error
    return numpy
