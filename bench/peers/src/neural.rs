//! `papertrial-bench neural WHAT FOLDER REPEATS`: times one operation or network on the numbers (f32, little-endian) in
//! the files of FOLDER, and prints JSON; results to compare go to FOLDER/out. See `bench/neural.py`.
//!
//! WHAT is an operation on `x` [4096, 512] (`weights` as large), such as `gelu`, with `-back` after it for forward and
//! backward; `conv` and `conv-back` for a 3 x 3 convolution; `transformer` and `cnn` with `-step` or `-infer`, where
//! `weights` holds the parameters in order.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, TensorData};
use papertrial_nn::blocks::{Activation, Encoder, SmallCnn, Transformer, through};
use papertrial_nn::train::{Optimiser, Stepper, Training};
use papertrial_nn::{classes_of, ops, seeded, values_of};
use serde_json::{Value, json};
use std::error::Error;
use std::path::Path;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// As in the program itself: the C library gives every large tensor back to the system and asks for it again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs before the clock counts.
const WARM: usize = 3;
/// Numbers at each of the window's positions, and classes.
const NUMBERS: usize = 128;
const WINDOW: usize = 8;
const CLASSES: usize = 10;
/// Channels and side of the pictures.
const CHANNELS: usize = 32;
const SIDE: usize = 32;

pub fn run(words: &[String]) -> Result<Value> {
    let [what, folder, repeats] = words else {
        return Err("usage: papertrial-bench neural WHAT FOLDER REPEATS".into());
    };
    let (folder, repeats) = (Path::new(folder), repeats.parse()?);
    match what.as_str() {
        "transformer-step" => step(
            folder,
            repeats,
            Small::new,
            [WINDOW, NUMBERS],
            Small::forward,
        ),
        "transformer-infer" => infer(
            folder,
            repeats,
            Small::new,
            [WINDOW, NUMBERS],
            Small::forward,
        ),
        "cnn-step" => step(
            folder,
            repeats,
            cnn,
            [CHANNELS, SIDE * SIDE],
            classes_of_pictures,
        ),
        "cnn-infer" => infer(
            folder,
            repeats,
            cnn,
            [CHANNELS, SIDE * SIDE],
            classes_of_pictures,
        ),
        operation => match operation.strip_suffix("-back") {
            Some(operation) => back(folder, repeats, operation),
            None => forward(folder, repeats, operation),
        },
    }
}

/// The small transformer: 80,522 parameters.
#[derive(Module, Debug)]
struct Small {
    input: Linear,
    positions: Param<Tensor<2>>,
    encoder: Encoder,
    hidden: Linear,
    head: Linear,
}

impl Small {
    fn new(device: &Device) -> Self {
        let sizes = Transformer {
            d: 64,
            heads: 2,
            layers: 2,
            inner: 128,
            activation: Activation::Gelu,
            dropout: 0.0,
            pre_norm: false,
        };
        Small {
            input: LinearConfig::new(NUMBERS, 64).init(device),
            positions: Initializer::Zeros.init([WINDOW, 64], device),
            encoder: sizes.encoder(device),
            hidden: LinearConfig::new(64, 64).init(device),
            head: LinearConfig::new(64, CLASSES).init(device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let x = through(&self.input, x) + self.positions.val().unsqueeze();
        let x = self.encoder.forward(x, None);
        let last = x.narrow(1, WINDOW - 1, 1).squeeze_dim::<2>(1);
        through(&self.head, ops::gelu(through(&self.hidden, last)))
    }
}

fn cnn(device: &Device) -> SmallCnn {
    SmallCnn::new(CHANNELS, SIDE, SIDE, CLASSES, device)
}

fn classes_of_pictures(model: &SmallCnn, x: Tensor<3>) -> Tensor<2> {
    let [rows, _, _] = x.dims();
    model.forward(x.reshape([rows, CHANNELS, SIDE, SIDE]))
}

/// Gives a module's parameters the values of a file, in order.
struct Fill<'a>(&'a [f32]);

impl ModuleMapper for Fill<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|old| {
            let (mine, rest) = self.0.split_at(old.shape().num_elements());
            self.0 = rest;
            Tensor::from_data(TensorData::new(mine.to_vec(), old.shape()), &old.device())
                .require_grad()
        })
    }
}

/// The network with the parameters of the file, and its input.
fn network<M: Module>(
    folder: &Path,
    new: fn(&Device) -> M,
    [positions, numbers]: [usize; 2],
) -> Result<(M, Tensor<3>)> {
    let device = papertrial_nn::device("cpu")?;
    let weights = read(folder, "weights")?;
    let model = seeded(&device, 0, new).map(&mut Fill(&weights));
    let x = read(folder, "x")?;
    let shape = [x.len() / positions / numbers, positions, numbers];
    Ok((model, Tensor::from_data(TensorData::new(x, shape), &device)))
}

