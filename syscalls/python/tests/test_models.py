"""What trained models are for: encoders, encoder-decoders, and the process that answers for them."""

from __future__ import annotations

import math
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import llmasos

from .place import SHORT, SMALL, TEXT, Place
from .test_tensors import numpy, torch


class Models(Place):
    def test_encoder_guesses_and_embeds(self) -> None:
        model = llmasos.models.BERT(**SMALL, tokenizer=llmasos.tokenizers.WordPiece(200))
        model.fit(llmasos.datasets.from_list(TEXT.splitlines()), **SHORT)
        guesses = model.fill_mask("line 3 of a [MASK] that", top_k=3)
        self.assertEqual(len(guesses), 3)
        self.assertGreaterEqual(guesses[0]["score"], guesses[1]["score"])
        self.assertIn(guesses[0]["token"].removeprefix("##"), guesses[0]["text"])
        with self.assertRaisesRegex(llmasos.LlmasosError, r"write \[MASK\]"):
            model.fill_mask("line 3 of a text")
        with self.assertRaisesRegex(llmasos.LlmasosError, "takes a BertForSequenceClassification"):
            model.classify("line 3")
        vectors = model.embed(["line 3 of a text", "what line 5 says"])
        self.assertEqual([len(row) for row in vectors], [32, 32])
        # llama.cpp and the trainer compute the same.
        self.assertIsNotNone(model._mounted())
        ours = model._ask(task="embed", texts=["line 3 of a text"])["vectors"][0]
        self.assertGreater(sum(float(a) * b for a, b in zip(vectors[0], ours)), 0.9999)
        self.assertEqual(len(model.embed("line 3")), 32)
        with self.assertRaisesRegex(llmasos.LlmasosError, "fits into no message, ask for less"):
            model._ask(task="embed", texts=["line 3"] * 2500)
        self.assertEqual(model._ask(task="embed", texts=["line 3 of a text"])["vectors"][0], ours)
        model.close()

    def test_folder_of_links_as_a_hub_keeps_it_is_asked_and_trained_on(self) -> None:
        model = llmasos.models.BERT(**SMALL, tokenizer=llmasos.tokenizers.WordPiece(200))
        model.fit(llmasos.datasets.from_list(TEXT.splitlines()), **{**SHORT, "steps": 2})
        model.save("blobs")
        Path("snapshot").mkdir()
        for file in Path("blobs").iterdir():
            Path("snapshot", file.name).symlink_to(Path("..", "blobs", file.name))
        again = llmasos.models.BERT.from_pretrained("snapshot")
        asked = "line 3 of a [MASK] that"
        self.assertEqual(again.fill_mask(asked), model.fill_mask(asked))
        again.fit(llmasos.datasets.from_list(TEXT.splitlines()), **{**SHORT, "steps": 2})
        for used in (model, again):
            used.close()

    def test_encoder_tells_classes(self) -> None:
        rows = [(f"{word} number {n}", label) for n in range(60) for word, label in (("good", "yes"), ("bad", "no"))]
        model = llmasos.models.BERT(**SMALL, tokenizer=llmasos.tokenizers.WordPiece(100))
        model.fit(llmasos.datasets.from_labelled(rows), llmasos.optimizers.Adam(lr=3e-3), **{**SHORT, "steps": 120})
        labels = model.classify("good number 3")
        self.assertEqual([label["label"] for label in labels], ["yes", "no"])
        self.assertTrue(math.isclose(sum(label["score"] for label in labels), 1, rel_tol=1e-6))
        model.close()

    def test_encoder_learns_numbers_sets_of_classes_nearness_and_weighted_classes(self) -> None:
        losses, from_labelled = llmasos.losses, llmasos.datasets.from_labelled
        learn = {**SHORT, "steps": 250, "batch_size": 8, "schedule": llmasos.schedules.Constant(warmup=10)}
        sizes = {**SMALL, "tokenizer": llmasos.tokenizers.WordPiece(100)}
        optimizer = llmasos.optimizers.Adam(lr=3e-3)
        words = {"good": 1.5, "fair": 0.0, "bad": -1.5}

        model = llmasos.models.BERT(**sizes)
        numbers = [(f"it is {word}", value) for word, value in words.items()] * 30
        model.fit(from_labelled(numbers), optimizer, losses.MSELoss(), **learn)
        self.assertEqual(model.config["problem_type"], "regression")
        found = [model.classify(f"it is {word}")[0]["score"] for word in words]
        self.assertTrue(all(abs(a - b) < 0.5 for a, b in zip(found, words.values())), found)
        model.close()

        model = llmasos.models.BERT(**sizes)
        of = {"gold": ["dear", "yellow"], "sand": ["yellow"], "silk": ["dear"], "mud": []}
        sets = [(f"it is {word}", wanted) for word, wanted in of.items()]
        model.fit(from_labelled(sets * 25), optimizer, losses.BCEWithLogitsLoss(), **learn)
        self.assertEqual(model.config["problem_type"], "multi_label_classification")
        # A small model may take two of the texts for one; what it says of each class must go by the class all the same.
        scores = {text: {label["label"]: label["score"] for label in model.classify(text)} for text, _ in sets}
        for name in ("dear", "yellow"):
            has, lacks = (
                sum(scores[text][name] for text, wanted in sets if (name in wanted) is having) / 2
                for having in (True, False)
            )
            self.assertGreater(has, lacks, scores)
        model.close()

        model = llmasos.models.BERT(**sizes)
        near = [("it is good", "it is fair", 0.9), ("it is good", "it is bad", 0.1), ("it is fair", "it is bad", 0.2)] * 30
        model.fit(from_labelled(near), optimizer, losses.CosineSimilarityLoss(), **learn)
        good, fair, bad = model.embed(["it is good", "it is fair", "it is bad"])
        self.assertGreater(sum(a * b for a, b in zip(good, fair)), sum(a * b for a, b in zip(good, bad)) + 0.3)
        model.close()

        # Alike texts have both classes, of which one weighs ten times as much and one counts for nothing.
        rows = [("it is so", label) for label in ("yes", "no", "no", "perhaps", "perhaps", "perhaps")] * 15
        model = llmasos.models.BERT(**sizes)
        loss = losses.CrossEntropyLoss(weight={"yes": 10}, ignore_index="perhaps", label_smoothing=0.02)
        model.fit(from_labelled(rows), optimizer, loss, **learn)
        self.assertEqual([label["label"] for label in model.classify("it is so")], ["yes", "no"])
        model.close()
        with self.assertRaisesRegex(llmasos.TrainingError, "which is for classes of texts or of words"):
            llmasos.models.GPT(**SMALL).fit(llmasos.datasets.from_list([TEXT]), loss=loss, **SHORT)

    def test_encoder_learns_to_answer_to_tag_and_which_texts_mean_alike(self) -> None:
        colours = "red green blue grey".split()
        texts = [(a, f"the box is {a} and the ball is {b}") for a in colours for b in colours if a != b] * 12
        learn = {**SHORT, "steps": 150, "batch_size": 8}
        sizes = {**SMALL, "tokenizer": llmasos.tokenizers.WordPiece(100)}
        optimizer = llmasos.optimizers.Adam(lr=3e-3)

        model = llmasos.models.BERT(**sizes)
        model.fit(llmasos.datasets.from_questions(("which box", text, a) for a, text in texts), optimizer, **learn)
        found = model.answer("which box", "the box is green and the ball is red")
        self.assertEqual((found["answer"], found["start"], found["end"]), ("green", 11, 16))
        model.close()

        rows = ([(word, "COLOUR" if word in colours else "O") for word in text.split()] for _, text in texts)
        model = llmasos.models.BERT(**sizes)
        model.fit(llmasos.datasets.from_tagged(rows), optimizer, **learn)
        words = model.tag("the ball is blue")
        self.assertEqual([(w["word"], w["label"]) for w in words][2:], [("is", "O"), ("blue", "COLOUR")])
        self.assertEqual((words[3]["start"], words[3]["end"]), (12, 16))
        model.close()

        model = llmasos.models.BERT(**sizes)
        model.fit(llmasos.datasets.from_pairs((text, f"it is {a}") for a, text in texts), optimizer, **learn)
        vectors = model.embed(["the box is grey and the ball is blue", "it is grey", "it is red"])
        near, far = (sum(float(a) * float(b) for a, b in zip(vectors[0], vectors[n])) for n in (1, 2))
        self.assertGreater(near, far)
        model.close()
        with self.assertRaisesRegex(ValueError, "does not stand in the text"):
            llmasos.datasets.from_questions([("q", "text", "nowhere")])

    def test_gguf_is_read_trained_on_with_adapters_and_written(self) -> None:
        model = llmasos.models.GPT(**SMALL, tokenizer=llmasos.tokenizers.BPE(400))
        model.fit(llmasos.datasets.from_list([TEXT]), **{**SHORT, "steps": 5})
        model.save("first.gguf")
        again = llmasos.models.GPT.from_pretrained("first.gguf")
        self.assertEqual(again.config["n_embd"], 32)
        again.save("second.gguf")
        self.assertEqual(Path("first.gguf").read_bytes()[-4096:], Path("second.gguf").read_bytes()[-4096:])
        tuning = llmasos.tuning.Lora(rank=2, layers=["c_attn"])
        # The first matrices are left as they are by a group of their own.
        optimizer = llmasos.optimizers.AdamW(lr=0.01, param_groups=[{"names": "lora_A", "lr": 0.0}, {"names": ["lora_B"]}])
        history = again.fit(llmasos.datasets.from_list([TEXT]), optimizer, tune=tuning, **SHORT)
        self.assertLess(history.loss[-1], history.loss[0])
        if numpy is not None:
            before, after = model.state_dict(), again.state_dict()
            changed = {name for name in before if not numpy.array_equal(before[name], after[name])}
            self.assertEqual(changed, {"transformer.h.0.attn.c_attn.weight"})
        with self.assertRaisesRegex(llmasos.LlmasosError, "Transformer is for marian, t5"):
            llmasos.models.Transformer.from_pretrained("first.gguf").config
        for used in (model, again):
            used.close()

    def test_encoder_decoder_learns_pairs(self) -> None:
        words = "one two three four five six seven eight nine ten".split()
        pairs = [(f"{a} {b}", f"{b} {a}") for a in words for b in words]
        model = llmasos.models.Transformer(**SMALL, tokenizer=llmasos.tokenizers.Unigram(60))
        model.fit(
            llmasos.datasets.from_pairs(pairs),
            llmasos.optimizers.AdamW(lr=3e-3),
            schedule=llmasos.schedules.Linear(warmup=20),
            **{**SHORT, "steps": 600, "batch_size": 8},
        )
        self.assertEqual(model.generate_text("two six", temperature=0), "six two")
        asked = ["two six", "ten", "one nine"]
        alone = [model.generate_text(text, temperature=0) for text in asked]
        self.assertEqual(model.generate_text(asked, temperature=0), alone)
        self.assertEqual(model.generate_text([]), [])
        one, two = (model.generate_text("two six", seed=5) for _ in range(2))
        self.assertEqual(one, two, "the seed decides")
        with llmasos.Client() as client:
            (process,) = [process for process in client.ps() if process["name"] == "predict"]
            self.assertEqual(process["class"], "interactive")
            client.kill(pid=process["pid"], signal="KILL")
        self.assertEqual(model.generate_text("two six", seed=5), one, "another process answers")
        predictor = model._predictor
        assert predictor is not None
        call = predictor.client.call

        def interrupted(name: str, /, **args: Any) -> Any:
            if name == "receive":
                raise KeyboardInterrupt
            return call(name, **args)

        with mock.patch.object(predictor.client, "call", interrupted), self.assertRaises(KeyboardInterrupt):
            model.generate_text("two six", temperature=0)
        self.assertEqual(model.generate_text("one nine", temperature=0), alone[2], "the answer of this question")
        model.close()

    def test_other_forms_are_trained_and_say_what_llama_cpp_says(self) -> None:
        llama = llmasos.models.GPT(**SMALL, form="llama", kv_heads=1, tokenizer=llmasos.tokenizers.BPE(400))
        llama.fit(llmasos.datasets.from_list([TEXT]), **SHORT)
        self.assertIsNotNone(llama._mounted())
        text = llama.generate_text("line 3 of", 12, temperature=0)
        self.assertEqual(llama._ask(task="generate", text="line 3 of", max_tokens=12)["text"], text)
        asked = ["line 3 of", "a text that says what", "says", "line 7 of a"]
        alone = [llama.generate_text(prompt, 12, temperature=0) for prompt in asked]
        self.assertEqual(llama.generate_text(asked, 12, temperature=0), alone)
        texts = llama._ask(task="generate", text=asked, max_tokens=12)["texts"]
        self.assertEqual([written["text"] for written in texts], alone)
        # Of more than it reads, the end counts; nothing is gone on after as a text begins.
        long = TEXT[:1000]
        said = llama.generate_text(long, 12, temperature=0)
        self.assertTrue(said)
        self.assertTrue(llama._ask(task="generate", text=long, max_tokens=12)["text"].startswith(said))
        empty = llama._ask(task="generate", text="", max_tokens=12)["text"]
        self.assertEqual(llama.generate_text(["", "says"], 12, temperature=0), [empty, alone[2]])
        llama.close()
        t5 = llmasos.models.Transformer(**SMALL, form="t5", tokenizer=llmasos.tokenizers.Unigram(200))
        t5.fit(llmasos.datasets.from_list([TEXT]), **{**SHORT, "steps": 2})
        self.assertEqual(t5.config["model_type"], "t5")
        self.assertIsInstance(t5.generate_text("line 3 of", 5), str)
        t5.close()

    @unittest.skipUnless(numpy, "numpy is not installed")
    def test_weights_go_out_and_in_as_arrays_and_as_tensors_of_pytorch(self) -> None:
        model = llmasos.models.GPT(**SMALL, tokenizer=llmasos.tokenizers.BPE(400))
        model.fit(llmasos.datasets.from_list([TEXT]), **SHORT)
        before = model.generate_text("line 3 of", 8, temperature=0)
        state = model.state_dict()
        self.assertEqual({str(array.dtype) for array in state.values()}, {"float32"})
        model.load_state_dict({name: 0 * array for name, array in state.items()})
        self.assertNotEqual(model.generate_text("line 3 of", 8, temperature=0), before)
        with self.assertRaisesRegex(ValueError, "has the shape"):
            model.load_state_dict({name: array.reshape(-1) for name, array in state.items()})
        with self.assertRaisesRegex(ValueError, "is in one of"):
            model.load_state_dict({})
        if torch is not None:
            model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
            model.save("weights.pt")
            opened = torch.load("weights.pt", weights_only=True)
            self.assertEqual(opened.keys(), state.keys())
            self.assertTrue(all(numpy.array_equal(opened[name].numpy(), state[name]) for name in state))
        else:
            model.load_state_dict(state)
        self.assertEqual(model.generate_text("line 3 of", 8, temperature=0), before)
        model.close()

    @unittest.skipUnless(numpy, "numpy is not installed")
    def test_weights_of_a_folder_in_the_form_of_pytorch_go_out_and_in(self) -> None:
        model = llmasos.models.GPT(**SMALL, tokenizer=llmasos.tokenizers.BPE(400))
        model.fit(llmasos.datasets.from_list([TEXT]), **{**SHORT, "steps": 2})
        model.save("older")
        model.save("older.pt")
        Path("older", "model.safetensors").unlink()
        Path("older.pt").rename(Path("older", "pytorch_model.bin"))
        again = llmasos.models.GPT.from_pretrained("older")
        state, wanted = again.state_dict(), model.state_dict()
        self.assertEqual(state.keys(), wanted.keys())
        self.assertTrue(all(numpy.array_equal(state[name], wanted[name]) for name in wanted))
        again.load_state_dict({name: 0 * array for name, array in state.items()})
        self.assertFalse(any(array.any() for array in again.state_dict().values()))
        for used in (model, again):
            used.close()

    def test_model_of_another_kind_is_refused(self) -> None:
        model = llmasos.models.GPT(**SMALL, tokenizer=llmasos.tokenizers.Char())
        model.fit(llmasos.datasets.from_list([TEXT]), **{**SHORT, "steps": 2})
        model.save("gpt")
        self.assertIsInstance(model.generate_text("line", 5), str)
        with self.assertRaisesRegex(llmasos.LlmasosError, "Transformer is for marian, t5"):
            llmasos.models.Transformer.from_pretrained("gpt")
        model.close()


