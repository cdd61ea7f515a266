"""Makes the reference values that tests/parity.rs compares with, by PyTorch and Hugging Face's transformers.

    python3 -m venv VENV && VENV/bin/pip install torch transformers
    VENV/bin/python drivers/train/tests/peers/fixtures.py drivers/train/tests/fixtures

Each model is tiny and of random weights. Its file has the weights as they begin (`weight:NAME`), the inputs, and in
f64 the logits, the loss, the gradients (`gradient:NAME`) and the losses of ten steps of AdamW.
"""

import json
import sys
from pathlib import Path

import torch
import transformers as hf
from safetensors.torch import save_file

RATE, DECAY, BETAS = 1e-3, 0.1, (0.9, 0.95)
COMMON = {"attn_implementation": "eager"}


def no_dropout(config):
    for name in list(vars(config)):
        if "dropout" in name or "pdrop" in name:
            setattr(config, name, 0.0)
    return config


def batch(vocabulary, rows, length):
    tokens = torch.randint(3, vocabulary, (rows, length))
    targets = torch.randint(3, vocabulary, (rows, length))
    targets[0, 1] = -100
    return tokens, targets


def padded(rows, length):
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[-1, length - 2 :] = 0
    return mask


def cross_entropy(logits, targets):
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def causal(config, cls):
    model = cls(config)
    tokens, targets = batch(config.vocab_size, 2, 9)
    return model, {"tokens": tokens, "targets": targets}, lambda: model(input_ids=tokens).logits, cross_entropy


def scaled(**rope):
    return causal(
        hf.LlamaConfig(vocab_size=23, hidden_size=16, intermediate_size=12, num_hidden_layers=1, num_attention_heads=1,
                       max_position_embeddings=32, rope_parameters={"rope_theta": 100.0, **rope}, **COMMON),
        hf.LlamaForCausalLM)


def weighted(weights):
    def loss(logits, targets):
        logits, targets = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
        return torch.nn.functional.cross_entropy(logits, targets, weight=weights, label_smoothing=0.1)
    return loss


