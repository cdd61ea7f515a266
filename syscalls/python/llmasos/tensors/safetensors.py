"""The format safetensors: a header in JSON, and the bytes of all tensors behind it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from .raw import WIDTHS, Raw

#: The longest header that is read, as that of the format's own library.
HEADER_BYTES_MAX = 100_000_000


def load(path: str | Path) -> dict[str, Raw]:
    """Reads a file."""
    with Path(path).open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else HEADER_BYTES_MAX + 1
        if length > HEADER_BYTES_MAX:
            raise ValueError(f"{path} is no safetensors: its header has {length} bytes of at most {HEADER_BYTES_MAX}")
        header = json.loads(file.read(length))
        body = file.read()
    tensors = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        start, end = about["data_offsets"]
        tensor = Raw(about["dtype"], tuple(about["shape"]), body[start:end])
        check(path, name, tensor)
        tensors[name] = tensor
    return tensors


def save(tensors: dict[str, Raw], path: str | Path) -> None:
    """Writes a file."""
    header, offset = {}, 0
    for name, tensor in sorted(tensors.items()):
        end = offset + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    # So that the tensors are where they can be mapped.
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, tensor in sorted(tensors.items()):
            file.write(tensor.data)


def check(path: str | Path, name: str, tensor: Raw) -> None:
    """Checks that a tensor has the bytes of its shape."""
    if tensor.dtype not in WIDTHS:
        raise ValueError(f"{path}: tensor {name} is of the type {tensor.dtype}; there is {', '.join(WIDTHS)}")
    wanted = WIDTHS[tensor.dtype]
    for size in tensor.shape:
        wanted *= size
    if len(tensor.data) != wanted:
        shape = list(tensor.shape)
        raise ValueError(f"{path}: tensor {name} has {len(tensor.data)} bytes, and its shape {shape} takes {wanted}")
