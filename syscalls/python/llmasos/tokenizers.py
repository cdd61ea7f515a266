"""How text becomes tokens: vocabularies that are learned from the training data, or read from a ``tokenizer.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Tokenizer:
    """One of the classes here."""

    def spec(self) -> Any:
        """What the trainer is told."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Learned(Tokenizer):
    size: int = 8192

    def spec(self) -> Any:
        return {"Train": {type(self).__name__.capitalize(): self.size}}


class BPE(_Learned):
    """Byte-pair encoding on bytes, as GPT-2's."""


class Unigram(_Learned):
    """A unigram model, as T5's."""


class WordPiece(_Learned):
    """WordPiece, as BERT's."""

    def spec(self) -> Any:
        return {"Train": {"WordPiece": self.size}}


class Char(Tokenizer):
    """A token for each character of the training data."""

    def spec(self) -> Any:
        return {"Train": "Char"}


class Byte(Tokenizer):
    """A token for each byte."""

    def spec(self) -> Any:
        return {"Train": "Byte"}


@dataclass(frozen=True)
class Load(Tokenizer):
    """A ``tokenizer.json``, or that of a folder."""

    path: str | Path

    def spec(self) -> Any:
        return {"Load": str(Path(self.path).resolve())}