def bert(cls, what=None, **more):
    config = no_dropout(
        hf.BertConfig(vocab_size=23, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                      intermediate_size=12, max_position_embeddings=12, **COMMON, **more))
    model = cls(config)
    tokens, targets = batch(23, 4, 7)
    mask = padded(4, 7)
    types = torch.zeros_like(tokens)
    types[:, 4:] = 1
    inputs = {"tokens": tokens, "mask": mask, "types": types}
    call = lambda: model(input_ids=tokens, attention_mask=mask, token_type_ids=types)
    if cls is hf.BertForMaskedLM:
        targets[:, ::2] = -100
        return model, {**inputs, "targets": targets}, lambda: call().logits, cross_entropy
    weights = torch.tensor([0.5, 2.0, 1.25], dtype=torch.float64)
    if what == "weighted":
        targets = torch.tensor([2, 0, 1, 2])
        if cls is hf.BertForTokenClassification:
            targets = batch(23, 4, 7)[0] % 3
            targets[:, 0] = -100
        return model, {**inputs, "targets": targets, "weights": weights}, lambda: call().logits, weighted(weights)
    if what == "sets":
        values = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1]], dtype=torch.float64)
        bce = lambda x, _: torch.nn.functional.binary_cross_entropy_with_logits(x, values)
        return model, {**inputs, "values": values}, lambda: call().logits, bce
    if what == "numbers":
        values = torch.tensor([0.5, -1.25, 3.0, 0.0], dtype=torch.float64)
        error = lambda x, _: torch.nn.functional.mse_loss(x.squeeze(-1), values)
        return model, {**inputs, "values": values}, lambda: call().logits, error
    if cls is hf.BertForSequenceClassification:
        targets = torch.tensor([2, 0, 1, 2])
        return model, {**inputs, "targets": targets}, lambda: call().logits, cross_entropy
    if cls is hf.BertForTokenClassification:
        targets = targets % 3
        targets[:, 0] = -100
        return model, {**inputs, "targets": targets}, lambda: call().logits, cross_entropy
    if cls is hf.BertForQuestionAnswering:
        targets = torch.tensor([[0, 3], [1, 1], [2, 4], [3, 4]])
        logits = lambda: torch.stack([call().start_logits, call().end_logits], -1)
        return model, {**inputs, "targets": targets}, logits, lambda x, t: cross_entropy(x.transpose(1, 2), t)

    def sentences():
        hidden, m = call().last_hidden_state, mask[..., None]
        return torch.nn.functional.normalize((hidden * m).sum(1) / m.sum(1), dim=-1)

    def ranking(x, _):
        return cross_entropy(20.0 * x[0::2] @ x[1::2].T, torch.arange(x.shape[0] // 2))

    if what == "near":
        values = torch.tensor([0.75, float("nan"), -0.25, float("nan")], dtype=torch.float64)
        near = lambda x, _: torch.nn.functional.mse_loss(torch.cosine_similarity(x[0::2], x[1::2]), values[0::2])
        return model, {**inputs, "values": values}, sentences, near
    return model, inputs, sentences, ranking


def pair(config, cls):
    model = cls(config)
    source, _ = batch(config.vocab_size, 2, 8)
    tokens, targets = batch(config.vocab_size, 2, 6)
    mask = padded(2, 8)
    inputs = {"source": source, "source_mask": mask, "tokens": tokens, "targets": targets}
    logits = lambda: model(input_ids=source, attention_mask=mask, decoder_input_ids=tokens).logits
    return model, inputs, logits, cross_entropy


def t5(**more):
    return no_dropout(
        hf.T5Config(vocab_size=23, d_model=8, d_kv=6, d_ff=12, num_layers=2, num_heads=2,
                    relative_attention_num_buckets=8, relative_attention_max_distance=6, **COMMON, **more))


LABELS = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
MODELS = {
    "gpt2": lambda: causal(
        no_dropout(hf.GPT2Config(vocab_size=23, n_positions=12, n_embd=8, n_layer=2, n_head=2, **COMMON)),
        hf.GPT2LMHeadModel),
    "llama": lambda: causal(
        hf.LlamaConfig(vocab_size=23, hidden_size=16, intermediate_size=12, num_hidden_layers=2,
                       num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=12, **COMMON),
        hf.LlamaForCausalLM),
    "llama-llama3": lambda: scaled(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                   original_max_position_embeddings=8),
    "llama-yarn": lambda: scaled(rope_type="yarn", factor=4.0, original_max_position_embeddings=8),
    "bert-masked": lambda: bert(hf.BertForMaskedLM),
    "bert-text": lambda: bert(hf.BertForSequenceClassification, **LABELS),
    "bert-tokens": lambda: bert(hf.BertForTokenClassification, **LABELS),
    "bert-answer": lambda: bert(hf.BertForQuestionAnswering),
    "bert-sentence": lambda: bert(lambda config: hf.BertModel(config, add_pooling_layer=False)),
    "bert-weighted": lambda: bert(hf.BertForSequenceClassification, "weighted", **LABELS),
    "bert-tokens-weighted": lambda: bert(hf.BertForTokenClassification, "weighted", **LABELS),
    "bert-sets": lambda: bert(hf.BertForSequenceClassification, "sets", problem_type="multi_label_classification",
                              **LABELS),
    "bert-numbers": lambda: bert(hf.BertForSequenceClassification, "numbers", problem_type="regression",
                                 id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0}),
    "bert-near": lambda: bert(lambda config: hf.BertModel(config, add_pooling_layer=False), "near"),
    "marian": lambda: pair(
        no_dropout(hf.MarianConfig(vocab_size=23, d_model=8, encoder_layers=2, decoder_layers=2,
                                   encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=12,
                                   decoder_ffn_dim=12, max_position_embeddings=12, scale_embedding=True,
                                   activation_function="relu", pad_token_id=0, eos_token_id=1,
                                   decoder_start_token_id=0, **COMMON)),
        hf.MarianMTModel),
    "t5": lambda: pair(t5(), hf.T5ForConditionalGeneration),
    "t5-gated": lambda: pair(t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
                             hf.T5ForConditionalGeneration),
}


def scaled_positions(config):
    """What transformers makes of positions that are scaled, in f64."""
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind == "default":
        return None
    before = torch.float, torch.float32
    torch.float = torch.float32 = torch.float64
    try:
        return hf.modeling_rope_utils.ROPE_INIT_FUNCTIONS[kind](config, None)
    finally:
        torch.float, torch.float32 = before


def in_f64(model):
    """Lets a model compute in f64 where transformers goes to f32 in between: norms, softmaxes, positions."""
    scaled = scaled_positions(model.config)
    softmax, to = torch.nn.functional.softmax, torch.Tensor.to
    torch.nn.functional.softmax = lambda x, dim=-1, dtype=None, **_: softmax(x, dim=dim)
    torch.Tensor.float = lambda self: self
    torch.Tensor.to = lambda self, *a, **k: self if torch.float32 in (*a, *k.values()) else to(self, *a, **k)
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            size = 2 * module.inv_freq.shape[0]
            module.inv_freq = 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
            if scaled is not None:
                module.inv_freq, module.attention_scaling = scaled
        if type(module).__name__ == "MarianSinusoidalPositionalEmbedding":
            rows, width = module.weight.shape
            step = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
            angles = torch.arange(rows, dtype=torch.float64)[:, None] * step
            module.weight.data = torch.cat([angles.sin(), angles.cos()], 1)


def make(name, folder):
    torch.manual_seed(sum(map(ord, name)))
    model, inputs, logits, loss_of = MODELS[name]()
    model.double()
    for parameter in model.parameters():
        if parameter.dim() == 1:  # norms and biases, which begin as ones and zeros
            parameter.data += 0.1 * torch.randn_like(parameter)
    # Weights are kept in f32, so that they are the same numbers in both types.
    for parameter in model.parameters():
        parameter.data = parameter.data.float().double()
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    out = {f"weight:{n}": p.detach().float().clone() for n, p in named.items()}
    restore = torch.nn.functional.softmax, torch.Tensor.float, torch.Tensor.to
    in_f64(model)
    model.eval()
    first = logits()
    loss = loss_of(first, inputs.get("targets"))
    loss.backward()
    out["logits"], out["loss"] = first.detach(), loss.detach().reshape(1)
    out |= {f"gradient:{n}": (p.grad if p.grad is not None else torch.zeros_like(p)).clone() for n, p in named.items()}
    groups = [
        {"params": [p for p in named.values() if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in named.values() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, eps=1e-8)
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = loss_of(logits(), inputs.get("targets"))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(named.values(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    torch.nn.functional.softmax, torch.Tensor.float, torch.Tensor.to = restore
    out["losses"] = torch.tensor(losses, dtype=torch.float64)
    kept = lambda t: t if t.is_floating_point() else t.to(torch.int64)
    out |= {f"input:{n}": kept(t).contiguous() for n, t in inputs.items()}
    config = json.loads(model.config.to_json_string(use_diff=False))
    config["architectures"] = [type(model).__name__]
    keep = {k: v for k, v in config.items() if v is not None}
    save_file({k: v.contiguous() for k, v in out.items()}, folder / f"{name}.safetensors",
              metadata={"config": json.dumps(keep)})
    print(name, float(out["loss"]), losses[-1], (folder / f"{name}.safetensors").stat().st_size)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or MODELS:
        make(name, folder)


if __name__ == "__main__":
    main()
