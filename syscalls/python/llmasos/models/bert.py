"""The encoder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from .. import tensors
from ..errors import suggests
from ..tokenizers import Tokenizer
from .model import ASKED_TOGETHER, Model, tokenizer_of

#: Texts of which the daemon makes vectors in one call.
EMBEDDED_TOGETHER = 1024


class BERT(Model):
    """An encoder: it guesses hidden words, tells classes, finds answers in texts, and turns texts into vectors.

    What it learns depends on the data: hidden words from text, classes of texts from labelled ones and of words from tagged
    ones, answers from questions, and vectors from pairs of texts that mean alike. Sizes are those of :class:`GPT`; `context`
    is how many tokens of a text, or of a question and a part of its text, it reads.
    """

    model_types: ClassVar[tuple[str, ...]] = ("bert",)

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
        vocabulary: int | None = None,
        tokenizer: Tokenizer | str | Path | None = None,
        seed: int = 1337,
    ) -> None:
        super().__init__(tokenizer_of(tokenizer), seed)
        sizes = {"layers": layers, "heads": heads, "width": width, "context": context, "inner": inner}
        self._sizes: dict[str, Any] = {**sizes, "dropout": dropout, "vocabulary": vocabulary}

    def sizes(self) -> dict[str, Any]:
        return {"Bert": self._sizes}

    def embed(self, texts: str | Iterable[str]) -> Any:
        """Vectors of length 1, a row for each text: a numpy array, or lists without numpy. For one text, one vector."""
        rows = [texts] if isinstance(texts, str) else [str(text) for text in texts]
        mount = self._mounted()
        together = ASKED_TOGETHER if mount is None else EMBEDDED_TOGETHER
        vectors: list[Any] = []
        for first in range(0, len(rows), together):
            part = rows[first : first + together]
            if mount is not None:
                vectors += mount.client.call("embed", model=mount.name, texts=part)
            else:
                vectors += self._ask(task="embed", texts=part)["vectors"]
        return tensors.array(vectors[0] if isinstance(texts, str) else vectors)

    @suggests
    def fill_mask(self, text: str, top_k: int = 5) -> list[dict[str, Any]]:
        """Guesses the token at ``[MASK]``: `token`, `score`, and the whole `text` with it, the likeliest first."""
        masks: list[list[dict[str, Any]]] = self._ask(task="fill_mask", text=text, top_k=top_k)["masks"]
        if len(masks) > 1:
            raise ValueError(f"the text has {len(masks)} masks; give one at a time")
        return masks[0]

    def classify(self, text: str, second: str | None = None) -> list[dict[str, Any]]:
        """The classes of a text, or of two: `label` and `score`, the likeliest first.

        After `BCEWithLogitsLoss` each score is how likely the class is by itself, and after `MSELoss` the only one is the
        number.
        """
        labels: list[dict[str, Any]] = self._ask(task="classify", text=text, second=second)["labels"]
        return labels

    def tag(self, text: str) -> list[dict[str, Any]]:
        """The class of each word of a text: `word`, `label`, `score`, `start`, `end`. For models that learned from tagged
        texts."""
        words: list[dict[str, Any]] = self._ask(task="tag", text=text)["words"]
        return words

    def answer(self, question: str, context: str) -> dict[str, Any]:
        """Where a text answers a question: `answer`, `start`, `end`, `score`. For models that learned from questions, such
        as those of `BertForQuestionAnswering`."""
        return self._ask(task="answer", question=question, context=context)
