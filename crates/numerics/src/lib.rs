//! Numerical kernels that several families share.

/// Squared Euclidean distances between rows, by matrix products.
pub mod distance;
/// k-means: Lloyd's algorithm with k-means++ starts, and a mini-batch form for streams.
pub mod kmeans;
/// Dense linear algebra on `ndarray` matrices, computed by faer.
pub mod linalg;
/// Exact k nearest neighbours by brute force, in blocks.
pub mod neighbours;
mod simd;
/// The k largest or smallest values of a slice, without sorting it.
pub mod topk;

/// The best matching between two sets, each member used at most once.
pub mod assignment;
/// Quality of clusterings and of classifiers, and their errors.
pub mod metrics;
/// Random draws from the seed of a job.
pub mod sampling;
/// Moments, quantiles, intervals, paired tests, a test of normality.
pub mod stats;
