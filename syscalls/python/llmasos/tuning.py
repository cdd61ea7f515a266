"""Which parts of a model are trained; without one of these, all are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import named


class Tuning:
    """One of the classes here."""

    def spec(self) -> Any:
        """What the trainer is told."""
        raise NotImplementedError


class Frozen(Tuning):
    """All but the parameters that have one of these in their names, such as ``Frozen("h.0.", "wte")``."""

    def __init__(self, *parts: str) -> None:
        self.parts = parts

    def spec(self) -> Any:
        return {"Frozen": list(self.parts)}


@named
@dataclass(frozen=True)
class Lora(Tuning):
    """Low-rank adapters beside linear layers, and an encoder's head.

    `layers` are parts of the names of the layers that get one, such as ``["q_proj", "v_proj"]``; all where it is empty. A
    model that is trained so has its adapters merged into its weights.
    """

    rank: int = 8
    alpha: float = 16.0
    layers: Iterable[str] = ()

    def spec(self) -> Any:
        return {"Lora": {"rank": self.rank, "alpha": self.alpha, "layers": list(self.layers)}}
