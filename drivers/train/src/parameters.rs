//! The parameters of a model: named variables in a fixed order, under the names that Hugging Face's files have.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

use crate::ops::{Kernels, real::Real};
use crate::random::{self, Philox};
use crate::ranks::{Mesh, Part};
use crate::tape::Tape;
use crate::{Error, Result};

/// One variable of a model.
#[derive(Clone, Debug)]
pub struct Parameter {
    name: String,
    var: Var,
    /// Whether training changes it.
    pub trainable: bool,
    /// Whether weight decay pulls it towards zero: matrices and embeddings, and neither biases nor norms.
    pub decay: bool,
    /// What the step's rate is multiplied by: 1, but for groups with a rate of their own.
    pub rate: f64,
    /// Its group's own weight decay, in place of the optimiser's.
    pub weight_decay: Option<f64>,
    /// Its group's own betas, in place of Adam's.
    pub betas: Option<[f64; 2]>,
    /// Which part of the whole it is.
    pub part: Part,
    /// Whether several stages of a pipeline have it: a table of tokens that is the output layer, too.
    pub shared: bool,
}

impl Parameter {
    /// The name that it has in Hugging Face's files.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The variable itself.
    pub fn var(&self) -> &Var {
        &self.var
    }

    /// How many numbers it has.
    pub fn count(&self) -> usize {
        self.var.elem_count()
    }

    /// Gives it other numbers.
    ///
    /// # Errors
    /// If there are not as many.
    pub(crate) fn set<T: Real>(&self, values: &[T]) -> Result<()> {
        Ok(self.var.set(&Tensor::from_slice(values, self.var.dims(), self.var.device())?)?)
    }

    /// How strongly it is pulled towards zero, where `usual` is the optimiser's weight decay.
    pub fn pulled(&self, usual: f64) -> f64 {
        if self.decay { self.weight_decay.unwrap_or(usual) } else { 0.0 }
    }
}

/// A parameter's place in its model's [`Parameters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub(crate) usize);

/// How a parameter begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// Normally distributed around zero with this standard deviation.
    Normal(f64),
    /// Evenly distributed between minus and plus this bound.
    Uniform(f64),
}

/// Where a model is: which ranks have it, on which device this one has its part, and what computes there.
#[derive(Clone, Debug)]
pub struct Place {
    /// The ranks.
    pub mesh: Arc<Mesh>,
    /// This rank's device.
    pub device: Device,
    /// How operations compute on it.
    pub kernels: Kernels,
}

impl Place {
    /// One rank, on a device.
    pub fn on(device: Device) -> Place {
        Place::of(&Mesh::alone(), device)
    }

    /// A rank of several, on its device.
    pub fn of(mesh: &Arc<Mesh>, device: Device) -> Place {
        Place { mesh: mesh.clone(), kernels: Kernels::of(&device), device }
    }
}

/// What loading found besides the tensors that fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Parameters that the tensors say nothing about; they keep their values.
    pub missing: Vec<String>,
    /// Tensors that no parameter has a use for.
    pub unexpected: Vec<String>,
}

/// An ordered list of named variables.
#[derive(Clone, Debug)]
pub struct Parameters {
    list: Vec<Parameter>,
    places: HashMap<String, usize>,
    dtype: DType,
    seed: u64,
    place: Place,
}

impl Parameters {
    /// An empty list; what is added to it begins as `seed` says, whatever the order in which it is added.
    pub fn new(dtype: DType, seed: u64) -> Self {
        Parameters::on(&Place::on(Device::Cpu), dtype, seed)
    }

    /// An empty list for a part of a model in its place.
    pub fn on(place: &Place, dtype: DType, seed: u64) -> Self {
        Parameters { list: Vec::new(), places: HashMap::new(), dtype, seed, place: place.clone() }
    }

    /// An empty list on the same device, for one rank.
    pub(crate) fn like(&self) -> Self {
        Parameters::on(&Place { mesh: Mesh::alone(), ..self.place.clone() }, self.dtype, 0)
    }

