#!/usr/bin/env python3
"""Trains the starter model and writes it as a GGUF that llama.cpp runs.

The starter exists so that `make run` has something to mount where nobody has downloaded a model. It is a small
language model in Llama's form (RMSNorm, rotary positions, SwiGLU), trained on two texts in the public domain:
Shakespeare's plays (the "tinyshakespeare" selection) and Tolstoy's War and Peace in the translation of Louise and
Aylmer Maude. Its byte-level vocabulary can express any text, though it has learned English alone.

    pip install -r requirements.txt
    python3 train.py --out starter.gguf tinyshakespeare.txt war-and-peace.txt

The learning rate is constant up to a cooldown at the end, so a run can be lengthened from its checkpoint. The
cooldown trains at the full context length; before it, windows are shorter, which is cheaper.
"""

import argparse
import hashlib
import json
import pathlib
import time

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import tokenizers

SOURCES = {
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed": "Shakespeare, plays (tinyshakespeare)",
    "eaecfcb30408e2bc35ffe69b297127e3a6ca75548c033df4d2e703b5ff711f8d": "Tolstoy, War and Peace (tr. Maude)",
}
DOCUMENT = "<|endoftext|>"
VOCABULARY = 1536
WIDTH = 160  # rows of quantised blocks are multiples of 32
HEADS = 5
LAYERS = 5
HIDDEN = 448
CONTEXT = 512
SHORT = 128  # tokens of a window before the cooldown
ROPE_BASE = 10000.0
NORM_EPSILON = 1e-5
BATCH_TOKENS = 2048
HELD_OUT = 0.03  # of each text, from its end
RATE_MATRICES = 0.02
RATE_OTHERS = 0.004


def read_texts(paths):
    """Reads the sources and joins their hard-wrapped lines where they are prose."""
    texts = []
    for path in paths:
        raw = pathlib.Path(path).read_bytes()
        digest = hashlib.sha256(raw).hexdigest()
        if digest not in SOURCES:
            raise SystemExit(f"train.py: {path} is not one of the texts that this model is made of: sha256 {digest}")
        text = raw.decode("utf-8").replace("\r\n", "\n")
        texts.append(unwrap(text) if "War and Peace" in SOURCES[digest] else text)
    return texts


def unwrap(text):
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    return "\n\n".join(part for part in paragraphs if part)


def make_tokenizer(texts):
    """Trains a byte-level BPE: token 0 separates documents, tokens 1..256 are the bytes, the rest are merges."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[DOCUMENT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def split(tokenizer, texts):
    """Gives the training tokens, the held-out tokens, and the bytes that the latter stand for."""
    train, held, held_bytes = [], [], 0
    for text in texts:
        cut = text.index("\n\n", int(len(text) * (1 - HELD_OUT)))
        train.append(np.array(tokenizer.encode(text[:cut]).ids, np.int32))
        held.append(np.array(tokenizer.encode(text[cut:]).ids, np.int32))
        held_bytes += len(text[cut:].encode())
    return np.concatenate(train), np.concatenate(held), held_bytes


def initial(key):
    """Draws the weights: a dictionary by GGUF's tensor names, matrices as (outputs, inputs)."""
    def matrix(index, rows, columns, scale):
        return scale * jax.random.normal(jax.random.fold_in(key, index), (rows, columns), jnp.float32)

    weights = {"token_embd": matrix(0, VOCABULARY, WIDTH, 0.02), "output_norm": jnp.ones(WIDTH)}
    inner = WIDTH**-0.5
    for layer in range(LAYERS):
        at = 10 * (layer + 1)
        weights |= {
            f"blk.{layer}.attn_norm": jnp.ones(WIDTH),
            f"blk.{layer}.attn_q": matrix(at, WIDTH, WIDTH, inner),
            f"blk.{layer}.attn_k": matrix(at + 1, WIDTH, WIDTH, inner),
            f"blk.{layer}.attn_v": matrix(at + 2, WIDTH, WIDTH, inner),
            f"blk.{layer}.attn_output": matrix(at + 3, WIDTH, WIDTH, 0.1 * inner),
            f"blk.{layer}.ffn_norm": jnp.ones(WIDTH),
            f"blk.{layer}.ffn_gate": matrix(at + 4, HIDDEN, WIDTH, inner),
            f"blk.{layer}.ffn_up": matrix(at + 5, HIDDEN, WIDTH, inner),
            f"blk.{layer}.ffn_down": matrix(at + 6, WIDTH, HIDDEN, 0.1 * HIDDEN**-0.5),
        }
    return weights


