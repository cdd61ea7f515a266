"""What models learn from: named data sets, files, and lists."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import trainer
from .errors import suggests

#: Endings of files with a JSON object on each line.
JSON_LINES = (".jsonl", ".json", ".ndjson")

#: Endings of tables, of which a text is a column.
TABLES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Dataset:
    """Data on disk, or in memory until a run begins.

    `kind` is ``"text"``, ``"pairs"``, ``"labelled"``, ``"questions"`` or ``"tagged"``.
    """

    name: str
    kind: str
    origin: dict[str, Any] | None = None
    records: tuple[dict[str, Any], ...] = ()

    def source(self, folder: Path) -> dict[str, Any]:
        """What the trainer is told. What is in memory is written into a folder."""
        if self.origin is not None:
            return self.origin
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.name}.jsonl"
        with file.open("w", encoding="utf-8") as out:
            for record in self.records:
                out.write(json.dumps(record, ensure_ascii=False) + "\n")
        if self.kind == "text":
            return {"Jsonl": {"files": [str(file)], "field": "text"}}
        if self.kind == "pairs":
            return {"Pairs": {"file": str(file), "source": "source", "target": "target"}}
        if self.kind == "questions":
            return {"Questions": {"file": str(file)}}
        if self.kind == "tagged":
            return {"Tagged": {"file": str(file)}}
        second = "second" if self.records and "second" in self.records[0] else None
        return {"Labelled": {"file": str(file), "text": "text", "second": second, "label": "label"}}

    def __len__(self) -> int:
        if self.origin is not None:
            raise TypeError(f"{self.name} is on disk, and is not counted before a run")
        return len(self.records)


@suggests
def load_dataset(name: str | Path, split: str | None = None, field: str = "text") -> Dataset:
    """A data set by its name, such as ``"wikitext-2"``, or the path of its folder or file.

    A name is looked for in the folders that `LLMASOS_DATASETS` names, then in the cache, and then fetched. `split` is
    ``"train"``, ``"validation"`` or ``"test"``; without it what is trained on is the first, and what is given as
    `validation` the second.
    """
    path = Path(name)
    if path.is_file():
        return from_files(path, field=field)
    folder = trainer.find_dataset(str(path.resolve()) if path.is_dir() else str(name))
    origin = {"name": str(folder), "split": split and split.capitalize(), "field": field}
    return Dataset(path.name, "text", {"Dataset": origin})


def from_files(*files: str | Path, field: str = "text") -> Dataset:
    """Plain text, each file a document; or JSON lines, each line a document in `field`."""
    found = [Path(file).resolve(strict=True) for file in files]
    names = [str(file) for file in found]
    lines = [file for file in found if file.suffix in JSON_LINES]
    if lines and len(lines) == len(found):
        return Dataset(found[0].stem, "text", {"Jsonl": {"files": names, "field": field}})
    odd = lines or [file for file in found if file.suffix in TABLES]
    if odd:
        raise ValueError(
            f"{odd[0]} is no plain text; give JSON lines alone, or put the files into a folder, with `train` in their names, "
            "and give that to load_dataset()"
        )
    return Dataset(found[0].stem if found else "nothing", "text", {"Text": names})


def from_list(texts: Iterable[str], name: str = "texts") -> Dataset:
    """Texts in memory, such as a list or an array of strings; each is a document."""
    if isinstance(texts, (str, bytes)):
        raise ValueError("from_list() takes a list of texts; put the one that it was given into brackets")
    return Dataset(name, "text", records=tuple({"text": str(text)} for text in texts))


def from_pairs(pairs: Iterable[tuple[str, str]], name: str = "pairs") -> Dataset:
    """Texts and their translations, for an encoder-decoder; or texts that mean alike, for an encoder's vectors."""
    return Dataset(name, "pairs", records=tuple({"source": str(a), "target": str(b)} for a, b in pairs))


def from_labelled(rows: Iterable[tuple[Any, ...]], name: str = "labelled") -> Dataset:
    """Texts, or two texts each, and their labels behind them, for an encoder: the name of a class, a list of names, or a
    number. Which it is, the loss decides.
    """
    records = tuple(_labelled(*row) for row in rows)
    if len({"second" in record for record in records}) > 1:
        raise ValueError("some rows of from_labelled() have one text and some have two; give all of them as many")
    return Dataset(name, "labelled", records=records)


def _labelled(*row: Any) -> dict[str, Any]:
    *texts, label = row
    if len(texts) not in (1, 2):
        raise ValueError(f"a row of from_labelled() is a text, or two, and a label; there is one of {len(row)} parts")
    several = not isinstance(label, str) and isinstance(label, Iterable)
    named = [str(one) for one in label] if several else str(label)
    return {**dict(zip(("text", "second"), map(str, texts))), "label": named}


def from_questions(rows: Iterable[tuple[str, str, str | None]], name: str = "questions") -> Dataset:
    """Questions, texts, and the words of each text that answer them, or `None` where it does not; for an encoder.

    An answer that a text has more than once is learned where it stands first.
    """
    records = []
    for question, context, answer in rows:
        start = context.find(answer) if answer else -1
        if answer and start < 0:
            raise ValueError(f"the answer {answer!r} does not stand in the text {context[:80]!r}")
        answers = {"text": [answer], "answer_start": [start]} if answer else {"text": [], "answer_start": []}
        records.append({"question": str(question), "context": str(context), "answers": answers})
    return Dataset(name, "questions", records=tuple(records))


def from_squad(file: str | Path, stride: int | None = None) -> Dataset:
    """Questions in a file in the form of SQuAD, or with an object on each line as hubs have them.

    A long text is read in parts, of which neighbours have `stride` tokens in common.
    """
    path = Path(file).resolve(strict=True)
    return Dataset(path.stem, "questions", {"Questions": {"file": str(path), "stride": stride}})


def from_tagged(rows: Iterable[Iterable[tuple[str, str]]] | str | Path, name: str = "tagged") -> Dataset:
    """Texts as words with their classes, ``[[("Ada", "PER"), ("wrote", "O")], …]``, or a file of them; for an encoder.

    A file has a word and its class on each line with an empty line between texts, or JSON lines with `tokens` and `tags`.
    """
    if isinstance(rows, (str, Path)):
        path = Path(rows).resolve(strict=True)
        return Dataset(path.stem, "tagged", {"Tagged": {"file": str(path)}})
    texts = [list(text) for text in rows]
    split = ({"tokens": [str(a) for a, _ in text], "tags": [str(b) for _, b in text]} for text in texts)
    return Dataset(name, "tagged", records=tuple(split))


def from_parallel(source: str | Path, target: str | Path) -> Dataset:
    """Two files of text that are translations of each other, line by line."""
    paths = {"source": str(Path(source).resolve(strict=True)), "target": str(Path(target).resolve(strict=True))}
    return Dataset(Path(source).stem, "pairs", {"Parallel": paths})


def from_table(
    file: str | Path,
    *,
    text: str = "0",
    second: str | None = None,
    label: str | None = None,
    target: str | None = None,
) -> Dataset:
    """A table (.tsv, .csv or .jsonl) of texts with their classes (`label`) or their translations (`target`).

    Columns go by name, or by number from 0 on.
    """
    path = str(Path(file).resolve(strict=True))
    if (label is None) == (target is None):
        raise TypeError("from_table() takes one of label and target")
    if target is not None:
        return Dataset(Path(file).stem, "pairs", {"Pairs": {"file": path, "source": text, "target": target}})
    columns = {"file": path, "text": text, "second": second, "label": label}
    return Dataset(Path(file).stem, "labelled", {"Labelled": columns})
