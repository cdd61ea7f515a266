//! The tape: what a model computed, so that gradients can be computed backwards.
//!
//! Each operation puts its backward pass on the tape as a closure. Unlike candle's own `backward`, a gradient that is
//! the first for its value is taken as it is; parameters' gradients are added to buffers that last from step to step;
//! activations are freed as soon as nothing needs them; a part can be computed again instead of being kept
//! ([`Tape::checkpoint`]); and it can begin from any value with any gradient, as stages of a pipeline do.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor};

use crate::gradients::Gradients;
use crate::ops::Kernels;
use crate::ops::product::Precision;
use crate::ops::real::Real;
use crate::parameters::{Id, Parameters};
use crate::{Error, Result};

/// Who a value's gradient is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nobody: an input, or a frozen parameter, or nothing is recorded.
    Nobody,
    /// A parameter.
    Parameter(Id),
    /// What an operation on the tape computed.
    Node(usize),
}

/// A tensor, and where on the tape it came from.
#[derive(Clone, Debug)]
pub struct Value {
    pub(crate) tensor: Tensor,
    pub(crate) target: Target,
}

impl Value {
    /// A value that needs no gradient.
    pub fn constant(tensor: Tensor) -> Self {
        Value { tensor, target: Target::Nobody }
    }

    /// The numbers.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Whether anybody wants its gradient.
    pub fn wants_gradient(&self) -> bool {
        self.target != Target::Nobody
    }
}

/// A gradient on its way. `shared` says that others hold the same memory, so that it must not be added to in place.
#[derive(Debug)]
pub struct Grad {
    pub tensor: Tensor,
    pub shared: bool,
}

type Step<'a> = Box<dyn FnOnce(&mut Backward, Grad) -> Result<()> + 'a>;

/// A recording of operations.
pub struct Tape<'a> {
    /// For each operation, whose output it was and how to go back through it. `None` while nothing is recorded.
    steps: Option<RefCell<Vec<(usize, Step<'a>)>>>,
    nodes: Cell<usize>,
    gradients: Rc<RefCell<Gradients>>,
    precision: Precision,
    kernels: Kernels,
    /// While somebody waits for parameters' gradients: which operation used which parameter.
    uses: Option<RefCell<Uses>>,
}

/// Which parameters were used so far, and where first: behind that operation, going backwards, a gradient is final.
#[derive(Default)]
struct Uses {
    used: HashSet<Id>,
    /// Operations by their place on the tape, with the parameters that they were the first to use.
    first: Vec<(usize, Id)>,
    /// Those whose gradients were computed on the way forward.
    forward: HashSet<Id>,
}

impl Uses {
    fn by(&mut self, step: usize, id: Id) {
        if self.used.insert(id) {
            self.first.push((step, id));
        }
    }
}

impl<'a> Tape<'a> {
    /// A tape that records nothing, for evaluation.
    pub fn idle() -> Self {
        Tape {
            steps: None,
            nodes: Cell::new(0),
            gradients: Rc::default(),
            precision: Precision::Full,
            kernels: Kernels::default(),
            uses: None,
        }
    }

    /// A tape whose backward pass adds to these gradients. Its operations compute where these lie.
    pub fn recording(gradients: Rc<RefCell<Gradients>>) -> Self {
        let uses = gradients.borrow().is_watched().then(RefCell::default);
        let kernels = gradients.borrow().kernels();
        Tape { uses, ..Tape::inside(gradients, Precision::Full, kernels) }
    }

    /// A tape for a part that is computed again: whether a gradient is final is known outside of it.
    fn inside(gradients: Rc<RefCell<Gradients>>, precision: Precision, kernels: Kernels) -> Self {
        let steps = Some(RefCell::default());
        Tape { steps, nodes: Cell::new(0), gradients, precision, kernels, uses: None }
    }

