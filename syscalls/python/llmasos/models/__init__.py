"""The models: a decoder, an encoder, and an encoder-decoder."""

from .bert import BERT
from .generation import Generation
from .gpt import GPT
from .model import Model
from .transformer import Transformer

__all__ = ["BERT", "GPT", "Generation", "Model", "Transformer"]
