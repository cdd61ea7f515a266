"""Models as folders in the Hugging Face layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from . import pt, safetensors
from .raw import Raw

WEIGHTS = "model.safetensors"

#: What PyTorch keeps among the weights, and models here compute: Marian's sinusoidal positions.
COMPUTED = ("encoder.embed_positions.weight", "decoder.embed_positions.weight")


def config(folder: Path) -> dict[str, Any]:
    """The configuration of a model."""
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no config.json; give the folder of a model in the Hugging Face layout")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def read(folder: Path) -> dict[str, Any]:
    """The weights of a model, as numpy arrays."""
    return {name: tensor.numpy() for name, tensor in _weights(folder).items()}


def links(folder: Path) -> list[str]:
    """The files that links in a folder lead to: hubs keep those of a model elsewhere, and a jail goes by where files are."""
    return sorted({str(path.resolve()) for path in folder.iterdir() if path.is_symlink() and path.exists()})


def unpack(path: Path, folder: Path) -> None:
    """Makes a folder of a ``.pt`` that has the configuration and the vocabulary in it."""
    tensors = pt.load(path)
    for name in ("config.json", "tokenizer.json"):
        data = pt.extra(path, name)
        if data is None:
            raise ValueError(f"{path} has weights and no {name}; load() takes what save() has written")
        (folder / name).write_bytes(data)
    safetensors.save(tensors, folder / WEIGHTS)


def replace(folder: Path, state: dict[str, Any], to: Path) -> None:
    """Writes the model of a folder into another one, with other weights.

    PyTorch has tensors under several names where these are one, such as a table that is the output layer, too.
    """
    before = _weights(folder)
    after = {name: Raw.of(value) for name, value in state.items()}
    for name in sorted(after.keys() - before.keys()):
        if _is_spare(name, after[name], [after[own] for own in before.keys() & after.keys()]):
            del after[name]
    for name in sorted(before.keys() ^ after.keys()):
        raise ValueError(f"{name} is in one of the model and the dictionary, and not in both")
    for name, tensor in after.items():
        if tensor.shape != before[name].shape:
            raise ValueError(
                f"{name} has the shape {list(tensor.shape)}, and the model's is {list(before[name].shape)}"
            )
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        if (folder / file).exists():
            shutil.copyfile(folder / file, to / file)
    safetensors.save(after, to / WEIGHTS)


def _is_spare(name: str, tensor: Raw, own: list[Raw]) -> bool:
    """Whether a tensor is one of the model's under another name, or none that is trained: positions and masks."""
    return tensor in own or tensor.dtype in ("I64", "I32", "U8", "BOOL") or name.endswith(COMPUTED)


def array(numbers: Any) -> Any:
    """Lists of numbers as an array, where numpy is there."""
    try:
        import numpy
    except ImportError:
        return numbers
    return numpy.asarray(numbers, dtype="float32")


def _weights(folder: Path) -> dict[str, Raw]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}")
    found: dict[str, Raw] = {}
    for file in files:
        found.update(safetensors.load(file))
    return found
