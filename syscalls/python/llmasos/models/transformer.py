"""The encoder-decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from ..errors import suggests
from ..tokenizers import Tokenizer
from .generation import Generation
from .model import tokenizer_of
from .running import Mount


class Transformer(Generation):
    """An encoder-decoder: it reads one text and writes another. In its original form (Vaswani et al., 2017), or T5's.

    On plain text it learns how a text goes on; on pairs, such as translations, to write the second of the first. Sizes are
    those of :class:`GPT`, with `layers` on each side; `context` is how many tokens of each side it reads.
    """

    model_types: ClassVar[tuple[str, ...]] = ("marian", "t5")

    @suggests
    def __init__(
        self,
        *,
        layers: int = 2,
        heads: int = 4,
        width: int = 128,
        inner: int | None = None,
        context: int = 64,
        dropout: float = 0.0,
        form: Literal["original", "t5"] = "original",
        vocabulary: int | None = None,
        tokenizer: Tokenizer | str | Path | None = None,
        seed: int = 1337,
    ) -> None:
        super().__init__(tokenizer_of(tokenizer), seed)
        self.form = form
        sizes = {"layers": layers, "heads": heads, "width": width, "context": context, "inner": inner}
        self._sizes: dict[str, Any] = {**sizes, "dropout": dropout, "vocabulary": vocabulary}

    def sizes(self) -> dict[str, Any]:
        return {"T5" if self.form == "t5" else "Transformer": self._sizes}

    def _mounted(self) -> Mount | None:
        # The daemon's drivers run no encoder-decoders.
        return None
