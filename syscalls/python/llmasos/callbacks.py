"""What is told how a run goes on, and may end it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Callback:
    """Its methods are called with the entries of the run's log. One that returns `False` ends it, with a checkpoint."""

    def on_begin(self, folder: Path) -> bool | None:
        """The run begins; `folder` is its folder."""

    def on_step(self, entry: dict[str, Any]) -> bool | None:
        """Steps were done: `step`, `steps`, `loss`, `rate`, `norm`, `tokens`, `tokens_per_s`, `eta_s`."""

    def on_evaluation(self, entry: dict[str, Any]) -> bool | None:
        """The model was evaluated: `step`, `loss`, `perplexity`, `best`, and for classes and answers `accuracy`."""

    def on_sample(self, entry: dict[str, Any]) -> bool | None:
        """The model wrote a text: `step`, `text`."""

    def on_checkpoint(self, entry: dict[str, Any]) -> bool | None:
        """A checkpoint was written: `step`; or could not be: `error`."""

    def on_end(self, entry: dict[str, Any]) -> bool | None:
        """The run is over: `step`, `reason`."""


@dataclass(frozen=True)
class EarlyStopping(Callback):
    """Ends the run after so many evaluations without a better loss, so `fit` needs data for validation."""

    patience: int = 3


@dataclass(frozen=True)
class Samples(Callback):
    """Has the model write a text each `every` steps; they are shown beside the progress, and are in the history.

    A `temperature` of 0 takes the likeliest tokens; `top_k` is how many of the likeliest are chosen among, all where it is 0.
    """

    every: int = 250
    prompt: str = "\n"
    tokens: int = 60
    temperature: float = 0.8
    top_k: int = 200
