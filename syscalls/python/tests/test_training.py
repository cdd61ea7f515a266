"""Training: the program that the README begins with, files, Ctrl-C, callbacks, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import time
import unittest
from pathlib import Path
from typing import Any

import llmasos
from llmasos import tensors, trainer
from llmasos.specification import device_of, ranks_of, specification

from .place import SHORT, SMALL, TEXT, Place
from .test_tensors import numpy

PROGRAM = """
import llmasos
model = llmasos.models.Transformer()
train_data = llmasos.datasets.load_dataset("wikitext-2")
optimizer = llmasos.optimizers.Adam()
loss_fn = llmasos.losses.CrossEntropyLoss()
model.fit(train_data, optimizer, loss_fn)
model.save("llm_model.pt")
model = llmasos.models.Transformer.load("llm_model.pt")
output = model.generate_text("今天天气怎么样？")
print(output)
"""


class Training(Place):
    def small(self) -> llmasos.datasets.Dataset:
        return llmasos.datasets.load_dataset("wikitext-2")

    def gpt(self, **sizes: Any) -> llmasos.models.GPT:
        tokenizer = llmasos.tokenizers.BPE(400)
        return llmasos.models.GPT(**{**SMALL, "tokenizer": tokenizer, **sizes})

    def test_first_program_of_the_readme_runs_as_it_stands(self) -> None:
        program = self.script(PROGRAM, LLMASOS_SET=TINY + ' steps=20 tokeniser.kind=\'{"Train":{"Unigram":300}}\'')
        out, err = program.communicate(timeout=600)
        self.assertEqual(program.returncode, 0, err)
        self.assertTrue(out.endswith("\n"))
        self.assertRegex(err, r"time +\d+ s at \d+ tokens/s", "it says beforehand how long it takes")
        self.assertIn("step 20: validation loss", err)
        self.assertTrue(Path("llm_model.pt").exists())

    def test_model_that_is_saved_and_loaded_is_the_same_to_the_last_bit(self) -> None:
        model = self.gpt()
        history = model.fit(self.small(), llmasos.optimizers.SGD(lr=0.1), **SHORT)
        self.assertEqual(history.steps[-1], 40)
        self.assertLess(history.loss[-1], history.loss[0])
        self.assertEqual(len(history.val_loss), 1)
        self.assertEqual(history.plot("curve.svg").read_text()[:4], "<svg")
        folder = model.folder
        assert folder is not None
        before = tensors.load_safetensors(folder / "model.safetensors")
        for name in ("a.pt", "folder"):
            model.save(name)
            again = llmasos.models.GPT.load(name)
            assert again.folder is not None
            self.assertEqual(tensors.load_safetensors(again.folder / "model.safetensors"), before)
            self.assertEqual(again.config, model.config)
        self.assertEqual(tensors.load_pt("a.pt"), before)
        model.save("a.gguf")
        texts = {
            llmasos.models.GPT.load(name).generate_text("line 3 of", 12, temperature=0)
            for name in ("a.pt", "folder", "a.gguf")
        }
        self.assertEqual(len(texts), 1, texts)
        self.assertIsNotNone(model._mounted())
        # What llama.cpp says is what the trainer's own way of computing says.
        self.assertEqual(model._ask(task="generate", text="line 3 of", max_tokens=12)["text"], texts.pop())
        pieces = list(model.stream_text("line 3 of", 12, temperature=0))
        self.assertGreater(len(pieces), 1)
        model.close()

    def test_model_that_is_fitted_again_keeps_its_vocabulary(self) -> None:
        model = self.gpt()
        vocabularies = []
        for text in (TEXT, "quite other words than those of before are here. " * 200):
            model.fit(llmasos.datasets.from_list([text]), **{**SHORT, "steps": 2})
            assert model.folder is not None
            vocabularies.append(json.loads((model.folder / "tokenizer.json").read_text())["model"]["vocab"])
        self.assertEqual(vocabularies[0], vocabularies[1])

    def test_run_is_a_process_that_stops_goes_on_and_is_seen(self) -> None:
        seen: list[dict[str, Any]] = []

        class Watcher(llmasos.callbacks.Callback):
            def on_step(self, entry: dict[str, Any]) -> bool | None:
                if seen:
                    # It goes on, and has no end of its own that could come before it is seen.
                    return False
                with llmasos.Client() as client:
                    (run,) = [process for process in client.ps() if process["name"] == "train"]
                    client.setpriority(pid=run["pid"], nice=5)
                    client.kill(pid=run["pid"], signal="STOP")
                    (held,) = [process for process in client.ps() if process["pid"] == run["pid"]]
                    client.kill(pid=run["pid"], signal="CONT")
                    seen.append(held)
                return None

        self.gpt().fit(self.small(), callbacks=[Watcher()], **{**SHORT, "steps": 1_000_000, "class_": "batch"})
        (held,) = seen
        self.assertEqual((held["class"], held["state"], held["nice"]), ("batch", "stopped", 5))

    def test_callback_that_says_no_ends_the_run_with_a_checkpoint(self) -> None:
        class Enough(llmasos.callbacks.Callback):
            def on_step(self, entry: dict[str, Any]) -> bool | None:
                return bool(entry["loss"] > 1e9)

        model = self.gpt()
        history = model.fit(self.small(), callbacks=[Enough()], **{**SHORT, "steps": 1_000_000})
        self.assertLess(history.steps[-1], 1_000_000)
        self.assertIsNotNone(model.folder)

    def test_callback_that_fails_ends_the_run_with_a_checkpoint(self) -> None:
        # That of `sys.exit` is no `Exception`.
        for number, error in enumerate((ArithmeticError("the callback is broken"), SystemExit("the callback is broken"))):

            class Broken(llmasos.callbacks.Callback):
                def on_step(self, entry: dict[str, Any], error: BaseException = error) -> bool | None:
                    raise error

            folder = f"broken-{number}"
            with self.assertRaisesRegex(type(error), "the callback is broken"):
                self.gpt().fit(self.small(), callbacks=[Broken()], folder=folder, **{**SHORT, "steps": 1_000_000})
            with llmasos.connect() as client:
                trained = [process for process in client.ps() if process["name"] == "train"]
                self.assertEqual([process for process in trained if process["state"] != "zombie"], [])
            self.assertTrue(Path(folder, "checkpoints/last/manifest.json").exists())

    def test_callbacks_that_the_trainer_does_by_itself_write_texts_and_end_early(self) -> None:
        callbacks = [llmasos.callbacks.Samples(every=10, tokens=5), llmasos.callbacks.EarlyStopping(patience=1)]
        os.environ["LLMASOS_SET"] = "evaluation.every=10"
        try:
            # A rate of 0 makes nothing better.
            history = self.gpt().fit(self.small(), llmasos.optimizers.SGD(lr=0.0), callbacks=callbacks, **SHORT)
        finally:
            del os.environ["LLMASOS_SET"]
        self.assertEqual(history.steps[-1], 20)
        self.assertTrue(history.samples and all(isinstance(text, str) for text in history.samples))
        self.assertEqual(len(history.val_loss), 2)
        with self.assertRaisesRegex(ValueError, "EarlyStopping goes by .*; give some, such as validation=0.1"):
            self.gpt().fit(self.small(), callbacks=callbacks, validation=None, **SHORT)

    def test_ctrl_c_keeps_a_checkpoint_and_says_where(self) -> None:
        text = PROGRAM.replace("Transformer()", "GPT()").replace("model.fit(train_data, optimizer, loss_fn)", FIT)
        program = self.script(text, LLMASOS_SET=TINY)
        log = self.folder / "interrupted/log.jsonl"
        deadline = time.monotonic() + 600
        while not (log.exists() and '"step"' in log.read_text()):
            self.assertIsNone(program.poll(), "it ended by itself")
            self.assertLess(time.monotonic(), deadline, "it did not begin")
            time.sleep(0.02)
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=600)
        self.assertRegex(
            out, r"training was interrupted; .*/interrupted/checkpoints/last is the checkpoint of step \d+"
        )
        self.assertIn("resume=", out, err)
        # The daemon notices the end of the program, and that it has left nothing, when it comes to it.
        with llmasos.connect() as client:
            while "train" in [process["name"] for process in client.ps()]:
                self.assertLess(time.monotonic(), deadline, "the run is still there")
                time.sleep(0.02)
        step = int(out.split("step ")[1].split(".")[0])
        model = self.gpt(tokenizer=None, heads=4)
        os.environ["LLMASOS_SET"] = f"{TINY} steps={step + 10}"
        try:
            history = model.fit(self.small(), resume="interrupted", verbose=False, class_="normal")
        finally:
            del os.environ["LLMASOS_SET"]
        self.assertEqual(history.steps[-1], step + 10)
        self.assertEqual(history.steps, sorted(set(history.steps)), "no step is told twice")

    def test_what_fit_is_told_is_in_the_specification(self) -> None:
        told: dict[str, Any] = {
            "precision": "Bf16",
            "recompute": True,
            "order": "Random",
            "packing": "Apart",
            "evaluation_every": 15,
            "evaluation_batches": 2,
            "checkpoint_every": 10,
            "checkpoint_keep": 7,
            "context": 16,
            "device": "cpu",
            "memory_mib": 4000,
        }
        early = [llmasos.callbacks.EarlyStopping(patience=9)]
        history = self.gpt().fit(self.small(), callbacks=early, folder="told", **told, **SHORT)
        self.assertEqual([entry["step"] for entry in history.evaluations], [15, 30, 40])
        written = {entry["step"] for entry in history.entries if entry["event"] == "checkpoint"}
        # There is one with the best weights, too.
        self.assertEqual(written - {15}, {10, 20, 30, 40})
        spec = Path("told/spec.ron").read_text()
        for wanted in ("Bf16", "Random", "Apart", "recompute: true", "batches: 2", "patience: 9", "keep: 7", "device: Cpu"):
            self.assertIn(wanted, spec)
        self.assertIn("context: Some(16)", spec.replace("context: 16", "context: Some(16)"))
        self.assertRegex(spec, r"memory_mib: (Some\()?4000")
        with self.assertRaisesRegex(llmasos.TrainingError, "Apart"):
            self.gpt().fit(self.small(), packing="Appart", **SHORT)

    def resolved(self, **parts: Any) -> dict[str, Any]:
        """What the trainer makes of parts of a specification."""
        data = {"train": self.small().source(self.folder)}
        return trainer.resolve({"out": "resolved", "model": {"Gpt": SMALL}, "data": data, "steps": 10, **parts})

    def test_arguments_of_optimisers_and_schedules_are_what_the_trainer_resolves(self) -> None:
        optimizers, schedules = llmasos.optimizers, llmasos.schedules
        groups: list[Any] = [
            {"names": ["wte"], "lr": 0.25, "betas": (0.5, 0.75)},
            optimizers.ParamGroup("ln_", weight_decay=0.5, decay_biases=True),
        ]
        own = [
            {"names": ["wte"], "lr": 0.25, "weight_decay": None, "betas": [0.5, 0.75], "decay_biases": False},
            {"names": ["ln_"], "lr": None, "weight_decay": 0.5, "betas": None, "decay_biases": True},
        ]
        adam = {"lr": 0.5, "betas": [0.25, 0.75], "epsilon": 0.125, "weight_decay": 0.0625, "groups": own}
        sgd = {"lr": 0.5, "momentum": 0.25, "nesterov": True, "weight_decay": 0.0625, "groups": [own[1]]}
        rules: list[tuple[llmasos.optimizers.Optimizer, dict[str, Any]]] = [
            (optimizers.Adam(0.5, (0.25, 0.75), 0.125, 0.0625, groups), {"Adam": adam}),
            (optimizers.AdamW(0.5, (0.25, 0.75), 0.125, 0.0625, groups), {"AdamW": adam}),
            (optimizers.SGD(0.5, 0.25, True, 0.0625, groups[1:]), {"Sgd": sgd}),
        ]
        for rule, wanted in rules:
            self.assertEqual(self.resolved(optimiser=rule.spec())["optimiser"], wanted)
        ways: list[tuple[llmasos.schedules.Schedule, dict[str, Any]]] = [
            (schedules.Constant(7), {"Constant": {"warmup": 7}}),
            (schedules.Linear(7, 0.25), {"Linear": {"warmup": 7, "floor": 0.25}}),
            (schedules.Cosine(7, 0.25), {"Cosine": {"warmup": 7, "floor": 0.25}}),
        ]
        for schedule, wanted in ways:
            self.assertEqual(self.resolved(schedule=schedule.spec())["schedule"], wanted)
        refusals: list[Any] = [optimizers.SGD(param_groups=groups[:1]), optimizers.Adam(betas=(0.9, 1.0))]
        for refused in refusals:
            with self.assertRaisesRegex(llmasos.TrainingError, "betas"):
                self.resolved(optimiser=refused.spec())

    def test_defaults_are_those_of_the_trainer_but_where_pytorch_has_others(self) -> None:
        for rule in (llmasos.optimizers.AdamW(), llmasos.optimizers.Adam()):
            (name,) = rule.spec()
            self.assertEqual(self.resolved(optimiser={name: {"lr": 1e-3}}), self.resolved(optimiser=rule.spec()))
        usual = self.resolved()
        said: dict[str, Any] = {"optimiser": llmasos.optimizers.AdamW(), "schedule": llmasos.schedules.Cosine()}
        self.assertEqual(self.resolved(**{name: rule.spec() for name, rule in said.items()}), usual)
        loss = llmasos.losses.CrossEntropyLoss().spec()
        self.assertEqual(self.resolved(**loss), usual)

    @unittest.skipUnless(numpy, "numpy is not installed")
    def test_numbers_of_numpy_are_numbers(self) -> None:
        of: Any = numpy
        schedule = llmasos.schedules.Linear(warmup=of.int64(7), floor=of.float32(0.25))
        optimizer = llmasos.optimizers.Adam(lr=of.float32(0.5), betas=of.array([0.25, 0.75]))
        told = {"schedule": schedule.spec(), "optimiser": optimizer.spec(), "batch": of.int64(3)}
        plain = {
            "schedule": llmasos.schedules.Linear(7, 0.25).spec(),
            "optimiser": llmasos.optimizers.Adam(0.5, (0.25, 0.75)).spec(),
            "batch": 3,
        }
        self.assertEqual(self.resolved(**told), self.resolved(**plain))
        self.assertEqual(ranks_of(of.int64(2)), (2, None))
        with self.assertRaisesRegex(TypeError, "a set has no form in JSON"):
            self.resolved(batch={3})

    def test_samples_and_devices_are_told_by_their_own_names(self) -> None:
        samples = llmasos.callbacks.Samples(every=5, prompt="a", tokens=7, temperature=0.5, top_k=3)
        data = self.small()
        spec = specification(
            self.folder / "told-samples", {"Gpt": SMALL}, None, data, 0.1, None, None, None, [samples], None, None
        )
        wanted = {"every": 5, "prompt": "a", "tokens": 7, "temperature": 0.5, "top_k": 3}
        self.assertEqual(self.resolved(samples=spec["samples"])["samples"], wanted)
        devices = {"cpu": "Cpu", "cuda": {"Cuda": 0}, "cuda:1": {"Cuda": 1}, "mps": {"Metal": 0}, "metal": {"Metal": 0}}
        for name, device in devices.items():
            self.assertEqual(self.resolved(device=device_of(name))["device"], device)
        self.assertIsNone(device_of(None))
        for name in ("gpu", "cuda:one", "cuda:-1"):
            with self.assertRaisesRegex(ValueError, "there is no device"):
                device_of(name)

    def test_run_over_ranks_is_one_of_the_daemon_and_learns_the_same(self) -> None:
        losses: list[float] = []
        for ranks in (None, 2, {"tensor": 2}):
            model = self.gpt()
            history = model.fit(self.small(), folder=f"ranks-{len(losses)}", ranks=ranks, **SHORT)
            losses.append(history.val_loss[-1])
        for loss in losses[1:]:
            self.assertAlmostEqual(loss, losses[0], places=3)
        self.assertIn("tensor: 2", Path("ranks-2/spec.ron").read_text())

    def test_run_that_is_only_tried_is_a_process_too(self) -> None:
        seen: list[dict[str, Any]] = []
        spec = {
            "out": str(self.folder / "tried"),
            "model": {"Gpt": SMALL},
            "data": {"train": self.small().source(self.folder)},
            "batch": 256,
            "steps": 10,
        }
        with llmasos.connect() as client, llmasos.Client() as watcher:
            watching = watcher._send("subscribe", None, {"kinds": ["process"]})
            # Calls are carried out in their order: when this one is answered, nothing is missed any more.
            watcher.ps()
            cache = self.folder / "tried-cache"
            said = trainer.expectation(trainer.resolve(spec), cache, client.socket_path, 2, "normal")
            client.kill(pid=watcher.pid, signal="INT")
            with self.assertRaisesRegex(llmasos.Fault, "EINTR"):
                watcher._answer(watching, seen.append)
        self.assertRegex(said, r"time +\d+ s at \d+ tokens/s")
        tried = [event["class"] for event in seen if (event.get("name"), event.get("change")) == ("train", "started")]
        self.assertEqual(tried, ["normal"], seen)

    def test_run_that_cannot_be_is_refused_in_one_sentence(self) -> None:
        with self.assertRaisesRegex(TypeError, "did you mean 'steps'"):
            self.gpt().fit(self.small(), stesp=3)  # type: ignore[call-arg]
        with self.assertRaisesRegex(TypeError, "did you mean 'width'"):
            llmasos.models.GPT(widht=3)  # type: ignore[call-arg]
        with self.assertRaisesRegex(TypeError, "did you mean 'lr'"):
            llmasos.optimizers.Adam(rl=3)  # type: ignore[call-arg]
        with self.assertRaisesRegex(llmasos.TrainingError, "heads"):
            self.gpt(heads=3).fit(self.small(), **SHORT)
        with self.assertRaisesRegex(llmasos.TrainingError, "`batch` is 0"):
            self.gpt().fit(self.small(), **{**SHORT, "batch_size": 0})
        with self.assertRaisesRegex(llmasos.TrainingError, "has a run already"):
            for _ in range(2):
                self.gpt().fit(self.small(), folder="twice", **SHORT)
        with self.assertRaisesRegex(llmasos.LlmasosError, "is not trained; call fit"):
            self.gpt().save("nothing.pt")
        with self.assertRaisesRegex(ValueError, "no format ends with '.1'; .* without a dot a folder"):
            self.gpt().save("model-0.1")
        with self.assertRaisesRegex(FileNotFoundError, "give a folder in the Hugging Face layout"):
            llmasos.models.GPT.from_pretrained("gpt2")

    def test_data_that_would_be_read_as_something_else_are_refused(self) -> None:
        for name in ("a.txt", "b.jsonl", "c.csv"):
            Path(name).write_text('{"text": "a"}\n')
        datasets = llmasos.datasets
        self.assertEqual(datasets.from_files("b.jsonl").source(self.folder)["Jsonl"]["field"], "text")
        for refused in (("a.txt", "b.jsonl"), ("c.csv",)):
            with self.assertRaisesRegex(ValueError, "is no plain text"):
                datasets.from_files(*refused)
        with self.assertRaisesRegex(ValueError, "into brackets"):
            datasets.from_list("each letter would be a document")
        with self.assertRaisesRegex(ValueError, "some have two"):
            datasets.from_labelled([("a", "yes"), ("a", "b", "no")])

    def test_unknown_data_set_says_where_it_was_looked_for(self) -> None:
        with self.assertRaises(llmasos.DatasetNotFound) as caught:
            llmasos.datasets.load_dataset("wikitext-103")
        for part in ("datasets (LLMASOS_DATASETS)", "cache", "127.0.0.1:9", "or give the path"):
            self.assertIn(part, str(caught.exception))


#: What makes any run small.
TINY = "batch=4 threads=1 model.layers=1 model.width=32 model.context=16"

FIT = """
try:
    model.fit(train_data, steps=1_000_000, folder="interrupted", class_="normal")
except KeyboardInterrupt as error:
    raise SystemExit(print(error))
"""

if __name__ == "__main__":
    unittest.main()
