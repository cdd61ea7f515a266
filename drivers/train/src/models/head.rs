//! Both ends of a language model: the table of tokens, and the output layer, which may be the same table.

use candle_core::Tensor;

use crate::model::{Pass, Recorded};
use crate::nn::Scope;
use crate::ops::cross_entropy::{Weighing, linear_cross_entropy};
use crate::ops::linear::{Layout, linear};
use crate::parameters::{Id, Init, Parameters};
use crate::ranks::{Head, divided_cross_entropy, gathered};
use crate::tape::Value;
use crate::{Batch, Result};

/// Adds the table of tokens, rows × width, to a stage that reads tokens; and where it is the output layer, too, to the
/// last one. Tensor ranks have their share of the rows each.
pub(super) fn table(
    parameters: &mut Parameters,
    name: &str,
    dims: [usize; 2],
    (reads, tied): (bool, bool),
    init: Init,
) -> Result<Option<Id>> {
    if !(reads || tied && parameters.mesh().is_last_stage()) {
        return Ok(None);
    }
    let part = parameters.share(&dims, 0, 1)?;
    let id = parameters.add_part(name, part, init)?;
    parameters.share_between_stages(id);
    Ok(Some(id))
}

/// Adds the output layer's weight to the last stage, where it is not the tokens' own table.
pub(super) fn output(
    parameters: &mut Parameters,
    name: &str,
    dims: [usize; 2],
    tokens: Option<Id>,
    (tied, init): (bool, Init),
) -> Result<Option<Id>> {
    match (parameters.mesh().is_last_stage(), tied) {
        (false, _) => Ok(None),
        (true, true) => Ok(tokens),
        (true, false) => {
            let part = parameters.share(&dims, 0, 1)?;
            parameters.add_part(name, part, init).map(Some)
        }
    }
}

/// The logits of all tokens.
pub(super) fn logits(scope: &Scope<'_, '_>, x: &Value, head: Id, bias: Option<&Value>) -> Result<Tensor> {
    let own = linear(scope.tape, x, &scope.value(head), bias, Layout::OutIn)?;
    let parameters = scope.parameters;
    gathered(&**parameters.mesh().tensor(), own.tensor(), parameters.at(head).part.whole()[0])
}

/// The loss of the output layer, with going backwards beginning from what it reads.
pub(super) fn language_loss(
    scope: &Scope<'_, '_>,
    x: Value,
    head: Id,
    bias: Option<&Value>,
    batch: &Batch,
    pass: &Pass,
) -> Result<Recorded> {
    let weighing = Weighing { label_smoothing: pass.label_smoothing, denominator: pass.denominator };
    let (tape, targets, weight) = (scope.tape, &batch.targets, &scope.value(head));
    let ranks = scope.parameters.mesh().tensor();
    let (loss, gradient) = if ranks.size() == 1 {
        linear_cross_entropy(tape, &x, weight, bias, targets, weighing)?
    } else {
        let classes = scope.parameters.at(head).part.whole()[0];
        divided_cross_entropy(tape, &x, &Head { ranks, weight, bias, classes }, targets, weighing)?
    };
    Ok(Recorded { loss, value: x, gradient })
}
