//! Times of the heavy kernels on small inputs: `cargo bench -p papertrial-numerics`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::Array2;
use papertrial_numerics::kmeans::{KMeansOptions, MiniBatch, kmeans, kmeans_from, plus_plus};
use papertrial_numerics::neighbours::self_neighbours;
use papertrial_numerics::{distance, linalg, topk};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Rows around 40 random centres, so that k-means has something to find.
fn grouped(rows: usize, columns: usize) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let centres = Array2::from_shape_simple_fn((40, columns), || rng.random_range(-2.0..2.0));
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        centres[[i % 40, j]] + rng.random_range(-1.0..1.0)
    })
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700))
}

fn products(bench: &mut Criterion) {
    let x = grouped(2000, 128);
    bench.bench_function("matmul 2000x128x2000", |b| {
        b.iter(|| linalg::matmul(black_box(x.view()), x.t()));
    });
    bench.bench_function("gram 2000x128", |b| {
        b.iter(|| linalg::gram(black_box(x.view())));
    });
    bench.bench_function("pca 2000x128, 16 axes", |b| {
        b.iter(|| linalg::pca(black_box(x.view()), 16));
    });
}

fn distances(bench: &mut Criterion) {
    let x = grouped(2000, 128);
    let single = x.mapv(|v| v as f32);
    let centres = grouped(50, 128);
    bench.bench_function("self distances 2000x128", |b| {
        b.iter(|| distance::self_squared_distances(black_box(x.view())));
    });
    bench.bench_function("nearest of 50 centres 2000x128", |b| {
        b.iter(|| distance::nearest(black_box(x.view()), centres.view()));
    });
    bench.bench_function("10 neighbours 2000x128", |b| {
        b.iter(|| self_neighbours(black_box(x.view()), 10));
    });
    bench.bench_function("10 neighbours 2000x128 f32", |b| {
        b.iter(|| self_neighbours(black_box(single.view()), 10));
    });
}

fn top(bench: &mut Criterion) {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let values: Vec<f64> = (0..1_000_000).map(|_| rng.random()).collect();
    for k in [10, 1000, 200_000] {
        bench.bench_function(&format!("largest {k} of 1000000"), |b| {
            b.iter(|| topk::largest(black_box(&values), k));
        });
    }
}

fn clustering(bench: &mut Criterion) {
    let x = grouped(20_000, 32);
    let start = x.slice(ndarray::s![..50, ..]);
    bench.bench_function("k-means++ 20000x32, k 50", |b| {
        b.iter(|| plus_plus(black_box(x.view()), None, 50, 0));
    });
    bench.bench_function("k-means 20000x32, k 50", |b| {
        b.iter(|| kmeans(black_box(x.view()), None, &KMeansOptions::new(50)));
    });
    bench.bench_function("10 rounds of k-means 20000x32, k 50", |b| {
        b.iter(|| kmeans_from(black_box(x.view()), None, start, 10, 0.0));
    });
    bench.bench_function("mini-batch k-means 20 x 1000x32, k 50", |b| {
        b.iter(|| {
            let mut model = MiniBatch::new(50, 0)?;
            for chunk in x.axis_chunks_iter(ndarray::Axis(0), 1000) {
                model.partial_fit(chunk)?;
            }
            Ok::<_, papertrial_numerics::kmeans::KMeansError>(model)
        });
    });
}

criterion_group! {
    name = kernels;
    config = settings();
    targets = products, distances, top, clustering
}
criterion_main!(kernels);