    /// A tape that records nothing but which parameters are used, where that is wanted.
    fn noting(&self) -> Self {
        let uses = self.uses.is_some().then(RefCell::default);
        Tape { uses, precision: self.precision, kernels: self.kernels, ..Tape::idle() }
    }

    /// The same, whose operations multiply matrices in this precision, forwards and backwards.
    pub fn in_precision(self, precision: Precision) -> Self {
        Tape { precision, ..self }
    }

    /// The same, whose operations compute in this way.
    pub fn with_kernels(self, kernels: Kernels) -> Self {
        Tape { kernels, ..self }
    }

    /// How operations compute.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// How operations multiply matrices.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether operations are recorded.
    pub fn records(&self) -> bool {
        self.steps.is_some()
    }

    /// A parameter as a value.
    pub fn parameter(&self, parameters: &Parameters, id: Id) -> Value {
        let parameter = parameters.at(id);
        let wanted = parameter.trainable && self.records();
        let target = if wanted { Target::Parameter(id) } else { Target::Nobody };
        if let (Some(uses), false, true) = (&self.uses, self.records(), parameter.trainable) {
            uses.borrow_mut().by(0, id);
        }
        // Detached, since candle would record what is composed of a variable.
        Value { tensor: parameter.var().as_detached_tensor(), target }
    }

    /// A value of its own whose gradient the caller will ask for.
    pub fn input(&self, tensor: Tensor) -> Value {
        let target = if self.records() { self.node() } else { Target::Nobody };
        Value { tensor, target }
    }

    fn node(&self) -> Target {
        let node = self.nodes.get();
        self.nodes.set(node + 1);
        Target::Node(node)
    }

    /// What an operation computed, with its way back, which is kept only if one of `inputs` wants a gradient.
    pub fn record(
        &self,
        tensor: Tensor,
        inputs: &[&Value],
        back: impl FnOnce(&mut Backward, Grad) -> Result<()> + 'a,
    ) -> Value {
        let Some(steps) = self.steps.as_ref().filter(|_| inputs.iter().any(|v| v.wants_gradient())) else {
            return Value::constant(tensor);
        };
        let target = self.node();
        let Target::Node(node) = target else { unreachable!("node() makes nodes") };
        if let Some(uses) = &self.uses {
            let ids = inputs.iter().filter_map(|value| Input::from(*value).parameter());
            ids.for_each(|id| uses.borrow_mut().by(steps.borrow().len(), id));
        }
        steps.borrow_mut().push((node, Box::new(back)));
        Value { tensor, target }
    }

    /// Adds to a parameter's gradient during the forward pass, for operations that compute both at once.
    pub fn accumulate<T: Real>(&self, id: Id, add: impl FnOnce(&mut [T], bool)) {
        if let Some(uses) = &self.uses {
            uses.borrow_mut().forward.insert(id);
        }
        let mut gradients = self.gradients.borrow_mut();
        let (buffer, written) = gradients.accumulate(id);
        add(buffer, written);
    }

    /// The same with a tensor.
    pub(crate) fn add(&self, id: Id, gradient: &Tensor) -> Result<()> {
        if let Some(uses) = &self.uses {
            uses.borrow_mut().forward.insert(id);
        }
        self.gradients.borrow_mut().add(id, gradient)
    }

