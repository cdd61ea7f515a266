"""Language models as processes of llmasos.

    import llmasos

    model = llmasos.models.GPT()
    model.fit(llmasos.datasets.load_dataset("wikitext-2"))
    print(model.generate_text("The city of"))

Everything is asked of a daemon over its Unix socket, which is started where none runs; `Client` makes each of its calls.
"""

from . import callbacks, datasets, losses, models, optimizers, schedules, tensors, tokenizers, tuning
from .client import Client
from .daemon import connect
from .errors import DatasetNotFound, Fault, LlmasosError, ProgramNotFound, TrainingError, TrainingInterrupted
from .history import History

__version__ = "0.1.0"

__all__ = [
    "Client",
    "DatasetNotFound",
    "Fault",
    "History",
    "LlmasosError",
    "ProgramNotFound",
    "TrainingError",
    "TrainingInterrupted",
    "callbacks",
    "connect",
    "datasets",
    "losses",
    "models",
    "optimizers",
    "schedules",
    "tensors",
    "tokenizers",
    "tuning",
]
