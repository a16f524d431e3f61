//! L-BFGS: the minimum of a smooth convex function of many variables from values and gradients.
//!
//! Liu and Nocedal, *On the limited memory BFGS method for large scale optimization*, 1989. The step is found by the
//! bisection of Lewis and Overton, *Nonsmooth optimization via quasi-Newton methods*, 2013, which meets the weak Wolfe
//! conditions.

/// Pairs of steps and changes of the gradient that are kept.
const MEMORY: usize = 10;

/// Minimises `f`, which returns its value at a point and writes the gradient there.
///
/// Ends when the largest entry of the gradient is at most `tolerance` times that at the start (or 1, if that is more),
/// when no step goes down any more, or after `rounds` rounds. Each round costs about one evaluation of `f`.
pub(super) fn minimise(
    mut point: Vec<f64>,
    rounds: usize,
    tolerance: f64,
    mut f: impl FnMut(&[f64], &mut [f64]) -> f64,
) -> Vec<f64> {
    let n = point.len();
    let mut gradient = vec![0.0; n];
    let mut value = f(&point, &mut gradient);
    let enough = tolerance * largest(&gradient).max(1.0);
    let mut pairs: Vec<(Vec<f64>, Vec<f64>, f64)> = Vec::new();
    let mut next = vec![0.0; n];
    let mut next_gradient = vec![0.0; n];
    for _ in 0..rounds {
        if largest(&gradient) <= enough {
            break;
        }
        let mut direction = two_loops(&gradient, &pairs);
        let mut slope = dot(&direction, &gradient);
        if slope >= 0.0 {
            pairs.clear();
            direction = gradient.iter().map(|g| -g).collect();
            slope = dot(&direction, &gradient);
        }
        // The first step has no scale yet: as long as 1 at most.
        let mut step = if pairs.is_empty() {
            (1.0 / (-slope).sqrt()).min(1.0)
        } else {
            1.0
        };
        let (mut low, mut high) = (0.0, f64::INFINITY);
        let mut next_value = f64::INFINITY;
        let mut good = false;
        for round in 0..=50 {
            // The last round goes back to the longest step that went down.
            if round == 50 {
                step = low;
            }
            for ((next, old), d) in next.iter_mut().zip(&point).zip(&direction) {
                *next = old + step * d;
            }
            next_value = f(&next, &mut next_gradient);
            if round == 50 {
                good = low > 0.0;
            } else if next_value.is_nan() || next_value > value + 1e-4 * step * slope {
                high = step;
            } else if dot(&direction, &next_gradient) < 0.9 * slope {
                low = step;
            } else {
                good = true;
                break;
            }
            step = if high.is_finite() {
                0.5 * (low + high)
            } else {
                2.0 * low
            };
        }
        if !good {
            break;
        }
        let s: Vec<f64> = next.iter().zip(&point).map(|(a, b)| a - b).collect();
        let y: Vec<f64> = next_gradient
            .iter()
            .zip(&gradient)
            .map(|(a, b)| a - b)
            .collect();
        let curvature = dot(&s, &y);
        if curvature > 1e-300 {
            if pairs.len() == MEMORY {
                pairs.remove(0);
            }
            pairs.push((s, y, 1.0 / curvature));
        }
        let gain = value - next_value;
        std::mem::swap(&mut point, &mut next);
        std::mem::swap(&mut gradient, &mut next_gradient);
        value = next_value;
        if gain <= 1e-15 * value.abs() {
            break;
        }
    }
    point
}

/// The direction of descent: minus the inverse Hessian, as the pairs tell it, times the gradient.
fn two_loops(gradient: &[f64], pairs: &[(Vec<f64>, Vec<f64>, f64)]) -> Vec<f64> {
    let mut q = gradient.to_vec();
    let mut alphas = Vec::with_capacity(pairs.len());
    for (s, y, rho) in pairs.iter().rev() {
        let alpha = rho * dot(s, &q);
        add(&mut q, -alpha, y);
        alphas.push(alpha);
    }
    if let Some((_, y, rho)) = pairs.last() {
        let scale = 1.0 / (rho * dot(y, y));
        q.iter_mut().for_each(|v| *v *= scale);
    }
    for ((s, y, rho), alpha) in pairs.iter().zip(alphas.into_iter().rev()) {
        let beta = rho * dot(y, &q);
        add(&mut q, alpha - beta, s);
    }
    q.iter_mut().for_each(|v| *v = -*v);
    q
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, v| most.max(v.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretched_bowl_is_minimised() {
        // sum of c_i (x_i - i)^2 with c from 1 to 1e4.
        let c: Vec<f64> = (0..9).map(|i| 10f64.powf(f64::from(i) / 2.0)).collect();
        let x = minimise(vec![0.0; 9], 500, 1e-10, |x, g| {
            let mut value = 0.0;
            for i in 0..9 {
                let r = x[i] - i as f64;
                value += c[i] * r * r;
                g[i] = 2.0 * c[i] * r;
            }
            value
        });
        for (i, x) in x.iter().enumerate() {
            assert!((x - i as f64).abs() < 1e-5, "{i}: {x}");
        }
    }

    #[test]
    fn a_flat_start_stays() {
        let x = minimise(vec![7.0, -1.0], 10, 1e-9, |_, g| {
            g.fill(0.0);
            3.0
        });
        assert_eq!(x, [7.0, -1.0]);
    }
}
