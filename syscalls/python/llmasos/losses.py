"""What is made small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import named


@named
@dataclass(frozen=True)
class CrossEntropyLoss:
    """The cross-entropy of what comes out and what should: next tokens, hidden tokens or classes.

    `label_smoothing` gives this share of each target's probability to all classes evenly; `masked` is the share of tokens
    that an encoder has to guess.
    """

    label_smoothing: float = 0.0
    masked: float = 0.15

    def spec(self) -> dict[str, Any]:
        """What the trainer is told."""
        return {"label_smoothing": self.label_smoothing, "masked": self.masked}
