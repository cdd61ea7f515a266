//! Which tensors a model of each family has, by llama.cpp's names and in the order in which they are filled.

use super::super::tensor::TensorType;
use super::super::write::Plan;
use super::{EXPERTS, Family, Shape};

/// Names the tensors of a shape.
pub(super) struct Tensors<'a> {
    pub(super) shape: &'a Shape,
    pub(super) plan: &'a mut Plan,
}

impl Tensors<'_> {
    pub(super) fn all(&mut self) {
        let shape = self.shape;
        self.matrix("token_embd", shape.embedding, shape.vocabulary);
        match shape.family {
            Family::Llama
            | Family::Qwen2
            | Family::Gemma2
            | Family::Mamba
            | Family::Jamba
            | Family::Qwen3Moe => self.vector("output_norm.weight", shape.embedding),
            Family::Gpt2 => {
                self.positions();
                self.norm("output_norm");
            }
            Family::Bert => {
                self.positions();
                self.plan.tensor("token_types.weight", &[shape.embedding.into(), 2], TensorType::F32);
                self.norm("token_embd_norm");
            }
        }
        if !shape.tied && shape.family.can_untie() {
            self.matrix("output", shape.embedding, shape.vocabulary);
        }
        for layer in 0..shape.layers {
            let at = format!("blk.{layer}");
            match shape.family {
                Family::Llama | Family::Qwen2 | Family::Gemma2 | Family::Qwen3Moe => self.llama_layer(&at),
                Family::Gpt2 => self.gpt2_layer(&at),
                Family::Bert => self.bert_layer(&at),
                Family::Mamba => self.mamba_layer(&at),
                Family::Jamba => self.jamba_layer(&at, shape.attends(layer)),
            }
        }
    }

    fn llama_layer(&mut self, at: &str) {
        self.vector(&format!("{at}.attn_norm.weight"), self.shape.embedding);
        self.attention(at);
        if self.shape.family == Family::Gemma2 {
            self.vector(&format!("{at}.post_attention_norm.weight"), self.shape.embedding);
        }
        match self.shape.family {
            Family::Qwen3Moe => self.layer_of_experts(at),
            _ => self.gated_layer(at),
        }
        if self.shape.family == Family::Gemma2 {
            self.vector(&format!("{at}.post_ffw_norm.weight"), self.shape.embedding);
        }
    }

    fn mamba_layer(&mut self, at: &str) {
        self.vector(&format!("{at}.attn_norm.weight"), self.shape.embedding);
        self.mamba_mixer(at);
    }

    fn jamba_layer(&mut self, at: &str, attends: bool) {
        self.vector(&format!("{at}.attn_norm.weight"), self.shape.embedding);
        if attends {
            self.attention(at);
        } else {
            self.mamba_mixer(at);
            self.jamba_mixer_norms(at);
        }
        self.gated_layer(at);
    }

    fn attention(&mut self, at: &str) {
        let shape = self.shape;
        let shared = shape.embedding / shape.heads * shape.kv_heads;
        for (name, width) in [("attn_q", shape.embedding), ("attn_k", shared), ("attn_v", shared)] {
            self.matrix(&format!("{at}.{name}"), shape.embedding, width);
            if shape.family == Family::Qwen2 {
                self.vector(&format!("{at}.{name}.bias"), width);
            }
        }
        if shape.family == Family::Qwen3Moe {
            for name in ["attn_q_norm", "attn_k_norm"] {
                self.vector(&format!("{at}.{name}.weight"), shape.embedding / shape.heads);
            }
        }
        self.matrix(&format!("{at}.attn_output"), shape.embedding, shape.embedding);
    }

    /// A feed-forward layer with a gate, and the norm before it.
    fn gated_layer(&mut self, at: &str) {
        let shape = self.shape;
        self.vector(&format!("{at}.ffn_norm.weight"), shape.embedding);
        self.matrix(&format!("{at}.ffn_gate"), shape.embedding, shape.feed_forward);
        self.matrix(&format!("{at}.ffn_up"), shape.embedding, shape.feed_forward);
        self.matrix(&format!("{at}.ffn_down"), shape.feed_forward, shape.embedding);
    }

    /// A layer of such, the norm before it, and what chooses among them, which is kept in full.
    fn layer_of_experts(&mut self, at: &str) {
        let (width, inner) = (self.shape.embedding, self.shape.feed_forward);
        self.vector(&format!("{at}.ffn_norm.weight"), width);
        self.plan.tensor(
            &format!("{at}.ffn_gate_inp.weight"),
            &[width.into(), EXPERTS.into()],
            TensorType::F32,
        );
        for (name, inputs, outputs) in [("gate", width, inner), ("up", width, inner), ("down", inner, width)]
        {
            let sizes = [inputs.into(), outputs.into(), EXPERTS.into()];
            self.plan.tensor(&format!("{at}.ffn_{name}_exps.weight"), &sizes, self.shape.kind);
        }
    }

    fn gpt2_layer(&mut self, at: &str) {
        let shape = self.shape;
        self.norm(&format!("{at}.attn_norm"));
        self.linear(&format!("{at}.attn_qkv"), shape.embedding, 3 * shape.embedding);
        self.linear(&format!("{at}.attn_output"), shape.embedding, shape.embedding);
        self.norm(&format!("{at}.ffn_norm"));
        self.linear(&format!("{at}.ffn_up"), shape.embedding, shape.feed_forward);
        self.linear(&format!("{at}.ffn_down"), shape.feed_forward, shape.embedding);
    }

    fn bert_layer(&mut self, at: &str) {
        let shape = self.shape;
        for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            self.linear(&format!("{at}.{name}"), shape.embedding, shape.embedding);
        }
        self.norm(&format!("{at}.attn_output_norm"));
        self.linear(&format!("{at}.ffn_up"), shape.embedding, shape.feed_forward);
        self.linear(&format!("{at}.ffn_down"), shape.feed_forward, shape.embedding);
        self.norm(&format!("{at}.layer_output_norm"));
    }

    /// Tables that are added, not multiplied, are kept in full.
    fn positions(&mut self) {
        let sizes = [self.shape.embedding.into(), self.shape.context.into()];
        self.plan.tensor("position_embd.weight", &sizes, TensorType::F32);
    }

    pub(super) fn matrix(&mut self, name: &str, inputs: u32, outputs: u32) {
        self.plan.tensor(&format!("{name}.weight"), &[inputs.into(), outputs.into()], self.shape.kind);
    }

    pub(super) fn vector(&mut self, name: &str, width: u32) {
        self.plan.tensor(name, &[width.into()], TensorType::F32);
    }

    fn linear(&mut self, name: &str, inputs: u32, outputs: u32) {
        self.matrix(name, inputs, outputs);
        self.vector(&format!("{name}.bias"), outputs);
    }

    fn norm(&mut self, name: &str) {
        self.vector(&format!("{name}.weight"), self.shape.embedding);
        self.vector(&format!("{name}.bias"), self.shape.embedding);
    }
}
