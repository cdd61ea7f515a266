//! How deep values of programs may be nested. Whoever reads JSON gives up at 128 arrays and objects inside each other, and
//! what a program says is read again as a part of something larger: by who receives it, by tracers, and by the next daemon
//! from its journal, of which nothing can be used from the first entry on that cannot be read.

use serde_json::Value;
use syscalls::limits::VALUE_DEPTH_MAX;
use syscalls::{Call, Errno, Fault};

/// Checks the values among the arguments of a call.
///
/// # Errors
///
/// E2BIG where one is nested too deep.
pub(super) fn check_nesting(call: &Call) -> Result<(), Fault> {
    let value = match call {
        Call::Send(args) => Some(&args.data),
        Call::StorePut(args) => Some(&args.value),
        Call::Generate(args) => args.sampling.json_schema.as_ref(),
        Call::Train(args) => Some(&args.spec),
        Call::Compress(args) => Some(&args.spec),
        Call::Evaluate(args) => Some(&args.spec),
        _ => None,
    };
    value.map_or(Ok(()), check_depth)
}

/// Checks one value.
///
/// # Errors
///
/// As [`check_nesting`].
pub(super) fn check_depth(value: &Value) -> Result<(), Fault> {
    let depth = depth(value);
    if depth <= VALUE_DEPTH_MAX {
        return Ok(());
    }
    let message = format!(
        "a value has {depth} arrays and objects inside each other; the limit is {VALUE_DEPTH_MAX}, make it flatter, or a text"
    );
    Err(Fault::new(Errno::E2BIG, message))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
