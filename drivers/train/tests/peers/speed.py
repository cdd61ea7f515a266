"""Tokens per second of training in PyTorch, beside `examples/speed.rs`: the same shapes, batches and optimiser.

    VENV/bin/python drivers/train/tests/peers/speed.py [--threads 2] [--bf16] [nano mid vocabulary]

The model is nanoGPT's, with biases: one product for queries, keys and values, scaled_dot_product_attention, tied
embeddings, and a fused AdamW.
"""

import argparse
import time

import torch
from torch import nn
from torch.nn import functional as F

SHAPES = {"nano": (65, 4, 4, 128, 64, 12), "mid": (65, 6, 6, 384, 256, 8), "vocabulary": (8192, 4, 4, 256, 256, 8)}


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
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, tokens, targets):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.ln_f(x), self.wte.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("shapes", nargs="*")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name, (vocabulary, layers, heads, width, length, rows) in SHAPES.items():
        if args.shapes and name not in args.shapes:
            continue
        torch.manual_seed(1)
        model = GPT(vocabulary, layers, heads, width, length)
        groups = [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
        tokens = torch.randint(0, vocabulary, (rows, length))
        targets = torch.randint(0, vocabulary, (rows, length))

        def step():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16):
                loss = model(tokens, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            return loss.item()

        for _ in range(3):
            step()
        times, begin = [], time.perf_counter()
        while len(times) < 5 or time.perf_counter() - begin < 8:
            start = time.perf_counter()
            loss = step()
            times.append(time.perf_counter() - start)
        median = sorted(times)[len(times) // 2]
        count = sum(p.numel() for p in model.parameters())
        print(f"{name}: {count} parameters, {rows * length / median:.0f} tokens/s, {median * 1e3:.1f} ms a step "
              f"(median of {len(times)}), loss {loss:.4f}")


if __name__ == "__main__":
    main()
