"""How the learning rate changes from step to step. All begin with a warm-up from 0."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .errors import named


class Schedule:
    """One of :class:`Constant`, :class:`Linear` and :class:`Cosine`."""

    def spec(self) -> dict[str, Any]:
        """What the trainer is told."""
        return {type(self).__name__: asdict(self)}  # type: ignore[call-overload]


@named
@dataclass(frozen=True)
class Constant(Schedule):
    """It stays."""

    warmup: int = 0


@named
@dataclass(frozen=True)
class Linear(Schedule):
    """It goes down to `floor` times itself, evenly."""

    warmup: int = 0
    floor: float = 0.0


@named
@dataclass(frozen=True)
class Cosine(Schedule):
    """It goes down to `floor` times itself along half a wave."""

    warmup: int = 100
    floor: float = 0.1
