//! Sequence mixers in one form: what each keeps, how it forgets and how it normalises, exchangeable in a model and
//! equal in their ways of evaluation.
//!
//! A mixer is a linear system whose matrices depend on the input ([`system`]). Each file holds one mixer twice: plain,
//! in either precision, with its matrices and its usual formula ([`SequenceMixer`]), and as a layer that is trained.

mod choice;
pub mod layer;
mod linear_attention;
pub(crate) mod maps;
mod mixer;
mod neural;
mod normalised_attention;
mod qlstm;
mod real;
mod rg_lru;
mod s6;
mod scan;
mod softmax_attention;
mod ssd;
pub mod system;

pub use choice::{Choice, Mixer, drawn};
pub use linear_attention::{Kernel, LinearAttention};
pub use maps::{Affine, Maps};
pub use mixer::{SequenceMixer, Stream, recurrent};
pub use neural::{Linear, matrix_of, normal, row_of};
pub use normalised_attention::{Eta, NormalisedAttention};
pub use qlstm::QLstm;
pub use real::{Real, log_sigmoid, sigmoid, softplus};
pub use rg_lru::RgLru;
pub use s6::{Discretisation, S6};
pub use softmax_attention::{
    KeyValueStore, SoftmaxAttention, exact, exact_weights, logits, monomials, polynomial, truncated,
};
pub use ssd::Ssd;
