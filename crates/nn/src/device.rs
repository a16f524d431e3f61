//! Where networks run: a name such as `cuda:0` becomes a device.

use burn::tensor::Device;
use papertrial_core::{Error, Result};

/// The device called `name`: `cpu`, or `cuda:N`, `vulkan:N` where the program was built with that feature.
///
/// # Errors
/// A name that is none, or a device that this build does not have.
pub fn device(name: &str) -> Result<Device> {
    let (kind, index) = match name.split_once(':') {
        None => (name, 0),
        Some((kind, index)) => match index.parse::<usize>() {
            Ok(index) => (kind, index),
            Err(_) => return Err(unknown(name)),
        },
    };
    match kind {
        "cpu" if !name.contains(':') => Ok(Device::flex()),
        "cuda" => cuda(index),
        "vulkan" => vulkan(index),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Error {
    Error::option(
        "device",
        format!("'{name}' is not a device; give cpu, cuda:N or vulkan:N, such as cuda:0"),
    )
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device> {
    Ok(Device::cuda(index))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device> {
    Err(not_built("cuda"))
}

#[cfg(feature = "vulkan")]
fn vulkan(index: usize) -> Result<Device> {
    Ok(Device::vulkan(burn::tensor::DeviceKind::DiscreteGpu(index)))
}

#[cfg(not(feature = "vulkan"))]
fn vulkan(_: usize) -> Result<Device> {
    Err(not_built("vulkan"))
}

#[cfg(not(all(feature = "cuda", feature = "vulkan")))]
fn not_built(kind: &str) -> Error {
    Error::option(
        "device",
        format!(
            "this program was built without {kind}; build it with 'cargo build --release --features {kind}', or use cpu"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there_and_other_names_are_told_apart() {
        assert!(device("cpu").is_ok());
        for wrong in ["", "gpu", "cpu:0", "cuda:x", "tpu:1"] {
            let text = device(wrong).unwrap_err().to_string();
            assert!(text.contains("give cpu, cuda:N or vulkan:N"), "{text}");
        }
        #[cfg(not(feature = "cuda"))]
        assert!(
            device("cuda:0")
                .unwrap_err()
                .to_string()
                .contains("--features cuda")
        );
    }
}
