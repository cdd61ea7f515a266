"""Weights in files: ``.safetensors`` and ``.pt``, read and written without PyTorch."""

from .folder import array, config, links, read, replace, unpack
from .pt import load as load_pt
from .safetensors import load as load_safetensors
from .safetensors import save as save_safetensors

__all__ = [
    "array",
    "config",
    "links",
    "load_pt",
    "load_safetensors",
    "read",
    "replace",
    "save_safetensors",
    "unpack",
]
