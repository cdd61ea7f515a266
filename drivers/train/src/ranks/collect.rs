//! From the parts of all ranks to whole tensors, and back.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::error::RankError;
use super::group::{Group, Message};
use super::mesh::Mesh;
use super::part::Part;
use crate::checkpoint::bytes_of;
use crate::parameters::Parameters;
use crate::{Error, Result};

/// What a rank sends before the numbers themselves.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    name: String,
    part: Part,
}

/// Puts tensors together whose names are those of parameters, or begin with one and a dot. Ranks with copies of what
/// others have send nothing. Returns them on the rank that leads, and nothing on the others.
pub(super) fn collect(
    mesh: &Mesh,
    parameters: &Parameters,
    tensors: BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>> {
    let (world, layout) = (mesh.world(), mesh.layout());
    if layout.tensor * layout.pipeline == 1 {
        return Ok(if mesh.leads() { tensors } else { BTreeMap::new() });
    }
    let [data, ..] = layout.place(world.rank());
    if data != 0 {
        return Ok(BTreeMap::new());
    }
    let part = |name: &str| {
        let parameter = parameters.get(name).or_else(|| parameters.get(name.rsplit_once('.')?.0));
        parameter.map(|parameter| parameter.part.clone())
    };
    let own = tensors.iter().filter_map(|(name, tensor)| Some((name, part(name)?, tensor)));
    if !mesh.leads() {
        let own: Vec<_> = own.collect();
        let headers: Vec<_> =
            own.iter().map(|(name, part, _)| Header { name: (*name).clone(), part: part.clone() }).collect();
        world.send(0, Message::Bytes(serde_json::to_vec(&headers)?))?;
        for (_, _, tensor) in own {
            world.send(0, Message::Bytes(bytes_of(tensor)?))?;
        }
        return Ok(BTreeMap::new());
    }
    let mut whole = Whole { dtype: parameters.dtype(), list: BTreeMap::new() };
    for (name, part, tensor) in own {
        whole.put(name, &part, &bytes_of(tensor)?);
    }
    for rank in (1..world.size()).filter(|&rank| layout.place(rank)[0] == 0) {
        let headers: Vec<Header> = serde_json::from_slice(&bytes(world, rank)?)?;
        for Header { name, part } in headers {
            whole.put(&name, &part, &bytes(world, rank)?);
        }
    }
    whole.tensors()
}

fn bytes(world: &dyn Group, rank: usize) -> Result<Vec<u8>> {
    match world.receive(rank)? {
        Message::Bytes(bytes) => Ok(bytes),
        other => Err(RankError::Transport {
            call: "receive",
            why: format!("{} bytes of numbers from rank {rank}, where a tensor was expected", other.bytes()),
        }
        .into()),
    }
}

/// Whole tensors that are being filled, as bytes.
#[derive(Debug)]
struct Whole {
    dtype: DType,
    list: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Whole {
    fn put(&mut self, name: &str, part: &Part, bytes: &[u8]) {
        let size = self.dtype.size_in_bytes();
        let count: usize = part.whole().iter().product();
        let (_, whole) = self
            .list
            .entry(name.to_owned())
            .or_insert_with(|| (part.whole().to_vec(), vec![0; count * size]));
        let mut from = 0;
        for run in part.runs() {
            let length = run.len() * size;
            whole[run.start * size..run.end * size].copy_from_slice(&bytes[from..from + length]);
            from += length;
        }
    }

    fn tensors(self) -> Result<BTreeMap<String, Tensor>> {
        let tensor = |(name, (dims, bytes)): (String, (Vec<usize>, Vec<u8>))| {
            Ok((name, Tensor::from_raw_buffer(&bytes, self.dtype, &dims, &Device::Cpu)?))
        };
        self.list.into_iter().map(tensor).collect()
    }
}

/// This rank's parts of an optimiser's tensors; those of parameters that other stages have are left out.
pub(super) fn cut_state(
    parameters: &Parameters,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>> {
    let mut cut = BTreeMap::new();
    for (name, tensor) in tensors {
        let parameter = name.rsplit_once('.').and_then(|(name, _)| parameters.get(name));
        let Some(parameter) = parameter else {
            if parameters.mesh().is_alone() {
                cut.insert(name.clone(), tensor.clone());
            }
            continue;
        };
        if tensor.dims() != parameter.part.whole() {
            let (given, wanted) = (tensor.dims(), parameter.part.whole());
            return Err(Error::State(format!(
                "{name} has the shape {given:?}, and its parameter {wanted:?}"
            )));
        }
        cut.insert(name.clone(), parameter.part.cut(tensor)?);
    }
    Ok(cut)
}
