"""How a run went."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class History:
    """The entries of a run's log. `folder` has the log, the curve, and the checkpoints."""

    folder: Path
    entries: list[dict[str, Any]] = field(default_factory=list)

    def _of(self, event: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["event"] == event]

    @property
    def steps(self) -> list[int]:
        """The steps that `loss` is of."""
        return [entry["step"] for entry in self._of("step")]

    @property
    def loss(self) -> list[float]:
        """The losses on the training data."""
        return [entry["loss"] for entry in self._of("step")]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """What evaluations found: `step`, `loss`, `perplexity`, `best`."""
        return self._of("evaluation")

    @property
    def val_loss(self) -> list[float]:
        """The losses on the validation data."""
        return [entry["loss"] for entry in self.evaluations]

    @property
    def samples(self) -> list[str]:
        """Texts that the model wrote while it learned."""
        return [entry["text"] for entry in self._of("sample")]

    def plot(self, path: str | Path | None = None, ax: Any = None) -> Any:
        """The loss over the steps: into a file that ends with .svg or .png, or into matplotlib's axes."""
        if path is not None:
            ending = Path(path).suffix
            if ending not in (".svg", ".png"):
                raise ValueError(f"the curve is there as .svg and .png; {path} ends with {ending!r}")
            return Path(shutil.copyfile(self._curve(ending), path))
        if ax is None:
            from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]

            ax = pyplot.gca()
        ax.plot(self.steps, self.loss, label="training")
        ax.plot([entry["step"] for entry in self.evaluations], self.val_loss, label="validation")
        ax.set_xlabel("step")
        ax.set_ylabel("loss")
        ax.legend()
        return ax

    def _curve(self, ending: str) -> Path:
        curve = self.folder / f"curve{ending}"
        if not curve.exists():
            raise FileNotFoundError(f"{curve} is not there: it is drawn at evaluations, and there was none")
        return curve

    def _repr_svg_(self) -> str | None:
        curve = self.folder / "curve.svg"
        return curve.read_text() if curve.exists() else None

    def __repr__(self) -> str:
        last = f"loss {self.loss[-1]:.3f}" if self.loss else "no step"
        best = f", best validation loss {min(self.val_loss):.3f}" if self.val_loss else ""
        return f"<History of {self.folder}: step {self.steps[-1] if self.steps else 0}, {last}{best}>"