    /// Computes `part` of `inputs` without keeping what is inside of it; the backward pass computes it again.
    ///
    /// # Errors
    /// Those of `part`.
    pub fn checkpoint<F>(&self, inputs: &[&Value], part: F) -> Result<Value>
    where
        F: Fn(&Tape<'a>, &[Value]) -> Result<Value> + 'a,
    {
        let constants: Vec<Value> = inputs.iter().map(|v| Value::constant(v.tensor.clone())).collect();
        let inner = self.noting();
        let output = part(&inner, &constants)?.tensor;
        if let (Some(outer), Some(inner), Some(steps)) = (&self.uses, inner.uses, &self.steps) {
            let used = inner.into_inner().first.into_iter();
            used.for_each(|(_, id)| outer.borrow_mut().by(steps.borrow().len(), id));
        }
        let targets: Vec<Input> = inputs.iter().map(|v| Input::from(*v)).collect();
        let (precision, kernels) = (self.precision, self.kernels);
        // Parameters inside want gradients even where the inputs do not, so the step is always kept.
        let wanted = Value { tensor: output.clone(), target: Target::Node(usize::MAX) };
        Ok(self.record(output, &[&wanted], move |back, grad| {
            let inner = Tape::inside(back.gradients.clone(), precision, kernels);
            let again: Vec<Value> = constants.into_iter().map(|v| inner.input(v.tensor)).collect();
            let output = part(&inner, &again)?;
            let gradients = inner.backward_from(&output, grad, &again)?;
            for (target, gradient) in targets.iter().zip(gradients) {
                if let Some(gradient) = gradient {
                    back.give_to_input(target, gradient)?;
                }
            }
            Ok(())
        }))
    }

    /// Goes backwards from `value`, whose gradient is `gradient`, and returns the gradients of `inputs`.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn backward(self, value: &Value, gradient: Tensor, inputs: &[Value]) -> Result<Vec<Option<Tensor>>> {
        let gradients = self.backward_from(value, Grad { tensor: gradient, shared: true }, inputs)?;
        Ok(gradients.into_iter().map(|grad| grad.map(|grad| grad.tensor)).collect())
    }

    /// Goes backwards from several values at once, as a stage of a pipeline does that has passed on several.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn backward_from_all(
        self,
        from: Vec<(Value, Tensor)>,
        inputs: &[Value],
    ) -> Result<Vec<Option<Tensor>>> {
        let begin = from.into_iter().map(|(value, tensor)| (value.target, Grad { tensor, shared: true }));
        let gradients = self.walk_back(begin, inputs)?;
        Ok(gradients.into_iter().map(|grad| grad.map(|grad| grad.tensor)).collect())
    }

    fn backward_from(self, value: &Value, grad: Grad, inputs: &[Value]) -> Result<Vec<Option<Grad>>> {
        self.walk_back([(value.target, grad)], inputs)
    }

    fn walk_back(
        self,
        begin: impl IntoIterator<Item = (Target, Grad)>,
        inputs: &[Value],
    ) -> Result<Vec<Option<Grad>>> {
        let mut back = Backward { slots: Vec::new(), gradients: self.gradients, kernels: self.kernels };
        back.slots.resize_with(self.nodes.get(), || None);
        begin.into_iter().try_for_each(|(target, grad)| back.give_to(target, grad))?;
        let mut steps = self.steps.map(RefCell::into_inner).unwrap_or_default();
        let Uses { used, mut first, forward } = self.uses.map(RefCell::into_inner).unwrap_or_default();
        forward.difference(&used).try_for_each(|id| back.gradients.borrow_mut().finished(id.0))?;
        // Dropping each step after it has run frees the activations that it kept.
        while let Some((node, step)) = steps.pop() {
            if let Some(grad) = back.slots[node].take() {
                step(&mut back, grad)?;
            }
            while let Some((_, id)) = first.pop_if(|(place, _)| *place == steps.len()) {
                back.gradients.borrow_mut().finished(id.0)?;
            }
        }
        let of = |input: &Value| match input.target {
            Target::Node(node) => back.slots[node].take(),
            _ => None,
        };
        Ok(inputs.iter().map(of).collect())
    }
}

/// The gradients while going backwards.
pub struct Backward {
    slots: Vec<Option<Grad>>,
    gradients: Rc<RefCell<Gradients>>,
    kernels: Kernels,
}

impl Backward {
    /// Adds a gradient that nobody else holds to those of `value`.
    pub fn give(&mut self, value: &Input, tensor: Tensor) -> Result<()> {
        self.give_to(value.0, Grad { tensor, shared: false })
    }

