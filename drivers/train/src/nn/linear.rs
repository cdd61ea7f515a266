//! Linear layers, and low-rank adapters beside them (Hu et al., "LoRA", 2021).

use candle_core::Tensor;

use super::scope::Scope;
use crate::Result;
use crate::ops::linear::{Layout, linear};
use crate::ops::{dropout::residual, pool::scaled};
use crate::parameters::{Id, Init, Parameters};
use crate::tape::Value;

/// x·W and maybe a bias.
#[derive(Clone, Debug)]
pub struct Linear {
    name: String,
    weight: Id,
    bias: Option<Id>,
    layout: Layout,
    adapter: Option<Adapter>,
}

/// What low-rank adapters are to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lora {
    /// The rank of the change of a weight.
    pub rank: usize,
    /// The change is multiplied by this over the rank.
    pub alpha: f64,
}

#[derive(Clone, Copy, Debug)]
struct Adapter {
    down: Id,
    up: Id,
    scale: f64,
}

impl Linear {
    /// Adds `NAME.weight`, and `NAME.bias` where `bias` says so.
    ///
    /// # Errors
    /// If candle cannot make the tensors.
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        [inputs, outputs]: [usize; 2],
        bias: bool,
        layout: Layout,
        init: Init,
    ) -> Result<Self> {
        let shape = match layout {
            Layout::OutIn => [outputs, inputs],
            Layout::InOut => [inputs, outputs],
        };
        let weight = parameters.add(format!("{name}.weight"), &shape, init)?;
        let bias = match bias {
            true => Some(parameters.add(format!("{name}.bias"), &[outputs], Init::Zeros)?),
            false => None,
        };
        Ok(Linear { name: name.into(), weight, bias, layout, adapter: None })
    }

    /// Its name, without `.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its weight's place.
    pub fn weight(&self) -> Id {
        self.weight
    }

    /// Computes the layer.
    ///
    /// # Errors
    /// If the shapes do not go together.
    pub fn forward(&self, scope: &Scope<'_, '_>, x: &Value) -> Result<Value> {
        let bias = self.bias.map(|id| scope.value(id));
        let y = linear(scope.tape, x, &scope.value(self.weight), bias.as_ref(), self.layout)?;
        let Some(adapter) = self.adapter else { return Ok(y) };
        let low = linear(scope.tape, x, &scope.value(adapter.down), None, Layout::OutIn)?;
        let change = linear(scope.tape, &low, &scope.value(adapter.up), None, Layout::OutIn)?;
        residual(scope.tape, &y, &scaled(scope.tape, &change, adapter.scale)?, None)
    }

    /// Puts an adapter beside the weight, under the names of Hugging Face's PEFT. It changes nothing until it is
    /// trained: its second matrix begins as zeros.
    ///
    /// # Errors
    /// If candle cannot make the tensors.
    pub fn adapt(&mut self, parameters: &mut Parameters, lora: Lora) -> Result<()> {
        let dims = parameters.at(self.weight).var().dims().to_vec();
        let (inputs, outputs) = match self.layout {
            Layout::OutIn => (dims[1], dims[0]),
            Layout::InOut => (dims[0], dims[1]),
        };
        // PyTorch's initial values of a linear layer, which PEFT has, too.
        let init = Init::Uniform((inputs as f64).sqrt().recip());
        let down = parameters.add(format!("{}.lora_A.weight", self.name), &[lora.rank, inputs], init)?;
        let up =
            parameters.add(format!("{}.lora_B.weight", self.name), &[outputs, lora.rank], Init::Zeros)?;
        self.adapter = Some(Adapter { down, up, scale: lora.alpha / lora.rank as f64 });
        Ok(())
    }

    /// The weight with its adapter in it, and the names of the adapter's parameters; `None` without an adapter.
    ///
    /// # Errors
    /// If candle cannot multiply them.
    pub fn merged(&self, parameters: &Parameters) -> Result<Option<(Tensor, [String; 2])>> {
        let Some(adapter) = self.adapter else { return Ok(None) };
        let tensor = |id| parameters.at(id).var().as_detached_tensor();
        let change = (tensor(adapter.up).matmul(&tensor(adapter.down))? * adapter.scale)?;
        let change = match self.layout {
            Layout::OutIn => change,
            Layout::InOut => change.t()?.contiguous()?,
        };
        let names = [adapter.down, adapter.up].map(|id| parameters.at(id).name().to_string());
        Ok(Some(((tensor(self.weight) + change)?, names)))
    }
}
