"""The decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from ..errors import suggests
from ..tokenizers import Tokenizer
from .generation import Generation
from .model import tokenizer_of


class GPT(Generation):
    """A decoder: it goes on after a text. In the form of GPT-2, or of Llama (RMSNorm, rotary positions, SwiGLU).

    It has `layers` blocks of `heads` heads and `width` numbers for a token, `inner` between the products of the feed-forward
    layers, and reads `context` tokens. Heads of ``form="llama"`` share keys where there are fewer `kv_heads`. The vocabulary is
    that of `tokenizer`, or learned from the data; `vocabulary` gives the table more rows than that.
    """

    model_types: ClassVar[tuple[str, ...]] = ("gpt2", "llama", "mistral", "qwen2")

    @suggests
    def __init__(
        self,
        *,
        layers: int = 4,
        heads: int = 4,
        width: int = 128,
        inner: int | None = None,
        context: int = 128,
        dropout: float = 0.0,
        form: Literal["gpt2", "llama"] = "gpt2",
        kv_heads: int | None = None,
        vocabulary: int | None = None,
        tokenizer: Tokenizer | str | Path | None = None,
        seed: int = 1337,
    ) -> None:
        super().__init__(tokenizer_of(tokenizer), seed)
        if kv_heads is not None and form != "llama":
            raise ValueError("heads of GPT-2 share no keys; use form='llama' with kv_heads")
        self.form = form
        sizes = {"layers": layers, "heads": heads, "width": width, "context": context, "inner": inner}
        self._sizes: dict[str, Any] = {**sizes, "dropout": dropout, "vocabulary": vocabulary}
        if form == "llama":
            self._sizes["kv_heads"] = kv_heads

    def sizes(self) -> dict[str, Any]:
        return {"Llama" if self.form == "llama" else "Gpt": self._sizes}
