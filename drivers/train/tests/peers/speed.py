"""Tokens per second and memory of training in PyTorch, for `examples/speed.rs`: the same shapes, batches and optimiser.

    VENV/bin/python drivers/train/tests/peers/speed.py [--threads 2] [--precision bf16] [--cuda 0] nano

The model is nanoGPT's, with biases: one product for queries, keys and values, scaled_dot_product_attention, tied
embeddings, and a fused AdamW.
"""

import argparse
import json
import time

import torch
from torch import nn
from torch.nn import functional as F

SHAPES = {"nano": (65, 4, 4, 128, 64, 12), "mid": (65, 6, 6, 384, 256, 8), "vocabulary": (8192, 4, 4, 256, 256, 8)}

# Steps before the clock runs, and steps whose losses are compared.
COLD, COMPARED = 3, 10


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        rows, length, width = x.shape
        split = lambda t: t.view(rows, length, self.heads, width // self.heads).transpose(1, 2)
        q, k, v = map(split, self.c_attn(self.ln_1(x)).split(width, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).contiguous().view(rows, length, width))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, vocabulary, layers, heads, width, length):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                last = name.endswith(("c_proj", "c_out"))
                nn.init.normal_(module.weight, std=0.02 / (2 * layers) ** 0.5 if last else 0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, tokens, targets):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def status(name):
    """A figure of this process's memory, in MiB."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def measure(name, threads, precision, seconds, card):
    torch.set_num_threads(threads)
    kind = "cpu" if card is None else "cuda"
    torch.set_default_device(kind if card is None else f"cuda:{card}")
    torch.manual_seed(1)
    # What PyTorch loads for its first product belongs to the program, and not to the model.
    (torch.ones(64, 64, requires_grad=True) @ torch.ones(64, 64)).sum().backward()
    begun = status("VmRSS")
    vocabulary, layers, heads, width, length, rows = SHAPES[name]
    model = GPT(vocabulary, layers, heads, width, length)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
    # The same tokens as in speed.rs.
    all_tokens = torch.tensor([(i * 2_654_435_761 % 2**32 >> 8) % vocabulary for i in range(rows * length + 1)])
    tokens, targets = all_tokens[:-1].view(rows, length), all_tokens[1:].view(rows, length)

    def step():
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return loss.item()

    times, number, clock = [], 0, time.perf_counter()
    while number <= COMPARED or time.perf_counter() - clock < seconds:
        start = time.perf_counter()
        now = step()
        if number < COLD:
            clock = time.perf_counter()
        else:
            times.append(time.perf_counter() - start)
        if number == COMPARED:
            loss = now
        number += 1
    peak = status("VmHWM")
    median = sorted(times)[len(times) // 2]
    return {
        "tokens_per_second": rows * length / median,
        "loss": loss,
        "peak_mib": peak,
        "grown_mib": peak - begun,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--cuda", type=int)
    parser.add_argument("shape", choices=SHAPES)
    args = parser.parse_args()
    print(json.dumps(measure(args.shape, args.threads, args.precision, args.seconds, args.cuda)))


if __name__ == "__main__":
    main()
