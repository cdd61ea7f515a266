"""Text from a mounted model, or from a process that has it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import suggests
from .model import ASKED_TOGETHER, Model


#: Prompts that are gone on after at the same time.
TOGETHER = 16


class Generation(Model):
    """A model that writes text."""

    @suggests
    def generate_text(
        self,
        prompt: str | Iterable[str],
        max_tokens: int = 100,
        *,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        seed: int | None = None,
    ) -> Any:
        """What comes after a prompt, or from an encoder-decoder its answer. `temperature=0` takes the likeliest token.

        For a list of prompts it is a list of texts, which are computed together; each has one more as its `seed` than the
        one before.
        """
        sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        texts = [prompt] if isinstance(prompt, str) else [str(text) for text in prompt]
        if self._mounted() is not None:
            written = self._written(texts, max_tokens, sampling, seed)
        else:
            written = self._answered(texts, max_tokens, sampling, seed)
        return written[0] if isinstance(prompt, str) else written

    @suggests
    def stream_text(
        self,
        prompt: str,
        max_tokens: int = 100,
        *,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The same, piece by piece as it comes. A model that is not mounted gives it in one."""
        sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        if self._mounted() is None:
            yield self.generate_text(prompt, max_tokens, seed=seed, **sampling)  # type: ignore[arg-type]
            return
        yield from self._stream(prompt, max_tokens, sampling, seed)

    def _written(
        self, prompts: list[str], max_tokens: int, sampling: dict[str, Any], seed: int | None
    ) -> list[str]:
        """Texts by the mounted model, so many at a time that the daemon computes together."""
        written: list[str] = []
        for first in range(0, len(prompts), TOGETHER):
            part = prompts[first : first + TOGETHER]
            seeds = [None if seed is None else seed + first + number for number in range(len(part))]
            streams = [self._stream(prompt, max_tokens, sampling, own) for prompt, own in zip(part, seeds)]
            # All have begun before the first is read to its end.
            begun = [next(stream, "") for stream in streams]
            written += [head + "".join(stream) for head, stream in zip(begun, streams)]
        return written

    def _answered(
        self, prompts: list[str], max_tokens: int, sampling: dict[str, Any], seed: int | None
    ) -> list[str]:
        """Texts by a process that has the model."""
        seed = random.getrandbits(62) if seed is None else seed
        written: list[str] = []
        for first in range(0, len(prompts), ASKED_TOGETHER):
            part = prompts[first : first + ASKED_TOGETHER]
            answer = self._ask(task="generate", text=part, max_tokens=max_tokens, seed=seed + first, **sampling)
            written += [text["text"] for text in answer["texts"]]
        return written

    def _stream(
        self, prompt: str, max_tokens: int, sampling: dict[str, Any], seed: int | None
    ) -> Iterator[str]:
        mount = self._mounted()
        assert mount is not None, "the caller has looked"
        client = mount.client
        tokens = client.call("tokenize", model=mount.name, text=prompt, bos=True)
        if not tokens:
            # The daemon goes on with what is there; with what a text begins, the trainer knows.
            yield from self._answered([prompt], max_tokens, sampling, seed)
            return
        opened = client.call("open", model=mount.name)
        context = opened["context"]
        try:
            # As the trainer reads one: what it says depends on the end of a long text, and one token must have room.
            room = max(opened["tokens_max"] - 1, 1)
            client.call("append", context=context, tokens=tokens[-room:])
            sampling = {**sampling, "min_p": 0.0}
            if seed is not None:
                sampling["seed"] = seed
            for event in client.generate(context=context, max_tokens=max_tokens, sampling=sampling):
                if "event" in event and event.get("text"):
                    yield event["text"]
        finally:
            client.call("close", context=context)