def norm(x, weight):
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + NORM_EPSILON) * weight


def rotate(x):
    """Rotary positions on neighbouring pairs, as llama.cpp computes them for this architecture. x: (b, t, h, d)."""
    length, size = x.shape[1], x.shape[3]
    angle = jnp.arange(length)[:, None] * ROPE_BASE ** (-jnp.arange(0, size, 2) / size)[None, :]
    cos, sin = jnp.cos(angle)[None, :, None, :], jnp.sin(angle)[None, :, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def logits(weights, tokens):
    """Scores of the next token at every position. tokens: (b, t); result: (b, t, vocabulary)."""
    batch, length = tokens.shape
    x = weights["token_embd"][tokens]
    mask = jnp.where(jnp.tril(jnp.ones((length, length), bool)), 0.0, -1e9)
    for layer in range(LAYERS):
        w = {name: weights[f"blk.{layer}.{name}"] for name in
             ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")}
        h = norm(x, w["attn_norm"])
        q, k, v = ((h @ w[name].T).reshape(batch, length, HEADS, -1) for name in ("attn_q", "attn_k", "attn_v"))
        scores = jnp.einsum("bqhd,bkhd->bhqk", rotate(q), rotate(k)) * (WIDTH // HEADS) ** -0.5
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores + mask, axis=-1), v)
        x = x + mixed.reshape(batch, length, WIDTH) @ w["attn_output"].T
        h = norm(x, w["ffn_norm"])
        x = x + (jax.nn.silu(h @ w["ffn_gate"].T) * (h @ w["ffn_up"].T)) @ w["ffn_down"].T
    return norm(x, weights["output_norm"]) @ weights["token_embd"].T


def loss(weights, window):
    scores = logits(weights, window[:, :-1])
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(scores), window[:, 1:, None], axis=-1))