/// Steps of Adam on the same rows.
fn step<M: Module>(
    folder: &Path,
    repeats: usize,
    new: fn(&Device) -> M,
    sizes: [usize; 2],
    classify: fn(&M, Tensor<3>) -> Tensor<2>,
) -> Result<Value> {
    let (mut model, x) = network(folder, new, sizes)?;
    let device = papertrial_nn::device("cpu")?.autodiff();
    let rows = x.dims()[0];
    let x = Tensor::from_data(x.into_data(), &device);
    let classes = classes_of((0..rows).map(|i| i % CLASSES), &device);
    let training = Training {
        learning_rate: 1e-3,
        optimiser: Optimiser::Adam { weight_decay: 0.0 },
        ..Training::default()
    };
    let mut stepper = Stepper::new(&training, WARM + repeats);
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..WARM + repeats {
        let start = Instant::now();
        let scores = ops::log_softmax(classify(&model, x.clone()));
        let loss = -scores.gather(1, classes.clone().unsqueeze_dim(1)).mean();
        let (next, value) = stepper.step(model, loss)?;
        model = next;
        seconds.push(start.elapsed().as_secs_f64());
        losses.push(value);
    }
    Ok(json!({"seconds": seconds[WARM..], "losses": losses}))
}

fn infer<M: Module>(
    folder: &Path,
    repeats: usize,
    new: fn(&Device) -> M,
    sizes: [usize; 2],
    classify: fn(&M, Tensor<3>) -> Tensor<2>,
) -> Result<Value> {
    let (model, x) = network(folder, new, sizes)?;
    let model = model.valid();
    timed(folder, repeats, || {
        Ok(values_of(classify(&model, x.clone()))?)
    })
}

/// What is timed on one tensor or two.
fn operation(name: &str, x: Tensor<2>, weights: &Tensor<2>) -> Result<Tensor<2>> {
    let device = x.device();
    Ok(match name {
        "gelu" => ops::gelu(x),
        "tanh" => ops::tanh(x),
        "sigmoid" => ops::sigmoid(x),
        "silu" => ops::silu(x),
        "softmax" => ops::softmax(x),
        "log_softmax" => ops::log_softmax(x),
        "layer_norm" => {
            let row = [x.dims()[1]];
            let (gain, bias) = (Tensor::ones(row, &device), Tensor::zeros(row, &device));
            ops::layer_norm(x, gain, Some(bias), 1e-5)
        }
        "conv" => {
            let pictures = x.dims()[0] / CHANNELS;
            let y = ops::conv2d(
                x.reshape([pictures, CHANNELS, SIDE, SIDE]),
                weights.clone().reshape([CHANNELS, CHANNELS, 3, 3]),
                None,
                1,
            );
            y.reshape([pictures * CHANNELS, SIDE * SIDE])
        }
        other => return Err(format!("nothing is called {other}").into()),
    })
}

fn inputs(folder: &Path, name: &str, device: &Device) -> Result<(Tensor<2>, Tensor<2>)> {
    let width = if name == "conv" { SIDE * SIDE } else { 512 };
    let tensor = |file, width| -> Result<Tensor<2>> {
        let values = read(folder, file)?;
        let shape = [values.len() / width, width];
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    };
    let weights = tensor("weights", if name == "conv" { CHANNELS * 9 } else { width })?;
    Ok((tensor("x", width)?, weights))
}

fn forward(folder: &Path, repeats: usize, name: &str) -> Result<Value> {
    let (x, weights) = inputs(folder, name, &Device::flex())?;
    let mut seconds = Vec::new();
    for _ in 0..WARM + repeats {
        let start = Instant::now();
        std::hint::black_box(operation(name, x.clone(), &weights)?);
        seconds.push(start.elapsed().as_secs_f64());
    }
    write(folder, &values_of(operation(name, x, &weights)?)?)?;
    Ok(json!({"seconds": seconds[WARM..]}))
}

/// Forward, and backward from ones; what is written is the gradient of the sum of `weights` times the result (of the
/// convolution, from ones).
fn back(folder: &Path, repeats: usize, name: &str) -> Result<Value> {
    let device = Device::flex().autodiff();
    let (x, weights) = inputs(folder, name, &device)?;
    let (x, weights) = (x.require_grad(), weights.require_grad());
    let mut seconds = Vec::new();
    for _ in 0..WARM + repeats {
        let start = Instant::now();
        std::hint::black_box(operation(name, x.clone(), &weights)?.backward());
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut y = operation(name, x.clone(), &weights)?;
    if name != "conv" {
        y = y * weights;
    }
    let gradient = x.grad(&y.backward()).ok_or("x has no gradient")?;
    write(folder, &values_of(gradient)?)?;
    Ok(json!({"seconds": seconds[WARM..]}))
}

fn timed(folder: &Path, repeats: usize, body: impl Fn() -> Result<Vec<f32>>) -> Result<Value> {
    let mut seconds = Vec::new();
    for _ in 0..WARM + repeats {
        let start = Instant::now();
        let out = body()?;
        seconds.push(start.elapsed().as_secs_f64());
        if seconds.len() == WARM + repeats {
            write(folder, &out)?;
        }
    }
    Ok(json!({"seconds": seconds[WARM..]}))
}

fn read(folder: &Path, name: &str) -> Result<Vec<f32>> {
    let bytes = std::fs::read(folder.join(name))?;
    let (numbers, _) = bytes.as_chunks::<4>();
    Ok(numbers.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

fn write(folder: &Path, values: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Ok(std::fs::write(folder.join("out"), bytes)?)
}
