"""What is made small. The trainer computes all of them; which data each is for, it says itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import named


class Loss:
    """One of the classes here."""

    def spec(self) -> dict[str, Any]:
        """What the trainer is told."""
        raise NotImplementedError


@named
@dataclass(frozen=True)
class CrossEntropyLoss(Loss):
    """The cross-entropy of what comes out and what should: next tokens, hidden tokens or classes.

    `label_smoothing` gives this share of each target's probability to all classes evenly; `masked` is the share of tokens
    that an encoder has to guess. `weight` has a number for each class of texts or of words, by name, and 1 for those that it
    leaves out. A target with the label `ignore_index` counts for nothing.
    """

    label_smoothing: float = 0.0
    masked: float = 0.15
    weight: Mapping[str, float] | None = None
    ignore_index: int | str = -100

    def spec(self) -> dict[str, Any]:
        own: dict[str, Any] = {"label_smoothing": self.label_smoothing, "masked": self.masked}
        ignored = None if self.ignore_index == -100 else str(self.ignore_index)
        if self.weight or ignored is not None:
            weights = {str(label): float(weight) for label, weight in (self.weight or {}).items()}
            own["loss"] = {"CrossEntropy": {"weights": weights, "ignore": ignored}}
        return own


@named
@dataclass(frozen=True)
class MSELoss(Loss):
    """The square of how far a number that a text is labelled with is missed: ``from_labelled([("a text", 0.7), …])``."""

    def spec(self) -> dict[str, Any]:
        return {"loss": "MeanSquaredError"}


@named
@dataclass(frozen=True)
class BCEWithLogitsLoss(Loss):
    """The cross-entropy of each class by itself: ``from_labelled([("a text", ["sports", "politics"]), …])``."""

    def spec(self) -> dict[str, Any]:
        return {"loss": "BinaryCrossEntropy"}


@named
@dataclass(frozen=True)
class MultipleNegativesRankingLoss(Loss):
    """For vectors of texts: the second of each pair is to be nearer to its first than the seconds of all other pairs of the
    batch. Similarities are multiplied with `scale`. It is what an encoder learns from pairs where no loss is given.
    """

    scale: float = 20.0

    def spec(self) -> dict[str, Any]:
        return {"loss": {"MultipleNegativesRanking": {"scale": self.scale}}}


@named
@dataclass(frozen=True)
class CosineSimilarityLoss(Loss):
    """For vectors of texts: the square of how far the cosine of two is from a number:
    ``from_labelled([("a text", "another", 0.8), …])``.
    """

    def spec(self) -> dict[str, Any]:
        return {"loss": "CosineSimilarity"}
