"""The specification of a run, as the trainer reads it."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .callbacks import Callback, EarlyStopping, Samples
from .datasets import Dataset
from .losses import CrossEntropyLoss, Loss
from .optimizers import AdamW, Optimizer
from .schedules import Cosine, Schedule
from .tokenizers import Tokenizer


def specification(
    out: Path,
    model: Any,
    tokenizer: Tokenizer | None,
    data: Dataset,
    validation: Dataset | float | None,
    optimizer: Optimizer | None,
    loss: Loss | None,
    schedule: Schedule | None,
    callbacks: Iterable[Callback],
    order: str | None,
    packing: str | None,
    **rest: Any,
) -> dict[str, Any]:
    """What a run is. Data in memory are written into its folder, and what is not said has the trainer's default."""
    _check("data", data, Dataset, "such as datasets.from_list() and from_files() make")
    if isinstance(validation, Iterable):
        _check("validation", validation, Dataset, "such as datasets.from_list() makes, or a share such as 0.1")
    _check("optimizer", optimizer or AdamW(), Optimizer, "such as optimizers.Adam()")
    _check("loss", loss or CrossEntropyLoss(), Loss, "such as losses.CrossEntropyLoss()")
    _check("schedule", schedule or Cosine(), Schedule, "such as schedules.Cosine()")
    reading = said(order=order, packing=packing)
    spec: dict[str, Any] = {
        "out": str(out),
        "model": model,
        "data": {"train": data.source(out / "data"), "validation": _validation(validation, out), **reading},
        "optimiser": (optimizer or AdamW()).spec(),
        "schedule": (schedule or Cosine()).spec(),
        **(loss or CrossEntropyLoss()).spec(),
        **said(**rest),
    }
    if tokenizer is not None:
        spec["tokeniser"] = {"kind": tokenizer.spec()}
    for callback in callbacks:
        if isinstance(callback, EarlyStopping):
            if validation is None:
                raise ValueError("EarlyStopping goes by the loss on other data; give some, such as validation=0.1")
            spec["evaluation"] = {**spec.get("evaluation", {}), "patience": callback.patience}
        if isinstance(callback, Samples):
            every = {"every": callback.every, "prompt": callback.prompt}
            choice = {"temperature": callback.temperature, "top_k": callback.top_k}
            spec["samples"] = {**every, "tokens": callback.tokens, **choice}
    return spec


def _check(name: str, value: Any, kind: type, how: str) -> None:
    """Refuses what is of another kind, such as a text or a list."""
    if not isinstance(value, kind):
        found = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise TypeError(f"{name} of fit() is {found}; give a thing of the class {kind.__name__}, {how}")


def said(**values: Any) -> dict[str, Any]:
    """The values that are given."""
    return {name: value for name, value in values.items() if value is not None}


def device_of(device: str | None) -> Any:
    """What a run computes on, by PyTorch's names: ``"cpu"``, ``"cuda"`` or ``"cuda:1"``, ``"mps"`` or ``"metal"``."""
    if device is None or device == "cpu":
        return None if device is None else "Cpu"
    kind, _, number = device.partition(":")
    kinds = {"cuda": "Cuda", "metal": "Metal", "mps": "Metal"}
    if kind not in kinds or not (number or "0").isdecimal():
        raise ValueError(f"there is no device {device!r}; there is cpu, cuda, cuda:NUMBER and metal")
    return {kinds[kind]: int(number or 0)}


def ranks_of(ranks: int | Mapping[str, Any] | None) -> tuple[int | None, dict[str, Any] | None]:
    """How many ranks there are, and how the specification lays them out: so many data ranks, or as is said."""
    if ranks is None:
        return None, None
    if not isinstance(ranks, Mapping):
        return operator.index(ranks), None
    layout = dict(ranks)
    return math.prod(int(layout.get(axis, 1)) for axis in ("data", "tensor", "pipeline")), layout


def _validation(asked: Dataset | float | None, out: Path) -> Any:
    """What a run is evaluated on: data of their own, or a share of those that it is trained on."""
    if asked is None:
        return "None"
    if isinstance(asked, Dataset):
        return {"From": asked.source(out / "data" / "validation")}
    return {"Share": float(asked)}