class Folders(unittest.TestCase):
    def test_folder_that_a_run_cannot_have_is_refused_before_anything_is_written(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            run, empty = Path(folder, "run"), Path(folder, "empty")
            (run / "checkpoints/step-00000002").mkdir(parents=True)
            (run / "data").mkdir()
            (run / "data/texts.jsonl").write_text("what the run was trained on")
            data = llmasos.datasets.from_list(["another text"])
            with self.assertRaisesRegex(llmasos.TrainingError, "has a run already; go on with it by resume="):
                llmasos.models.GPT().fit(data, folder=run)
            self.assertEqual((run / "data/texts.jsonl").read_text(), "what the run was trained on")
            with self.assertRaisesRegex(llmasos.TrainingError, "has no checkpoint to go on from"):
                llmasos.models.GPT().fit(data, resume=empty)
            self.assertFalse(empty.exists())


    def test_argument_of_another_kind_is_refused_with_one_that_would_do(self) -> None:
        data, learn = llmasos.datasets.from_list(["a text"]), llmasos.optimizers.Adam
        wrong: list[tuple[Any, dict[str, Any], str]] = [
            (["a text"], {}, r"data of fit\(\) is a list; .* class Dataset, such as datasets.from_list\(\)"),
            ("a.txt", {}, r"data of fit\(\) is a str"),
            (data, {"validation": ["a text"]}, r"validation of fit\(\) is a list; .*, or a share"),
            (data, {"optimizer": "adam"}, r"optimizer of fit\(\) is a str; .* such as optimizers.Adam\(\)"),
            (data, {"optimizer": learn}, r"optimizer of fit\(\) is the class Adam"),
            (data, {"loss": "mse"}, r"loss of fit\(\) is a str"),
            (data, {"schedule": "cosine"}, r"schedule of fit\(\) is a str"),
        ]
        with tempfile.TemporaryDirectory() as folder:
            for given, more, sentence in wrong:
                with self.assertRaisesRegex(TypeError, sentence):
                    llmasos.models.GPT().fit(given, folder=Path(folder, "run"), **more)
                self.assertFalse(Path(folder, "run").exists())


class Asking(unittest.TestCase):
    def test_more_texts_than_one_question_has_room_for_are_asked_in_several(self) -> None:
        asked: list[int] = []

        def ask(**question: Any) -> dict[str, Any]:
            texts = question["texts"] if question["task"] == "embed" else question["text"]
            asked.append(len(texts))
            if question["task"] == "embed":
                return {"vectors": [[float(text)] for text in texts]}
            return {"texts": [{"text": f"{text} {question['seed'] + number}"} for number, text in enumerate(texts)]}

        texts = [str(number) for number in range(70)]
        for model in (llmasos.models.BERT(), llmasos.models.Transformer()):
            with mock.patch.object(model, "_mounted", return_value=None), mock.patch.object(model, "_ask", ask):
                if isinstance(model, llmasos.models.BERT):
                    self.assertEqual([row[0] for row in model.embed(texts)], [float(text) for text in texts])
                else:
                    wanted = [f"{number} {5 + number}" for number in range(70)]
                    self.assertEqual(model.generate_text(texts, seed=5), wanted, "seeds count on")
        self.assertEqual(asked, [32, 32, 6] * 2)

    def test_more_texts_than_the_daemon_takes_in_one_call_are_embedded_in_several(self) -> None:
        mount, model = mock.MagicMock(), llmasos.models.BERT()
        mount.client.call.side_effect = lambda name, **args: [[float(text)] for text in args["texts"]]
        with mock.patch.object(model, "_mounted", return_value=mount):
            rows = model.embed(str(number) for number in range(1500))
        self.assertEqual([row[0] for row in rows], [float(number) for number in range(1500)])
        self.assertEqual([len(call.kwargs["texts"]) for call in mount.client.call.call_args_list], [1024, 476])


if __name__ == "__main__":
    unittest.main()
