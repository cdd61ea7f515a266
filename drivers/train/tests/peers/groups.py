"""Makes the reference values of optimisers with groups of parameters, which src/optim/tests.rs compares with.

    VENV/bin/python drivers/train/tests/peers/groups.py drivers/train/tests/fixtures/groups.safetensors

Weights begin at random, and each step has random gradients, of which a schedule's share of each group's rate is taken.
"""

import math
import sys

import torch
from safetensors.torch import save_file

STEPS, WARMUP, FLOOR = 20, 4, 0.1
SHAPES = {"h.0.attn.weight": (5, 3), "h.0.norm.bias": (5,), "wte.weight": (7, 3), "head.weight": (4, 3), "head.bias": (4,),
          "norm.weight": (3,), "h.1.attn.weight": (3, 2)}
RULES = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
}


def share(step):
    """Up in a straight line, then down along half a wave."""
    if step < WARMUP:
        return (step + 1) / (WARMUP + 1)
    part = (step - WARMUP) / (STEPS - WARMUP)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * part))


def groups(weights):
    """What biases and norms are in is apart, so that they do not decay."""
    def of(*names, **options):
        return {"params": [weights[name] for name in names], **options}
    return [
        of("wte.weight", lr=0.003),
        of("h.0.attn.weight", weight_decay=0.3),
        of("h.0.norm.bias", "norm.weight", weight_decay=0.0),
        of("head.weight", "head.bias", lr=0.05, weight_decay=0.2),
        of("h.1.attn.weight"),
    ]


def main():
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float64)
    begin = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    gradients = {name: torch.randn(STEPS, *shape) for name, shape in SHAPES.items()}
    out = {f"weight:{name}": tensor for name, tensor in begin.items()}
    out |= {f"gradient:{name}": tensor for name, tensor in gradients.items()}
    for rule, make in RULES.items():
        weights = {name: tensor.clone().requires_grad_() for name, tensor in begin.items()}
        optimiser = make(groups(weights))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        for step in range(STEPS):
            for name, weight in weights.items():
                weight.grad = gradients[name][step].clone()
            optimiser.step()
            schedule.step()
        out |= {f"{rule}:{name}": weight.detach() for name, weight in weights.items()}
    save_file({name: tensor.contiguous() for name, tensor in out.items()}, sys.argv[1])


if __name__ == "__main__":
    main()
