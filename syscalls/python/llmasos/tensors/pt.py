"""PyTorch's format, read without PyTorch: a zip with a pickle, of which nothing runs but what builds tensors."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .raw import WIDTHS, Raw
from .safetensors import check

#: The types of storages, by their names in PyTorch.
STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}


@dataclass(frozen=True)
class _Storage:
    dtype: str
    data: bytes


def load(path: str | Path) -> dict[str, Raw]:
    """Reads the dictionary of tensors that a file has."""
    try:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            unpickler = _Unpickler(io.BytesIO(archive.read(pickled)), archive, pickled.removesuffix("data.pkl"))
            found = unpickler.load()
    except (zipfile.BadZipFile, ValueError) as error:
        raise ValueError(f"{path} is no file of torch.save in its zip format: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Raw) for tensor in found.values()):
        raise ValueError(f"{path} has no dictionary of tensors; save model.state_dict() in PyTorch")
    for name, tensor in found.items():
        check(path, name, tensor)
    return dict(found)


def extra(path: str | Path, name: str) -> bytes | None:
    """A file that llmasos puts beside the tensors, where PyTorch does not look."""
    with zipfile.ZipFile(path) as archive:
        found = [entry for entry in archive.namelist() if entry.endswith(f"/extra/{name}")]
        return archive.read(found[0]) if found else None


class _Unpickler(pickle.Unpickler):
    """Builds tensors, and refuses everything else."""

    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self.archive = archive
        self.root = root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise ValueError(f"it has a {module}.{name}, which is no part of a dictionary of tensors")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, *_ = pid
        if kind != "storage":
            raise ValueError(f"it refers to a {kind!r}")
        return _Storage(dtype, self.archive.read(f"{self.root}data/{key}"))


def _tensor(storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Raw:
    """A part of a storage, in the order of its rows."""
    width = WIDTHS[storage.dtype]
    count, expected = 1, []
    for size in reversed(shape):
        expected.append(count)
        count *= size
    if all(have == want or size == 1 for have, want, size in zip(stride, reversed(expected), shape)):
        return Raw(storage.dtype, tuple(shape), storage.data[offset * width : (offset + count) * width])
    places = [offset]
    for size, step in zip(shape, stride):
        places = [place + step * index for place in places for index in range(size)]
    data = b"".join(storage.data[place * width : (place + 1) * width] for place in places)
    return Raw(storage.dtype, tuple(shape), data)
