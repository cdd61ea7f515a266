//! Linear layers, and low-rank adapters beside them (Hu et al., "LoRA", 2021).

use candle_core::Tensor;

use super::scope::Scope;
use crate::Result;
use crate::ops::linear::{Layout, linear};
use crate::ops::{dropout::residual, pool::scaled};
use crate::parameters::{Id, Init, Parameters};
use crate::ranks::{Part, enter, leave};
use crate::tape::Value;

/// How a weight is divided over tensor ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Every rank has all of it.
    Whole,
    /// By outputs, in Megatron-LM's words column-parallel: each rank computes its own, from an input that has
    /// [entered](crate::nn::Scope::enter). Of several equal blocks of outputs, such as queries, keys and values, a rank
    /// has its share of each.
    Outputs { blocks: usize },
    /// By inputs, row-parallel: each rank reads what it has computed itself, and results are summed over the ranks.
    Inputs,
}

impl Split {
    /// By outputs of one block.
    pub const OUTPUTS: Split = Split::Outputs { blocks: 1 };
}

/// x·W and maybe a bias.
#[derive(Clone, Debug)]
pub struct Linear {
    name: String,
    weight: Id,
    bias: Option<Id>,
    layout: Layout,
    split: Split,
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
        split: Split,
        init: Init,
    ) -> Result<Self> {
        let (shape, [input, output]) = match layout {
            Layout::OutIn => ([outputs, inputs], [1, 0]),
            Layout::InOut => ([inputs, outputs], [0, 1]),
        };
        let (weight, offset) = match split {
            Split::Whole => (Part::all(&shape), Part::all(&[outputs])),
            Split::Outputs { blocks } => {
                (parameters.share(&shape, output, blocks)?, parameters.share(&[outputs], 0, blocks)?)
            }
            Split::Inputs => (parameters.share(&shape, input, 1)?, Part::all(&[outputs])),
        };
        let weight = parameters.add_part(format!("{name}.weight"), weight, init)?;
        let bias = match bias {
            true => Some(parameters.add_part(format!("{name}.bias"), offset, Init::Zeros)?),
            false => None,
        };
        Ok(Linear { name: name.into(), weight, bias, layout, split, adapter: None })
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
        let (weight, bias) = (scope.value(self.weight), self.bias.map(|id| scope.value(id)));
        let ranks = scope.parameters.mesh().tensor();
        let y = match self.split {
            Split::Inputs if ranks.size() > 1 => {
                let part = linear(scope.tape, x, &weight, None, self.layout)?;
                leave(scope.tape, ranks, &part, bias.as_ref())?
            }
            _ => linear(scope.tape, x, &weight, bias.as_ref(), self.layout)?,
        };
        let Some(adapter) = self.adapter else { return Ok(y) };
        // By outputs, all ranks have the first matrix, and each the gradient of what its own outputs make of it. By inputs,
        // each has its columns of it, and all have the second one.
        let down = match self.split {
            Split::Outputs { .. } => enter(scope.tape, ranks, &scope.value(adapter.down))?,
            Split::Whole | Split::Inputs => scope.value(adapter.down),
        };
        let mut low = linear(scope.tape, x, &down, None, Layout::OutIn)?;
        if self.split == Split::Inputs && ranks.size() > 1 {
            low = leave(scope.tape, ranks, &low, None)?;
        }
        let change = linear(scope.tape, &low, &scope.value(adapter.up), None, Layout::OutIn)?;
        residual(scope.tape, &y, &scaled(scope.tape, &change, adapter.scale)?, None)
    }

    /// Puts an adapter beside the weight, under the names of Hugging Face's PEFT. It changes nothing until it is
    /// trained: its second matrix begins as zeros.
    ///
    /// # Errors
    /// If candle cannot make the tensors.
    pub fn adapt(&mut self, parameters: &mut Parameters, lora: Lora) -> Result<()> {
        let dims = parameters.at(self.weight).part.whole().to_vec();
        let (inputs, outputs) = match self.layout {
            Layout::OutIn => (dims[1], dims[0]),
            Layout::InOut => (dims[0], dims[1]),
        };
        // PyTorch's initial values of a linear layer, which PEFT has, too.
        let init = Init::Uniform((inputs as f64).sqrt().recip());
        let shapes = [[lora.rank, inputs], [outputs, lora.rank]];
        let [down, up] = match self.split {
            Split::Whole => shapes.map(|shape| Part::all(&shape)),
            Split::Outputs { blocks } => [Part::all(&shapes[0]), parameters.share(&shapes[1], 0, blocks)?],
            Split::Inputs => [parameters.share(&shapes[0], 1, 1)?, Part::all(&shapes[1])],
        };
        let down = parameters.add_part(format!("{}.lora_A.weight", self.name), down, init)?;
        let up = parameters.add_part(format!("{}.lora_B.weight", self.name), up, Init::Zeros)?;
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