def orthogonalise(update):
    """The nearest matrix with orthogonal rows, by five Newton-Schulz steps (Jordan, "Muon", 2024)."""
    tall = update.shape[0] > update.shape[1]
    x = update.T if tall else update
    x = x / (jnp.linalg.norm(x) + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x


def is_inner_matrix(name, weight):
    return weight.ndim == 2 and name != "token_embd"


@jax.jit
def train_step(weights, state, window, rate):
    """Muon for the layers' matrices, Adam for the embedding and the norms."""
    value, gradients = jax.value_and_grad(loss)(weights, window)
    count = state["count"] + 1
    new_weights, new_state = {}, {"count": count, "first": {}, "second": {}}
    for name, weight in weights.items():
        gradient = gradients[name]
        if is_inner_matrix(name, weight):
            first = 0.95 * state["first"][name] + gradient
            step = orthogonalise(gradient + 0.95 * first) * max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
            new_weights[name] = weight * (1 - rate * RATE_MATRICES * 0.1) - rate * RATE_MATRICES * step
            second = state["second"][name]
        else:
            first = 0.9 * state["first"][name] + 0.1 * gradient
            second = 0.95 * state["second"][name] + 0.05 * gradient**2
            step = first / (1 - 0.9**count) / (jnp.sqrt(second / (1 - 0.95**count)) + 1e-10)
            new_weights[name] = weight - rate * RATE_OTHERS * step
        new_state["first"][name], new_state["second"][name] = first, second
    return new_weights, new_state, value


def windows(tokens, random, length):
    """Random pieces of the text, each behind a document separator, as the model meets text later."""
    starts = random.integers(0, len(tokens) - length, BATCH_TOKENS // length)
    return np.stack([np.concatenate([[0], tokens[at:at + length]]) for at in starts]).astype(np.int32)


def evaluate(weights, held):
    """Mean loss over the held-out text in nats a token."""
    count = len(held) // CONTEXT
    rows = held[:count * CONTEXT].reshape(count, CONTEXT)
    rows = np.concatenate([np.zeros((count, 1), np.int32), rows], axis=1)
    measure = jax.jit(loss)
    return float(np.mean([measure(weights, rows[at:at + 1]) for at in range(count)]))


def save(path, weights, state, step):
    flat = {f"w/{name}": weight for name, weight in weights.items()}
    flat |= {f"{kind}/{name}": value for kind in ("first", "second") for name, value in state[kind].items()}
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, step=step, count=state["count"], **flat)
    partial.rename(path)


def restore(path):
    data = np.load(path)
    pick = lambda kind: {n.split("/", 1)[1]: jnp.array(data[n]) for n in data.files if n.startswith(kind + "/")}
    return pick("w"), {"count": int(data["count"]), "first": pick("first"), "second": pick("second")}, int(data["step"])


def train(options, tokens, held, held_bytes):
    weights = initial(jax.random.key(options.seed))
    zeros = lambda: {name: jnp.zeros_like(weight) for name, weight in weights.items()}
    state, start = {"count": 0, "first": zeros(), "second": zeros()}, 0
    if options.checkpoint and options.checkpoint.exists():
        weights, state, start = restore(options.checkpoint)
    print(f"{sum(w.size for w in weights.values()):,} weights, {len(tokens):,} tokens, from step {start}", flush=True)
    began, recent = time.monotonic(), []
    for step in range(start, options.steps):
        cooling = max(0, step - (options.steps - options.cooldown)) / max(1, options.cooldown)
        rate = min(1.0, (step + 1) / 50) * (1 - cooling)
        length = CONTEXT if step >= options.steps - options.cooldown else SHORT
        window = windows(tokens, np.random.default_rng((options.seed, step)), length)
        weights, state, value = train_step(weights, state, window, rate)
        recent.append(float(value))
        if (step + 1) % 25 == 0:
            print(f"step {step + 1} loss {np.mean(recent):.3f} {time.monotonic() - began:.0f} s", flush=True)
            recent = []
            if options.checkpoint:
                save(options.checkpoint, weights, state, step + 1)
    value = evaluate(weights, held)
    bits = value / np.log(2) * len(held) / held_bytes
    print(f"held-out text: {value:.3f} nats a token, {bits:.3f} bits a byte", flush=True)
    return weights, value, bits


def export(path, weights, tokenizer, steps, value, bits):
    """Writes the GGUF: matrices in Q8_0, norms in F32, and metadata that says honestly what the model is."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("llmasos starter")
    writer.add_description(
        "A tiny language model trained on public-domain prose and plays. It continues text; it follows no "
        f"instructions and knows no facts. {steps} steps of {BATCH_TOKENS} tokens; {value:.3f} nats a token, "
        f"{bits:.3f} bits a byte on held-out text.")
    writer.add_license("CC0-1.0")
    writer.add_languages(["en"])
    writer.add_string("general.source.texts", "; ".join(SOURCES.values()))
    writer.add_vocab_size(VOCABULARY)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    add_tokenizer(writer, tokenizer)
    for name, weight in sorted(weights.items()):
        array = np.asarray(weight, np.float32)
        if array.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{name}.weight", gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(f"{name}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer, tokenizer):
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(tokens) - 1))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="+", help="the source texts, known by their sha256")
    parser.add_argument("--out", required=True, help="the GGUF to write")
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--cooldown", type=int, default=225, help="steps at the end in which the rate falls to 0")
    parser.add_argument("--checkpoint", type=pathlib.Path, help="an .npz to resume from and to save to")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    texts = read_texts(options.texts)
    tokenizer = make_tokenizer(texts)
    tokens, held, held_bytes = split(tokenizer, texts)
    weights, value, bits = train(options, tokens, held, held_bytes)
    export(options.out, weights, tokenizer, options.steps, value, bits)


if __name__ == "__main__":
    main()
