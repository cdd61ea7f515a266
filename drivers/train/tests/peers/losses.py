"""Compares the validation losses that BERT and the Transformer reach with those of the same configurations in PyTorch.

    VENV/bin/pip install torch
    VENV/bin/python drivers/train/tests/peers/losses.py target/release/llmasos-trainer input.txt [SEED …]

Both sides have the same sizes, text, vocabulary (of characters), optimiser, schedule, steps and first values' distribution.
They draw examples and first values by generators of their own, so the losses are those of two seeds, and not the same.
BERT guesses 15 % of the characters; the Transformer reads a text and writes how it goes on.
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

LAYERS, HEADS, WIDTH, LENGTH = 2, 4, 128, 64
BATCH, STEPS, WARMUP, RATE, FLOOR, DECAY, BETAS, CLIP = 16, 2000, 100, 1e-3, 0.1, 0.1, (0.9, 0.99), 1.0
MASKED, IGNORE = 0.15, -100


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x, source, causal):
        split = lambda t: t.view(t.shape[0], -1, HEADS, WIDTH // HEADS).transpose(1, 2)
        y = F.scaled_dot_product_attention(split(self.q(x)), split(self.k(source)), split(self.v(source)), is_causal=causal)
        return self.out(y.transpose(1, 2).reshape(x.shape))


class Layer(nn.Module):
    """A block with its norms behind the sums."""

    def __init__(self, activation, epsilon, decoder=False):
        super().__init__()
        self.itself, self.norm = Attention(), nn.LayerNorm(WIDTH, epsilon)
        self.source, self.source_norm = (Attention(), nn.LayerNorm(WIDTH, epsilon)) if decoder else (None, None)
        self.up, self.down, self.last = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH), nn.LayerNorm(WIDTH, epsilon)
        self.activation = activation

    def forward(self, x, memory=None):
        x = self.norm(x + self.itself(x, x, self.source is not None))
        if self.source is not None:
            x = self.source_norm(x + self.source(x, memory, False))
        return self.last(x + self.down(self.activation(self.up(x))))


class Bert(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.words, self.places, self.types = (nn.Embedding(n, WIDTH) for n in (vocabulary, LENGTH, 2))
        self.norm = nn.LayerNorm(WIDTH, 1e-12)
        self.layers = nn.ModuleList(Layer(F.gelu, 1e-12) for _ in range(LAYERS))
        self.transform, self.head_norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH, 1e-12)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x):
        x = self.norm(self.words(x) + self.places.weight[: x.shape[1]] + self.types.weight[0])
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.head_norm(F.gelu(self.transform(x))), self.words.weight, self.bias)


class Transformer(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.words = nn.Embedding(vocabulary, WIDTH)
        self.encoder = nn.ModuleList(Layer(F.relu, 1e-5) for _ in range(LAYERS))
        self.decoder = nn.ModuleList(Layer(F.relu, 1e-5, decoder=True) for _ in range(LAYERS))
        angles = torch.arange(LENGTH)[:, None] / 10_000 ** (torch.arange(0, WIDTH, 2) / WIDTH)
        self.register_buffer("places", torch.cat([angles.sin(), angles.cos()], 1))

    def forward(self, source, target):
        embed = lambda x: self.words(x) * math.sqrt(WIDTH) + self.places[: x.shape[1]]
        memory, x = embed(source), embed(target)
        for layer in self.encoder:
            memory = layer(memory)
        for layer in self.decoder:
            x = layer(x, memory)
        return F.linear(x, self.words.weight)


def first_values(module):
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def hidden(blocks, vocabulary):
    """Framed blocks with some characters hidden, and what they were: 0 to 4 are [PAD], [UNK], [CLS], [SEP] and [MASK]."""
    chosen = torch.rand(blocks.shape) < MASKED
    targets = torch.where(chosen, blocks, IGNORE)
    fate, any_token = torch.rand(blocks.shape), torch.randint(vocabulary, blocks.shape)
    seen = torch.where(chosen & (fate < 0.8), 4, torch.where(chosen & (fate >= 0.9), any_token, blocks))
    framed = F.pad(F.pad(seen, (1, 0), value=2), (0, 1), value=3)
    return framed, F.pad(targets, (1, 1), value=IGNORE)


def halves(blocks):
    """What is read, what is written, and what is to be written: 0 and 1 are <pad> and </s>."""
    source, target = blocks.chunk(2, 1)
    return F.pad(source, (0, 1), value=1), F.pad(target, (1, 0), value=0), F.pad(target, (0, 1), value=1)


def of_torch(kind, text, seed):
    """The loss on all of the validation text."""
    torch.manual_seed(seed)
    special = 5 if kind == "Bert" else 3
    number = {c: special + i for i, c in enumerate(sorted(set(text)))}
    tokens, vocabulary = torch.tensor([number[c] for c in text]), special + len(number)
    cut = int(len(tokens) * 0.9)
    model = {"Bert": Bert, "Transformer": Transformer}[kind](vocabulary)
    model.apply(first_values)
    length = LENGTH - 2 if kind == "Bert" else 2 * (LENGTH - 1)

    def loss(blocks, reduction):
        if kind == "Bert":
            seen, targets = hidden(blocks, vocabulary)
            logits = model(seen)
        else:
            source, target, targets = halves(blocks)
            logits = model(source, target)
        flat = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction=reduction)
        return flat, int((targets != IGNORE).sum())

    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=RATE, betas=BETAS)
    for step in range(STEPS):
        part = (step - WARMUP) / (STEPS - WARMUP)
        low = FLOOR * RATE
        falling = low + 0.5 * (1 + math.cos(math.pi * part)) * (RATE - low)
        rate = RATE * (step + 1) / (WARMUP + 1) if step < WARMUP else falling
        for group in adam.param_groups:
            group["lr"] = rate
        begins = torch.randint(cut - length, (BATCH,))
        adam.zero_grad()
        loss(torch.stack([tokens[at : at + length] for at in begins]), "mean")[0].backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        adam.step()
    rest = tokens[cut:]
    blocks = rest[: len(rest) // length * length].view(-1, length)
    with torch.no_grad():
        sums = [loss(part, "sum") for part in blocks.split(BATCH)]
    return float(sum(s for s, _ in sums)) / sum(n for _, n in sums)


def of_trainer(trainer, kind, path, seed):
    """The same by llmasos-trainer."""
    with tempfile.TemporaryDirectory() as folder:
        spec = {
            "model": {kind: {"layers": LAYERS, "heads": HEADS, "width": WIDTH, "context": LENGTH, "dropout": 0.0}},
            "data": {"train": {"Text": [str(path)]}, "validation": {"Share": 0.1}, "order": "Random"},
            "tokeniser": {"kind": {"Train": "Char"}},
            "optimiser": {"AdamW": {"lr": RATE, "betas": BETAS, "weight_decay": DECAY}},
            "schedule": {"Cosine": {"warmup": WARMUP, "floor": FLOOR}},
            "batch": BATCH, "steps": STEPS, "clip": CLIP, "masked": MASKED, "seed": seed, "threads": 1,
            "evaluation": {"every": STEPS, "batches": None},
            "out": f"{folder}/run",
        }
        cache = ["--cache", f"{folder}/cache"]
        subprocess.run([trainer, "run", "--json", json.dumps(spec), "--alone", "--quiet", *cache], check=True)
        entries = [json.loads(line) for line in Path(folder, "run/log.jsonl").read_text().splitlines()]
        return [entry["loss"] for entry in entries if entry["event"] == "evaluation"][-1]


def main():
    trainer, path, *seeds = sys.argv[1:]
    torch.set_num_threads(1)
    text = Path(path).read_text(encoding="utf-8")
    for kind in ("Bert", "Transformer"):
        for seed in map(int, seeds or ["1337", "1", "2"]):
            ours, theirs = of_trainer(trainer, kind, Path(path).resolve(), seed), of_torch(kind, text, seed)
            print(f"{kind}, seed {seed}: {ours:.3f} here, {theirs:.3f} in PyTorch", flush=True)


if __name__ == "__main__":
    main()