    /// The ranks that have the model.
    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.place.mesh
    }

    /// Where they lie.
    pub fn device(&self) -> &Device {
        &self.place.device
    }

    /// How operations compute with them.
    pub fn kernels(&self) -> Kernels {
        self.place.kernels
    }

    /// A tape that records nothing, for operations with them.
    pub fn tape<'a>(&self) -> Tape<'a> {
        Tape::idle().with_kernels(self.kernels())
    }

    /// Adds a parameter and says where it is.
    ///
    /// # Panics
    /// If there is one of this name: a model that gives two layers one name is wrong.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], init: Init) -> Result<Id> {
        self.add_part(name, Part::all(shape), init)
    }

    /// This rank's share of a parameter along an axis of so many equal blocks.
    ///
    /// # Errors
    /// If there is less than one of it for each tensor rank.
    pub fn share(&self, shape: &[usize], axis: usize, blocks: usize) -> Result<Part> {
        let ranks = self.mesh().tensor();
        let place = [ranks.rank(), ranks.size()];
        if shape[axis] / blocks < ranks.size() {
            return Err(Error::Config(format!(
                "{} of a layer cannot be divided over {} tensor ranks; use fewer, or a larger model",
                shape[axis] / blocks,
                ranks.size()
            )));
        }
        Ok(Part::share(shape, axis, blocks, place))
    }

    /// This rank's share of a layer's heads, of queries and of keys: how many, and the number of the first.
    ///
    /// # Errors
    /// If heads would have to be cut.
    pub fn heads(&self, heads: usize, kv_heads: usize) -> Result<(usize, usize, usize)> {
        let ranks = self.mesh().tensor().size();
        if !heads.is_multiple_of(ranks) || !kv_heads.is_multiple_of(ranks) {
            return Err(Error::Config(format!(
                "{heads} heads with {kv_heads} of keys are not divided by {ranks} tensor ranks; use fewer ranks"
            )));
        }
        Ok((heads / ranks, kv_heads / ranks, heads / ranks * self.mesh().tensor().rank()))
    }

    /// Adds a rank's part of a parameter.
    ///
    /// # Panics
    /// If there is one of this name.
    pub fn add_part(&mut self, name: impl Into<String>, part: Part, init: Init) -> Result<Id> {
        let name = name.into();
        let tensor = self.initial(&name, &part, init)?;
        let decay = part.whole().len() > 1;
        self.push(name, &tensor, decay, part)
    }

    /// Says that other stages of the pipeline have a parameter, too, where there are other stages.
    pub fn share_between_stages(&mut self, id: Id) {
        self.list[id.0].shared = self.mesh().pipeline().size() > 1;
    }

    /// The layers of this stage of the pipeline.
    ///
    /// # Errors
    /// If there are fewer layers than stages.
    pub fn stage(&self, layers: usize) -> Result<Range<usize>> {
        let stages = self.mesh().pipeline().size();
        match layers >= stages {
            true => Ok(self.mesh().stage(layers)),
            false => Err(Error::Config(format!(
                "{layers} layers cannot be divided over {stages} stages of a pipeline; use fewer stages"
            ))),
        }
    }

    /// Adds a parameter with the values of a tensor, which is optimised as another one is.
    ///
    /// # Panics
    /// If there is one of its name.
    pub(crate) fn take(&mut self, like: &Parameter, values: &Tensor) -> Result<Id> {
        let id = self.push(like.name.clone(), values, like.decay, Part::all(values.dims()))?;
        let own = &mut self.list[id.0];
        (own.rate, own.weight_decay, own.betas) = (like.rate, like.weight_decay, like.betas);
        Ok(id)
    }

    fn push(&mut self, name: String, values: &Tensor, decay: bool, part: Part) -> Result<Id> {
        let var = Var::from_tensor(values)?;
        let parameter = Parameter {
            var,
            trainable: true,
            decay,
            rate: 1.0,
            weight_decay: None,
            betas: None,
            name: name.clone(),
            part,
            shared: false,
        };
        let place = self.list.len();
        let former = self.places.insert(name, place);
        assert!(former.is_none(), "two parameters are called {}", parameter.name);
        self.list.push(parameter);
        Ok(Id(place))
    }

    /// The first values depend on the seed, the name and the element alone, so every layout of ranks begins alike.
    fn initial(&self, name: &str, part: &Part, init: Init) -> Result<Tensor> {
        let dims = part.dims();
        let count: usize = dims.iter().product();
        let numbers = || part.runs().flatten().map(|i| i as u64);
        let source = Philox::new(self.seed ^ random::hash(name));
        let values: Vec<f64> = match init {
            Init::Zeros => vec![0.0; count],
            Init::Ones => vec![1.0; count],
            Init::Normal(deviation) => numbers().map(|i| source.normal(i) * deviation).collect(),
            Init::Uniform(bound) => numbers().map(|i| (2.0 * source.uniform(i) - 1.0) * bound).collect(),
        };
        Ok(Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(self.dtype)?.to_device(self.device())?)
    }

    /// The type of number of all of them.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// How many parameters there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, in the order in which the model added them.
    pub fn iter(&self) -> std::slice::Iter<'_, Parameter> {
        self.list.iter()
    }

    /// All of them, to change how they are trained.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Parameter> {
        self.list.iter_mut()
    }

    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.places.get(name).map(|&place| &self.list[place])
    }

    /// The parameter at a place.
    pub fn at(&self, id: Id) -> &Parameter {
        &self.list[id.0]
    }

    /// The parameter at a place in the order.
    pub fn nth(&self, place: usize) -> &Parameter {
        &self.list[place]
    }

    /// How many numbers there are, and how many of them training changes.
    pub fn counts(&self) -> (usize, usize) {
        let all = self.list.iter().map(Parameter::count).sum();
        (all, self.list.iter().filter(|p| p.trainable).map(Parameter::count).sum())
    }

    /// Says for each parameter by its name whether training changes it.
    pub fn set_trainable(&mut self, trainable: impl Fn(&str) -> bool) {
        for parameter in &mut self.list {
            parameter.trainable = trainable(&parameter.name);
        }
    }

    /// The tensors as they are now, by name. They share memory with the parameters: copy what must last beyond the
    /// next step.
    pub fn tensors(&self) -> BTreeMap<String, Tensor> {
        self.list.iter().map(|p| (p.name.clone(), p.var.as_detached_tensor())).collect()
    }

    /// Takes whole values by name, of which a rank has its part, and says what was missing and what was left over. A name with or without the first part
    /// that Hugging Face's heads put before it (`bert.`, `transformer.`, `model.`) is the same name.
    ///
    /// # Errors
    /// [`Error::Parameter`] if a tensor has another shape; nothing is changed then.
    pub fn load(&self, tensors: &BTreeMap<String, Tensor>) -> Result<Loaded> {
        let mut loaded = Loaded::default();
        let mut used = std::collections::BTreeSet::new();
        let mut found = Vec::new();
        for parameter in &self.list {
            let Some((name, tensor)) = find(tensors, &parameter.name) else {
                loaded.missing.push(parameter.name.clone());
                continue;
            };
            if tensor.dims() != parameter.part.whole() {
                return Err(Error::Parameter {
                    name: name.clone(),
                    given: tensor.dims().to_vec(),
                    wanted: parameter.part.whole().to_vec(),
                });
            }
            used.insert(name);
            found.push((parameter, tensor));
        }
        for (parameter, tensor) in found {
            let own = parameter.part.cut(&tensor.to_dtype(self.dtype)?)?.contiguous()?;
            parameter.var.set(&own.to_device(self.device())?)?;
        }
        loaded.unexpected = tensors.keys().filter(|name| !used.contains(name)).cloned().collect();
        Ok(loaded)
    }
}

/// Names that hold the same tensor in models that tie them; some programs write the one, some the other.
const TIED: [(&str, &[&str]); 5] = [
    ("transformer.wte.weight", &["lm_head.weight"]),
    ("model.embed_tokens.weight", &["lm_head.weight"]),
    ("shared.weight", &["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"]),
    (
        "model.shared.weight",
        &["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"],
    ),
    ("cls.predictions.bias", &["cls.predictions.decoder.bias"]),
];

fn find<'a>(tensors: &'a BTreeMap<String, Tensor>, name: &str) -> Option<(&'a String, &'a Tensor)> {
    const PREFIXES: [&str; 3] = ["bert.", "transformer.", "model."];
    let plain = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
    let longer = PREFIXES.iter().map(|prefix| format!("{prefix}{name}"));
    let tied = TIED.iter().filter(|(tied, _)| *tied == name).flat_map(|(_, others)| others.iter());
    let candidates = [name.to_string()].into_iter().chain(plain.map(str::to_string)).chain(longer);
    let mut candidates = candidates.chain(tied.map(|other| other.to_string()));
    candidates.find_map(|candidate| tensors.get_key_value(&candidate))
}
