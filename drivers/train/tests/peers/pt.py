"""Opens an exported `.pt` in PyTorch, and compares it with the same model's `model.safetensors`, bit for bit.

    VENV/bin/python drivers/train/tests/peers/pt.py MODEL.pt FOLDER/model.safetensors
"""

import sys

import torch
from safetensors.torch import load_file


def main():
    ours = torch.load(sys.argv[1], weights_only=True)
    other = load_file(sys.argv[2])
    assert set(ours) == set(other), set(ours) ^ set(other)
    different = [name for name in ours if not torch.equal(ours[name], other[name])]
    assert not different, different
    print(f"{len(ours)} tensors are the same")


if __name__ == "__main__":
    main()