    /// Adds a gradient whose memory others hold, too.
    pub fn share(&mut self, value: &Input, tensor: Tensor) -> Result<()> {
        self.give_to(value.0, Grad { tensor, shared: true })
    }

    /// Passes on a gradient as it is.
    pub fn give_to_input(&mut self, value: &Input, grad: Grad) -> Result<()> {
        self.give_to(value.0, grad)
    }

    /// Adds to a parameter's buffer in place, if it is a parameter that `value` is. `add` gets the buffer and whether
    /// it holds something already. Returns whether it was one.
    pub fn accumulate<T: Real>(&mut self, value: &Input, add: impl FnOnce(&mut [T], bool)) -> bool {
        let Target::Parameter(id) = value.0 else { return false };
        let mut gradients = self.gradients.borrow_mut();
        let (buffer, written) = gradients.accumulate(id);
        add(buffer, written);
        true
    }

    fn give_to(&mut self, target: Target, grad: Grad) -> Result<()> {
        match target {
            Target::Nobody => Ok(()),
            Target::Parameter(id) => self.gradients.borrow_mut().add(id, &grad.tensor),
            Target::Node(node) => {
                let sum = match self.slots[node].take() {
                    None => grad,
                    Some(former) => add(former, grad, self.kernels)?,
                };
                self.slots[node] = Some(sum);
                Ok(())
            }
        }
    }
}

/// What a closure on the tape keeps of an input whose tensor it does not need.
#[derive(Clone, Copy, Debug)]
pub struct Input(Target);

impl Input {
    /// Whether anybody wants the gradient.
    pub fn wanted(self) -> bool {
        self.0 != Target::Nobody
    }

    /// The parameter, if it is one.
    pub fn parameter(self) -> Option<Id> {
        match self.0 {
            Target::Parameter(id) => Some(id),
            _ => None,
        }
    }
}

impl From<&Value> for Input {
    fn from(value: &Value) -> Self {
        Input(value.target)
    }
}

/// The sum of two gradients: of the kernels' in the memory of one that is not shared.
fn add(former: Grad, grad: Grad, kernels: Kernels) -> Result<Grad> {
    if former.tensor.shape() != grad.tensor.shape() {
        return Err(Error::Shape {
            op: "backward",
            what: format!(
                "gradients of {:?} and {:?} for one value",
                former.tensor.shape(),
                grad.tensor.shape()
            ),
        });
    }
    let apart = kernels == Kernels::Composed;
    match (former.shared || apart, grad.shared || apart) {
        (false, _) => {
            former.tensor.inplace_op2(&grad.tensor, &AddTo)?;
            Ok(former)
        }
        (true, false) => {
            grad.tensor.inplace_op2(&former.tensor, &AddTo)?;
            Ok(grad)
        }
        (true, true) => Ok(Grad { tensor: former.tensor.add(&grad.tensor)?, shared: false }),
    }
}

struct AddTo;

impl InplaceOp2 for AddTo {
    fn name(&self) -> &'static str {
        "add-to"
    }

    fn cpu_fwd(
        &self,
        sum: &mut CpuStorage,
        sum_layout: &Layout,
        more: &CpuStorage,
        more_layout: &Layout,
    ) -> candle_core::Result<()> {
        let ranges = (sum_layout.contiguous_offsets(), more_layout.contiguous_offsets());
        let (Some((a, b)), Some((c, d))) = ranges else {
            candle_core::bail!("gradients are contiguous");
        };
        match (sum, more) {
            (CpuStorage::F32(sum), CpuStorage::F32(more)) => {
                crate::ops::add_slices(&mut sum[a..b], &more[c..d])
            }
            (CpuStorage::F64(sum), CpuStorage::F64(more)) => {
                crate::ops::add_slices(&mut sum[a..b], &more[c..d])
            }
            _ => candle_core::bail!("gradients of two types"),
        }
        Ok(())
    }
}
