"""Rules that change parameters. The defaults are PyTorch's, apart from AdamW's, which are those of language models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import named


@named
@dataclass(frozen=True)
class ParamGroup:
    """Parameters that are trained with a rate, betas or a weight decay of their own: those with one of `names` in their
    names, such as ``ParamGroup(["wte", "h.0."], lr=1e-4)``. What is not said is the optimiser's; `betas` are for Adam and
    AdamW.

    A parameter belongs to the first group that names it. The schedule goes for all groups. Biases and norms decay where
    `decay_biases` says so.
    """

    names: Iterable[str]
    lr: float | None = None
    weight_decay: float | None = None
    decay_biases: bool = False
    betas: tuple[float, float] | None = None

    def spec(self) -> dict[str, Any]:
        """What the trainer is told."""
        names = [self.names] if isinstance(self.names, str) else [str(name) for name in self.names]
        own = {"lr": self.lr, "weight_decay": self.weight_decay, "decay_biases": self.decay_biases}
        return {"names": names, "betas": None if self.betas is None else list(self.betas), **own}


#: Groups, or the arguments of each.
ParamGroups = Iterable["ParamGroup | Mapping[str, Any]"]


class Optimizer:
    """One of :class:`Adam`, :class:`AdamW` and :class:`SGD`."""

    def spec(self) -> dict[str, Any]:
        """What the trainer is told."""
        raise NotImplementedError


@named
@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015); its weight decay adds to the gradients.

    `betas` say how much of the means of gradients and of their squares a step keeps, each from 0 on and below 1; `eps` is
    added to the root of the mean square.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    param_groups: ParamGroups = ()

    def spec(self) -> dict[str, Any]:
        return {"Adam": _adam(self)}


@named
@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam whose weight decay is apart from the gradients (Loshchilov and Hutter, 2019). Biases and norms do not decay.

    The arguments are :class:`Adam`'s.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.1
    param_groups: ParamGroups = ()

    def spec(self) -> dict[str, Any]:
        return {"AdamW": _adam(self)}


@named
@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent, with `momentum` where it is not 0, and that of Nesterov with `nesterov`. Its weight decay adds to the
    gradients.
    """

    lr: float = 0.1
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    param_groups: ParamGroups = ()

    def spec(self) -> dict[str, Any]:
        fields = ("lr", "momentum", "nesterov", "weight_decay")
        return {"Sgd": {**{name: getattr(self, name) for name in fields}, "groups": _groups(self.param_groups)}}


def _adam(rule: Adam | AdamW) -> dict[str, Any]:
    own = {"lr": rule.lr, "betas": list(rule.betas), "epsilon": rule.eps, "weight_decay": rule.weight_decay}
    return {**own, "groups": _groups(rule.param_groups)}


def _groups(groups: ParamGroups) -> list[dict[str, Any]]:
    return [(group if isinstance(group, ParamGroup) else ParamGroup(**group)).spec() for group in groups]
