//! The graphics devices that ggml has in this build, by the names that the kernel knows them by: `cuda:0` for ggml's
//! `CUDA0`. Main memory is `cpu`, and no graphics device.

use std::ffi::CStr;

use drivers::wire::{DeviceFound, DriverFault, LoadRequest};
use llama_cpp_sys_2 as sys;
use syscalls::Errno;

use super::arithmetic::Arithmetic;
use super::load::start_backend;

/// The name of main memory.
pub const MAIN_MEMORY: &str = "cpu";

/// Where the layers of a model may go.
#[derive(Debug)]
pub enum Choice {
    /// Wherever llama.cpp puts them.
    Any,
    /// These, ended by a null; main memory where there is none before it.
    These(Vec<sys::ggml_backend_dev_t>),
}

/// Every graphics device.
pub fn found() -> Vec<DeviceFound> {
    start_backend(Arithmetic::Packed);
    all().map(describe).collect()
}

/// What a request asks for.
///
/// # Errors
///
/// ENODEV for a device that is not there.
pub fn chosen(request: &LoadRequest) -> Result<Choice, DriverFault> {
    let none = std::ptr::null_mut();
    match request.device.as_deref() {
        None => Ok(Choice::Any),
        Some(MAIN_MEMORY) => Ok(Choice::These(vec![none])),
        Some(name) => match all().find(|device| self::name(*device) == name) {
            Some(device) => Ok(Choice::These(vec![device, none])),
            None => Err(DriverFault::new(Errno::ENODEV, format!("this build finds no device {name}"))),
        },
    }
}

/// The name of the device that a model is on, for people and for `models`.
pub fn name_for(request: &LoadRequest) -> String {
    let graphics = match &request.device {
        _ if request.gpu_layers == Some(0) => None,
        Some(name) => Some(name.clone()),
        None => all().next().map(name),
    };
    graphics.unwrap_or_else(|| MAIN_MEMORY.into())
}

/// Whether there is a graphics device.
pub fn any() -> bool {
    all().next().is_some()
}

fn all() -> impl Iterator<Item = sys::ggml_backend_dev_t> {
    // SAFETY: only counts.
    let count = unsafe { sys::ggml_backend_dev_count() };
    // SAFETY: ggml's registry has as many entries as it says.
    let devices = (0..count).map(|at| unsafe { sys::ggml_backend_dev_get(at) });
    devices.filter(|device| {
        // SAFETY: the device is in the registry.
        let kind = unsafe { sys::ggml_backend_dev_type(*device) };
        kind == sys::GGML_BACKEND_DEVICE_TYPE_GPU || kind == sys::GGML_BACKEND_DEVICE_TYPE_IGPU
    })
}

fn describe(device: sys::ggml_backend_dev_t) -> DeviceFound {
    let (mut free, mut total) = (0, 0);
    // SAFETY: the device is in the registry; the description lives as long.
    let description = unsafe {
        sys::ggml_backend_dev_memory(device, &mut free, &mut total);
        CStr::from_ptr(sys::ggml_backend_dev_description(device)).to_string_lossy().into_owned()
    };
    DeviceFound { name: name(device), description, memory_bytes: total as u64, free_bytes: free as u64 }
}

fn name(device: sys::ggml_backend_dev_t) -> String {
    // SAFETY: the device is in the registry; its name lives as long.
    kernel_name(&unsafe { CStr::from_ptr(sys::ggml_backend_dev_name(device)) }.to_string_lossy())
}

/// `CUDA0` is `cuda:0`.
fn kernel_name(name: &str) -> String {
    let name = name.to_lowercase();
    let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = if kind.len() < name.len() { &name[kind.len()..] } else { "0" };
    format!("{kind}:{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_kernel() {
        assert_eq!(kernel_name("CUDA0"), "cuda:0");
        assert_eq!(kernel_name("Vulkan12"), "vulkan:12");
        assert_eq!(kernel_name("Metal"), "metal:0");
    }

    #[test]
    fn device_that_is_not_there_is_refused_and_main_memory_always_is() {
        start_backend(Arithmetic::Packed);
        let on = |device: &str| LoadRequest { device: Some(device.into()), ..LoadRequest::default() };
        assert_eq!(chosen(&on("abacus:7")).expect_err("no such device").errno, Errno::ENODEV);
        let Ok(Choice::These(devices)) = chosen(&on("cpu")) else { panic!("it is there") };
        assert!(devices.len() == 1 && devices[0].is_null());
        assert_eq!(name_for(&on("cpu")), "cpu");
    }
}
