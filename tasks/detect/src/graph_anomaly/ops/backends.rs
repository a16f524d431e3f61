//! The operations as Burn's backends see them: on the CPU, and with gradients on the CPU.

use super::kernels;
use super::links::Links;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::TensorData;
use std::sync::Arc;

/// A tensor of the CPU backend.
type Values = FloatTensor<Flex>;

/// Operations that work on `f32` tensors of the CPU, and panic on any other.
#[backend_extension(Flex, Autodiff)]
pub(super) trait Operations: Backend {
    fn graph_product(x: FloatTensor<Self>, links: Arc<Links>) -> FloatTensor<Self>;
    fn graph_chebyshev(x: FloatTensor<Self>, links: Arc<Links>, terms: usize) -> FloatTensor<Self>;
    fn graph_pool(x: FloatTensor<Self>, links: Arc<Links>) -> FloatTensor<Self>;
    fn graph_weighted_pool(
        h: FloatTensor<Self>,
        a: FloatTensor<Self>,
        links: Arc<Links>,
    ) -> FloatTensor<Self>;
    fn graph_leaky(x: FloatTensor<Self>, slope: f64) -> FloatTensor<Self>;
}

fn width(x: &Values) -> usize {
    x.shape().last().copied().unwrap_or(1)
}

/// The numbers in order: borrowed by `of`, or copied first if they do not lie in order.
fn read<T>(x: &Values, of: impl FnOnce(&[f32]) -> T) -> T {
    if x.is_contiguous() {
        of(x.as_slice().unwrap_or(&[]))
    } else {
        of(x.to_contiguous().as_slice().unwrap_or(&[]))
    }
}

fn values(x: Values) -> Vec<f32> {
    read(&x, <[f32]>::to_vec)
}

fn tensor(values: Vec<f32>, shape: [usize; 2]) -> Values {
    Values::from_data(TensorData::new(values, shape))
}

impl Operations for Flex {
    fn graph_product(x: Values, links: Arc<Links>) -> Values {
        let d = width(&x);
        let y = read(&x, |x| kernels::product(&links, x, d));
        tensor(y, [links.nodes(), d])
    }
    fn graph_chebyshev(x: Values, links: Arc<Links>, terms: usize) -> Values {
        let d = width(&x);
        let y = read(&x, |x| kernels::chebyshev(&links, x, d, terms));
        tensor(y, [links.nodes(), terms * d])
    }
    fn graph_pool(x: Values, links: Arc<Links>) -> Values {
        let d = width(&x);
        let y = read(&x, |x| kernels::pool(&links, x, d));
        tensor(y, [links.graphs(), d])
    }
    fn graph_weighted_pool(h: Values, a: Values, links: Arc<Links>) -> Values {
        let d = width(&h);
        let y = read(&h, |h| {
            read(&a, |a| kernels::weighted_pool(&links, h, a, d))
        });
        tensor(y, [links.graphs(), d])
    }
    fn graph_leaky(x: Values, slope: f64) -> Values {
        let shape = x.shape();
        let y = kernels::leaky(values(x), slope as f32);
        Values::from_data(TensorData::new(y, shape))
    }
}

/// A backward step of an operation with one parent: from the gradient of the result to that of x.
#[derive(Debug)]
enum Step {
    Product(Arc<Links>),
    Chebyshev(Arc<Links>, usize),
    Pool(Arc<Links>),
}

impl Backward<Flex, 1> for Step {
    type State = ();

    fn backward(self, ops: Ops<(), 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [x] = ops.parents;
        let Some(x) = x else { return };
        let d = width(&gradient);
        let of_x = match self {
            // The matrix is its own transpose.
            Step::Product(links) => Flex::graph_product(gradient, links),
            Step::Chebyshev(links, terms) => {
                let d = d / terms;
                let of_x = kernels::chebyshev_back(&links, values(gradient), d, terms);
                tensor(of_x, [links.nodes(), d])
            }
            Step::Pool(links) => {
                let of_x = read(&gradient, |g| kernels::spread(&links, g, d));
                tensor(of_x, [links.nodes(), d])
            }
        };
        gradients.register::<Flex>(x.id, of_x);
    }
}

/// `forward` of x with `step` as its way back.
fn tracked<C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<Flex, C>>,
    step: Step,
    forward: impl FnOnce(Values) -> Values,
) -> FloatTensor<Autodiff<Flex, C>> {
    let (x, node) = x.into_parts();
    match step.prepare::<C>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((), forward(x)),
        OpsKind::UnTracked(prep) => prep.finish(forward(x)),
    }
}

/// Backward step of the weighted pooling; its state is h and a.
#[derive(Debug)]
struct WeightedPoolStep(Arc<Links>);

impl Backward<Flex, 2> for WeightedPoolStep {
    type State = (Values, Values);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (h, a) = ops.state;
        let d = width(&h);
        let links = self.0;
        let (of_h, of_a) = read(&gradient, |g| {
            read(&h, |h| {
                read(&a, |a| kernels::weighted_pool_back(&links, h, a, g, d))
            })
        });
        let [to_h, to_a] = ops.parents;
        if let Some(node) = to_h {
            gradients.register::<Flex>(node.id, tensor(of_h, [links.nodes(), d]));
        }
        if let Some(node) = to_a {
            gradients.register::<Flex>(node.id, tensor(of_a, [links.graphs(), d]));
        }
    }
}

/// Backward step of the leaky activation; its state is the result.
#[derive(Debug)]
struct LeakyStep(f32);

impl Backward<Flex, 1> for LeakyStep {
    type State = Values;

    fn backward(self, ops: Ops<Values, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [x] = ops.parents;
        if let Some(x) = x {
            let shape = gradient.shape();
            let of_x = read(&ops.state, |y| {
                kernels::leaky_back(values(gradient), y, self.0)
            });
            gradients.register::<Flex>(x.id, Values::from_data(TensorData::new(of_x, shape)));
        }
    }
}

impl<C: CheckpointStrategy> Operations for Autodiff<Flex, C> {
    fn graph_product(x: FloatTensor<Self>, links: Arc<Links>) -> FloatTensor<Self> {
        tracked::<C>(x, Step::Product(links.clone()), |x| {
            Flex::graph_product(x, links)
        })
    }
    fn graph_chebyshev(x: FloatTensor<Self>, links: Arc<Links>, terms: usize) -> FloatTensor<Self> {
        tracked::<C>(x, Step::Chebyshev(links.clone(), terms), |x| {
            Flex::graph_chebyshev(x, links, terms)
        })
    }
    fn graph_pool(x: FloatTensor<Self>, links: Arc<Links>) -> FloatTensor<Self> {
        tracked::<C>(x, Step::Pool(links.clone()), |x| Flex::graph_pool(x, links))
    }
    fn graph_weighted_pool(
        h: FloatTensor<Self>,
        a: FloatTensor<Self>,
        links: Arc<Links>,
    ) -> FloatTensor<Self> {
        let ((h, h_node), (a, a_node)) = (h.into_parts(), a.into_parts());
        match WeightedPoolStep(links.clone())
            .prepare::<C>([h_node, a_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let y = Flex::graph_weighted_pool(h.clone(), a.clone(), links);
                prep.finish((h, a), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::graph_weighted_pool(h, a, links)),
        }
    }
    fn graph_leaky(x: FloatTensor<Self>, slope: f64) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match LeakyStep(slope as f32)
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let y = Flex::graph_leaky(x, slope);
                prep.finish(y.clone(), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(Flex::graph_leaky(x, slope)),
        }
    }
}
