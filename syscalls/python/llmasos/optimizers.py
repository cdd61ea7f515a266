"""Rules that change parameters. The defaults are PyTorch's, apart from AdamW's, which are those of language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import named


class Optimizer:
    """One of :class:`Adam`, :class:`AdamW` and :class:`SGD`."""

    def spec(self) -> dict[str, Any]:
        """What the trainer is told."""
        raise NotImplementedError


@named
@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015); its weight decay adds to the gradients."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0

    def spec(self) -> dict[str, Any]:
        return {"Adam": _adam(self)}


@named
@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam whose weight decay is apart from the gradients (Loshchilov and Hutter, 2019). Biases and norms do not decay."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.1

    def spec(self) -> dict[str, Any]:
        return {"AdamW": _adam(self)}


@named
@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent, with momentum where it is not 0."""

    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def spec(self) -> dict[str, Any]:
        fields = ("lr", "momentum", "nesterov", "weight_decay")
        return {"Sgd": {name: getattr(self, name) for name in fields}}


def _adam(rule: Adam | AdamW) -> dict[str, Any]:
    return {"lr": rule.lr, "betas": list(rule.betas), "epsilon": rule.eps, "weight_decay": rule.weight_decay}
