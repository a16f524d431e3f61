//! What models are made of. Shapes: b rows of a batch, l positions, d numbers at each.

mod activation;
mod attention;
mod cnn;
mod embedding;
mod linear;
mod mlp;
mod norm;
mod pool;
mod transformer;

pub use activation::Activation;
pub use attention::{Attention, causal_mask, padding_mask};
pub use cnn::SmallCnn;
pub use embedding::{Positions, sinusoids};
pub use linear::through;
pub use mlp::Mlp;
pub use norm::LayerNorm;
pub use pool::{AttentionPool, Pool, last_positions};
pub use transformer::{Decoder, Encoder, Transformer};
