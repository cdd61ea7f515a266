"""Text from a mounted model, or from a process that has it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from ..errors import suggests
from .model import Model


class Generation(Model):
    """A model that writes text."""

    @suggests
    def generate_text(
        self,
        prompt: str,
        max_tokens: int = 100,
        *,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        seed: int | None = None,
    ) -> str:
        """What comes after a prompt, or from an encoder-decoder its answer. `temperature=0` takes the likeliest token."""
        sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        if self._mounted() is not None:
            return "".join(self._stream(prompt, max_tokens, {**sampling, "min_p": 0.0, "seed": seed}))
        seed = random.getrandbits(63) if seed is None else seed
        answer = self._ask(task="generate", text=prompt, max_tokens=max_tokens, seed=seed, **sampling)
        text: str = answer["text"]
        return text

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
        yield from self._stream(prompt, max_tokens, {**sampling, "min_p": 0.0, "seed": seed})

    def _stream(self, prompt: str, max_tokens: int, sampling: dict[str, Any]) -> Iterator[str]:
        mount = self._mounted()
        assert mount is not None, "the caller has looked"
        client = mount.client
        context = client.call("open", model=mount.name)["context"]
        try:
            client.call("append", context=context, text=prompt)
            sampling = {name: value for name, value in sampling.items() if value is not None}
            for event in client.generate(context=context, max_tokens=max_tokens, sampling=sampling):
                if "event" in event and event.get("text"):
                    yield event["text"]
        finally:
            client.call("close", context=context)
