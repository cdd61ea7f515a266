"""Weights in files: those of PyTorch, and of safetensors, read without either."""

from __future__ import annotations

import pickle
import struct
import tempfile
import unittest
import zipfile
from array import array
from pathlib import Path
from typing import Any

from llmasos import tensors
from llmasos.datasets import from_labelled, from_list
from llmasos.tensors.raw import Raw

FIXTURES = Path(__file__).parent / "fixtures"

try:
    import numpy as numpy
except ImportError:
    numpy = None  # type: ignore[assignment]

try:
    import torch as torch
except ImportError:
    torch = None  # type: ignore[assignment, unused-ignore]


def floats(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


class Tensors(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_file_of_pytorch_is_read_without_it(self) -> None:
        found = tensors.load_pt(FIXTURES / "torch.pt")
        self.assertEqual(found["rows"], Raw("F32", (2, 3), floats(0, 1, 2, 3, 4, 5)))
        self.assertEqual(found["columns"], Raw("F32", (3, 2), floats(0, 3, 1, 4, 2, 5)))
        self.assertEqual(found["part"], Raw("F32", (2, 2), floats(1, 2, 4, 5)))
        self.assertEqual(found["brain"], Raw("BF16", (2,), b"\xc0\x3f\x00\xc0"))
        self.assertEqual(found["whole"], Raw("I64", (1, 1), struct.pack("<q", 7)))
        self.assertEqual(found["scalar"], Raw("F64", (), struct.pack("<d", 0.5)))
        self.assertEqual(found["none"], Raw("F32", (0, 3), b""))
        self.assertEqual(found["parameter"], Raw("F32", (1, 2), floats(3, 3)))
        self.assertEqual(found["half"].data, struct.pack("<6e", *range(6)))

    def test_pickle_that_does_something_else_is_refused_and_does_nothing(self) -> None:
        class Evil:
            def __reduce__(self) -> Any:
                return Path.touch, (self_folder / "touched",)

        self_folder = self.folder
        for number, content in enumerate((Evil(), {"a": Evil()}, {"a": 1}, [1])):
            path = self.folder / f"{number}.pt"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", pickle.dumps(content))
            with self.assertRaises(ValueError):
                tensors.load_pt(path)
        self.assertFalse((self.folder / "touched").exists())

    def test_safetensors_are_the_same_when_they_are_read_again(self) -> None:
        path = self.folder / "a.safetensors"
        written = {"b": Raw("F32", (2,), floats(1, 2)), "a": Raw("I8", (3, 1), array("b", [1, 2, 3]).tobytes())}
        tensors.save_safetensors(written, path)
        self.assertEqual(tensors.load_safetensors(path), written)
        data = path.read_bytes()
        for broken in (data[:5], data[:-1], b"\xff" * 40):
            path.write_bytes(broken)
            with self.assertRaises(ValueError):
                tensors.load_safetensors(path)

    @unittest.skipUnless(numpy, "numpy is not installed")
    def test_arrays_of_texts_and_labels_are_data_as_lists_are(self) -> None:
        texts = ["one text", "another, 今天"]
        self.assertEqual(from_list(numpy.array(texts)).records, from_list(texts).records)
        self.assertEqual(from_list(numpy.array(texts, dtype=object)).records, from_list(texts).records)
        for labels in ([0.25, 1.0], [3, 4], ["good", "bad"]):
            arrays = from_labelled(zip(numpy.array(texts), numpy.array(labels), strict=True))
            written = arrays.source(self.folder / "arrays")["Labelled"]["file"]
            ours = Path(written).read_text()
            theirs = from_labelled(zip(texts, labels, strict=True)).source(self.folder / "lists")["Labelled"]["file"]
            self.assertEqual(ours, Path(theirs).read_text())

    @unittest.skipUnless(numpy, "numpy is not installed")
    def test_arrays_are_what_the_file_has(self) -> None:
        found = {name: tensor.numpy() for name, tensor in tensors.load_pt(FIXTURES / "torch.pt").items()}
        self.assertEqual(found["columns"].tolist(), [[0, 3], [1, 4], [2, 5]])
        self.assertEqual(found["brain"].tolist(), [1.5, -2.0])
        self.assertEqual(Raw.of(found["columns"].T).numpy().tolist(), [[0, 1, 2], [3, 4, 5]])
        self.assertEqual(Raw.of(found["scalar"]).shape, ())
        with self.assertRaises(TypeError):
            Raw.of(numpy.array(["text"]))

    @unittest.skipUnless(numpy, "numpy is not installed")
    def test_names_that_pytorch_has_beside_the_models_are_passed_over(self) -> None:
        table = numpy.arange(6, dtype="float32").reshape(3, 2)
        names = ("transformer.wte.weight", "final_logits_bias")
        tensors.save_safetensors({name: Raw.of(0 * table) for name in names}, self.folder / "model.safetensors")
        own = {"transformer.wte.weight": table, "final_logits_bias": table + 1}
        more = {
            "lm_head.weight": table,
            "bert.embeddings.position_ids": numpy.arange(4),
            "model.encoder.embed_positions.weight": table + 2,
        }
        to = self.folder / "to"
        to.mkdir()
        tensors.replace(self.folder, {**own, **more}, to)
        written = tensors.load_safetensors(to / "model.safetensors")
        self.assertEqual(written, {name: Raw.of(array) for name, array in own.items()})
        with self.assertRaisesRegex(ValueError, "lm_head.weight is in one of"):
            tensors.replace(self.folder, {**own, "lm_head.weight": table + 3}, to)
        with self.assertRaisesRegex(ValueError, "final_logits_bias is in one of"):
            tensors.replace(self.folder, {"transformer.wte.weight": table, "lm_head.weight": table}, to)

    @unittest.skipUnless(torch, "PyTorch is not installed")
    def test_tensors_of_pytorch_come_in(self) -> None:
        value = torch.arange(6.0).reshape(2, 3).t().requires_grad_()
        self.assertEqual(Raw.of(value), Raw("F32", (3, 2), floats(0, 3, 1, 4, 2, 5)))
        self.assertEqual(Raw.of(torch.tensor([1.5], dtype=torch.bfloat16)), Raw("F32", (1,), floats(1.5)))


if __name__ == "__main__":
    unittest.main()
