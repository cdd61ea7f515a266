"""What all models are: sizes before training, and a folder in the Hugging Face layout after it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from .. import daemon, fitting, tensors, trainer
from ..callbacks import Callback
from ..datasets import Dataset
from ..errors import Fault, LlmasosError, TrainingError, suggests
from ..history import History
from ..losses import Loss
from ..optimizers import Optimizer
from ..progress import Progress
from ..schedules import Schedule
from ..specification import device_of, ranks_of, said, specification
from ..tokenizers import Load, Tokenizer
from ..tuning import Tuning
from .running import Mount, Predictor

M = TypeVar("M", bound="Model")

#: Texts of one question to a process that has a model: what it computes together, and an answer has room for.
ASKED_TOGETHER = 32

#: What `save` writes, by the ending of the name.
FORMATS = {".pt": "pt", ".pth": "pt", ".safetensors": "safetensors", ".gguf": "gguf", "": "hf"}


class Model:
    """A model that can be trained, saved, loaded and used."""

    #: Types of models in `config.json` that this class is for.
    model_types: ClassVar[tuple[str, ...]] = ()
    #: Examples that are computed together, and steps, where `fit` is not told.
    batch_size: ClassVar[int] = 32
    steps: ClassVar[int] = 1000

    def __init__(self, tokenizer: Tokenizer | None = None, seed: int = 1337) -> None:
        self.tokenizer = tokenizer
        self.seed = seed
        #: The trained model, in the Hugging Face layout.
        self.folder: Path | None = None
        self.history: History | None = None
        self._gguf: Path | None = None
        self._mount: Mount | None = None
        self._predictor: Predictor | None = None

    def sizes(self) -> dict[str, Any]:
        """The model of a specification, where nothing was trained before."""
        raise NotImplementedError

    # Training

    @suggests
    def fit(
        self,
        data: Dataset,
        optimizer: Optimizer | None = None,
        loss: Loss | None = None,
        *,
        validation: Dataset | float | None = 0.1,
        epochs: float | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        accumulate: int = 1,
        schedule: Schedule | None = None,
        clip: float = 1.0,
        tune: Tuning | None = None,
        callbacks: Iterable[Callback] = (),
        folder: str | Path | None = None,
        resume: str | Path | None = None,
        class_: str = "batch",
        nice: int | None = None,
        threads: int | None = None,
        precision: str | None = None,
        recompute: bool | None = None,
        order: str | None = None,
        packing: str | None = None,
        evaluation_every: int | None = None,
        evaluation_batches: int | None = None,
        checkpoint_every: int | None = None,
        checkpoint_keep: int | None = None,
        context: int | None = None,
        device: str | None = None,
        memory_mib: int | None = None,
        ranks: int | Mapping[str, Any] | None = None,
        verbose: bool = True,
    ) -> History:
        """Trains the model, as a process of the daemon, and says beforehand how long that will take.

        Without `epochs` and `steps`, it is trained for 1,000 steps of 32 examples. `validation` is other data, or the
        share at the end of the data that is not trained on; the weights with the least loss on it are kept. `clip` is what
        the gradients' norm is cut to, 0 for never. `folder` gets
        the log, the curve and the checkpoints (``runs/…`` where it is not given). Ctrl-C ends the run with a checkpoint,
        and ``resume=folder`` goes on from it. `tune` freezes parts of the model, or trains adapters beside it.

        `precision` is ``"F32"`` or ``"Bf16"``; with `recompute` blocks are computed again instead of being kept, which
        saves memory. `order` is ``"Shuffled"``, ``"Sequential"`` or ``"Random"``, and with ``packing="Apart"`` documents of
        a row do not see each other. `context` makes rows shorter than the model reads, in tokens; of a model that was trained
        before they have 1,024 at most without it. `device` is ``"cpu"``, ``"cuda:0"`` or ``"metal"``, where the programs were
        built with it, and `memory_mib` is what the run may take there. The last `checkpoint_keep` checkpoints stay, and the
        best. Evaluations and checkpoints come every so many steps. ``ranks=2`` trains over two
        threads that each have a part of every batch, and ``ranks={"tensor": 2}`` as the specification has it.
        """
        callbacks = list(callbacks)
        out = Path(resume or folder or _run_folder(type(self).__name__)).resolve()
        _check_run(out, resume is not None)
        progress = Progress(verbose)
        count, layout = ranks_of(ranks)
        with contextlib.ExitStack() as held:
            with _folder_of_run(out):
                spec = specification(
                    out,
                    self._model_spec(),
                    self._own_tokenizer(),
                    data,
                    validation,
                    optimizer,
                    loss,
                    schedule,
                    callbacks,
                    order,
                    packing,
                    batch=self.batch_size if batch_size is None else batch_size,
                    accumulate=accumulate,
                    steps=steps if steps is not None or epochs is not None else self.steps,
                    epochs=epochs,
                    clip=clip,
                    tune=None if tune is None else tune.spec(),
                    seed=self.seed,
                    threads=threads,
                    precision=precision,
                    recompute=recompute,
                    evaluation=said(every=evaluation_every, batches=evaluation_batches) or None,
                    checkpoint=said(every=checkpoint_every, keep=checkpoint_keep) or None,
                    context=context,
                    device=device_of(device),
                    memory_mib=memory_mib,
                    ranks=layout,
                )
                spec = trainer.resolve(spec)
                # A connection of its own: a run that is interrupted leaves calls under way.
                client = held.enter_context(daemon.connect(name="fit"))
                if verbose:
                    expected = trainer.expectation(spec, out / "cache", client.socket_path, count, class_)
                    progress.note(f"training in {out}\n{expected}")
            run = fitting.Run(client, out, callbacks, progress)
            run.start(spec, resume is not None, class_=class_, nice=nice, ranks=count)
            self.history = run.finish()
        self.close()
        shutil.rmtree(out / "model", ignore_errors=True)
        trainer.export(out, out / "model", "hf")
        self.folder, self._gguf = out / "model", None
        return self.history

    def _model_spec(self) -> Any:
        trained = self._gguf or self.folder
        return {"Pretrained": str(trained)} if trained is not None else self.sizes()

    def _own_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of a specification. What is trained keeps its vocabulary: one that is learned from other data would
        give its numbers to other tokens."""
        trained = self._gguf is not None or self.folder is not None
        return None if trained and not isinstance(self.tokenizer, Load) else self.tokenizer

    # Files

    def save(self, path: str | Path) -> None:
        """Writes the model: ``.pt`` (PyTorch reads it), ``.safetensors``, ``.gguf``, or a Hugging Face folder.

        A ``.pt`` has the configuration and the vocabulary in it, so that `load` needs nothing else.
        """
        path = Path(path)
        if path.suffix not in FORMATS:
            endings = ", ".join(filter(None, FORMATS))
            raise ValueError(f"no format ends with {path.suffix!r}; there is {endings}, and without a dot a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        trainer.export(self._trained(), path, FORMATS[path.suffix])

    @classmethod
    def load(cls: type[M], path: str | Path) -> M:
        """Reads a model that `save` has written, as ``.pt``, ``.gguf`` or a folder."""
        return cls.from_pretrained(path)

    @classmethod
    def from_pretrained(cls: type[M], path: str | Path) -> M:
        """Reads a folder in the Hugging Face layout, a GGUF, or a ``.pt`` that `save` has written."""
        path = Path(path).resolve()
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}; give a folder in the Hugging Face layout, a .gguf or a .pt")
        model = cls()
        if path.is_dir():
            model.folder = path
        elif path.suffix == ".gguf":
            model._gguf = path
        elif path.suffix in (".pt", ".pth"):
            model.folder = model._new_folder()
            tensors.unpack(path, model.folder)
        else:
            hint = "; give its folder" if path.suffix == ".safetensors" else ""
            raise ValueError(f"{path} is no folder, .gguf or .pt{hint}")
        if model.folder is not None:
            model._check_type(model.folder)
        return model

    def _check_type(self, folder: Path) -> None:
        found = tensors.config(folder).get("model_type", "gpt2")
        if found not in self.model_types:
            types = ", ".join(self.model_types)
            raise LlmasosError(f"{folder} has a model of the type {found!r}; {type(self).__name__} is for {types}")

    # Weights

    def state_dict(self) -> dict[str, Any]:
        """The weights by their Hugging Face names, as numpy arrays.

        ``{name: torch.from_numpy(array) for …}`` is what PyTorch's `load_state_dict` takes; with ``strict=False`` where a
        table is the output layer, too, which PyTorch has under two names and files under one.
        """
        return tensors.read(self._readable())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes weights by their names: numpy arrays, or PyTorch's tensors. The names and shapes must be the model's; PyTorch's
        other names for the same tensors are passed over."""
        new = self._new_folder()
        tensors.replace(self._readable(), state, new)
        self.close()
        self.folder, self._gguf = new, None

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, as Hugging Face has it."""
        return tensors.config(self._trained())

    # Use

    def _new_folder(self) -> Path:
        """A folder that goes with the model."""
        folder = tempfile.mkdtemp(prefix="llmasos-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def _trained(self) -> Path:
        if self.folder is None and self._gguf is not None:
            # Its weights and its vocabulary, in the layout that everything here reads.
            folder = self._new_folder()
            trainer.export(self._gguf, folder, "hf")
            self._check_type(folder)
            self.folder = folder
        if self.folder is None:
            raise LlmasosError(f"this {type(self).__name__} is not trained; call fit() or load() first")
        return self.folder

    def _readable(self) -> Path:
        """The model's folder, or where its weights are PyTorch's own (``.bin``), one that has them as they are read here."""
        folder = self._trained()
        if any(folder.glob("*.safetensors")):
            return folder
        readable = self._new_folder()
        trainer.export(folder, readable, "hf")
        return readable

    def _mounted(self) -> Mount | None:
        """The model mounted in the daemon, where llama.cpp runs it and this user may mount."""
        if self._mount is None:
            self._mount = Mount.of(self._gguf or self._trained())
        return self._mount if self._mount.name is not None else None

    def _ask(self, **question: Any) -> dict[str, Any]:
        """Asks a process that has the model."""
        if self._predictor is None:
            self._predictor = Predictor(self._trained())
        try:
            return self._predictor.ask(question)
        except (KeyboardInterrupt, Fault):
            # The answer that was not waited for would be taken for that of the next question.
            self._predictor.drop()
            self._predictor = None
            raise

    def close(self) -> None:
        """Lets go of what the daemon has of the model. It comes back when it is used."""
        for held in (self._mount, self._predictor):
            if held is not None:
                held.close()
        self._mount = self._predictor = None

    def __enter__(self: M) -> M:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<llmasos.models.{type(self).__name__} {self._gguf or self.folder or 'that is not trained'}>"


def tokenizer_of(tokenizer: Tokenizer | str | Path | None) -> Tokenizer | None:
    """A tokenizer, or the path of one."""
    return Load(tokenizer) if isinstance(tokenizer, (str, Path)) else tokenizer


def _check_run(out: Path, resume: bool) -> None:
    """Refuses a folder that a run cannot have, before its data are written over those of the run that is there."""
    there = any(out.glob("checkpoints/step-*"))
    if there and not resume:
        raise TrainingError(f"{out} has a run already; go on with it by resume=, or name another folder")
    if resume and not there:
        raise TrainingError(f"{out} has no checkpoint to go on from; give the folder of a run, or leave resume= out")


@contextlib.contextmanager
def _folder_of_run(out: Path) -> Iterator[None]:
    """Has a folder for a run. One that is new does not stay where the run cannot begin."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if new:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _run_folder(name: str) -> Path:
    """A folder that there is not: ``runs/gpt-20260102-030405``."""
    base = Path("runs") / f"{name.lower()}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = [base, *(Path(f"{base}-{number}") for number in range(2, 1000))]
    return next(path for path in candidates if not path.exists())
