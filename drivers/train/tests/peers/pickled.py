"""Makes a state as `torch.save` pickles it, with what such files have in them, which src/import/folder.rs reads.

    VENV/bin/python drivers/train/tests/peers/pickled.py drivers/train/tests/fixtures/pytorch_model.bin
"""

import sys
from collections import OrderedDict

import torch

numbers = torch.arange(6, dtype=torch.float32).reshape(2, 3)
state = OrderedDict(
    [
        ("plain", numbers),
        ("turned", (numbers * 2).t()),
        ("part", torch.arange(12, dtype=torch.float32)[4:10].reshape(2, 3)),
        ("tied", numbers),
        ("half", numbers.to(torch.float16)),
        ("brain", numbers.to(torch.bfloat16)),
        ("a.LayerNorm.gamma", torch.nn.Parameter(torch.ones(3))),
        ("positions", torch.arange(4)),
    ]
)
state._metadata = OrderedDict([("", {"version": 1})])
torch.save(state, sys.argv[1])
