//! First centres of k-means: greedy k-means++, or random rows.

use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::problem::Problem;
use crate::distance::{squared_difference, squared_distance};
use crate::linalg::Real;
use crate::simd::vectorised;

/// Draws a row with probability proportional to `mass`, of which `parts` are the sums over chunks.
fn draw(mass: impl Fn(usize) -> f64, parts: &[f64], chunk: usize, n: usize, unit: f64) -> usize {
    let mut left = unit * parts.iter().sum::<f64>();
    let mut last = 0;
    for (index, &part) in parts.iter().enumerate() {
        // The last chunk with mass takes what rounding leaves over.
        let final_part = parts[index + 1..].iter().all(|&later| later <= 0.0);
        if part <= 0.0 || (left >= part && !final_part) {
            left -= part;
            continue;
        }
        for row in index * chunk..n.min((index + 1) * chunk) {
            let mass = mass(row);
            if mass > 0.0 {
                last = row;
                if left < mass {
                    return row;
                }
                left -= mass;
            }
        }
        break;
    }
    last
}

/// Distinct rows drawn without replacement, probability proportional to weight (Efraimidis, Spirakis).
pub(super) fn random_rows<T: Real>(problem: &Problem<'_, T>, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let n = problem.norms.len();
    let Some(weights) = &problem.weights else {
        return index::sample(rng, n, problem.k).into_vec();
    };
    let mut keys: Vec<(f64, usize)> = weights
        .iter()
        .enumerate()
        .map(|(row, weight)| (-(1.0 - rng.random::<f64>()).ln() / weight, row))
        .map(|(key, row)| (if key.is_nan() { f64::INFINITY } else { key }, row))
        .collect();
    keys.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    keys.truncate(problem.k);
    keys.into_iter().map(|(_, row)| row).collect()
}

/// The rows that greedy k-means++ chooses, in the order of the choice.
pub(super) fn plus_plus_rows<T: Real>(
    problem: &Problem<'_, T>,
    rng: &mut ChaCha8Rng,
) -> Vec<usize> {
    let &Problem { d, k, chunk, .. } = problem;
    let n = problem.norms.len();
    let trials = 2 + (k as f64).ln() as usize;
    let mut closest = vec![T::INFINITY; n];
    let mut owner = vec![0_u32; n];
    // Distances to the candidates of one step, chunk by chunk [trials, rows of the chunk].
    let mut tried = vec![T::ZERO; n * trials];
    let mut chosen: Vec<usize> = Vec::with_capacity(k);
    let mut taken = vec![false; n];

    let weights = vec![1.0; n];
    let weights = problem.weights.as_deref().unwrap_or(&weights);
    let mass: Vec<f64> = weights
        .chunks(chunk)
        .map(|part| part.iter().sum())
        .collect();
    let first = draw(|row| weights[row], &mass, chunk, n, rng.random());
    let mut candidates = vec![first];
    let mut potential = Vec::new();
    loop {
        let gaps = gaps(problem, &candidates, &chosen);
        let parts: Vec<Vec<f64>> = tried
            .par_chunks_mut(chunk * trials)
            .zip(closest.par_chunks(chunk))
            .zip(owner.par_chunks(chunk))
            .zip(weights.par_chunks(chunk))
            .zip(problem.x.par_chunks(chunk * d))
            .map(|((((tried, closest), owner), weights), x)| {
                let known = (closest, owner, weights);
                try_candidates(problem, &candidates, &gaps, x, known, tried)
            })
            .collect();
        let total = |trial: usize| parts.iter().map(|part| part[trial]).sum::<f64>();
        let totals: Vec<f64> = (0..candidates.len()).map(total).collect();
        let mut best = 0;
        for trial in 1..totals.len() {
            if totals[trial] < totals[best] {
                best = trial;
            }
        }
        potential.clear();
        potential.extend(parts.iter().map(|part| part[best]));
        let new = chosen.len() as u32;
        chosen.push(candidates[best]);
        taken[candidates[best]] = true;
        if chosen.len() == k {
            return chosen;
        }
        closest
            .par_chunks_mut(chunk)
            .zip(owner.par_chunks_mut(chunk))
            .zip(tried.par_chunks(chunk * trials))
            .for_each(|((closest, owner), tried)| {
                let tried = &tried[best * closest.len()..][..closest.len()];
                for ((closest, owner), &tried) in closest.iter_mut().zip(owner).zip(tried) {
                    if tried < *closest {
                        *closest = tried;
                        *owner = new;
                    }
                }
            });
        candidates.clear();
        if totals[best] > 0.0 {
            let mass = |row: usize| weights[row] * closest[row].to_f64();
            candidates.extend((0..trials).map(|_| draw(mass, &potential, chunk, n, rng.random())));
        } else {
            // Every row of positive weight lies on a centre: any row will do, the first not yet chosen.
            candidates.extend(taken.iter().position(|&taken| !taken));
        }
    }
}

/// Squared distances between candidates and chosen rows, [candidates, chosen].
fn gaps<T: Real>(problem: &Problem<'_, T>, candidates: &[usize], chosen: &[usize]) -> Vec<T> {
    let pairs = candidates
        .iter()
        .flat_map(|&from| chosen.iter().map(move |&to| (from, to)));
    pairs
        .map(|(from, to)| squared_distance(problem.row(from), problem.row(to)))
        .collect()
}

/// For every candidate, the distances of one chunk's rows to the nearest of it and the chosen centres.
///
/// Writes them to `tried` [candidates, rows] and returns their weighted sums, [candidates].
fn try_candidates<T: Real>(
    problem: &Problem<'_, T>,
    candidates: &[usize],
    gaps: &[T],
    x: &[T],
    (closest, owner, weights): (&[T], &[u32], &[f64]),
    tried: &mut [T],
) -> Vec<f64> {
    let chosen = gaps.len() / candidates.len();
    let mut near = Vec::new();
    let mut sums = Vec::with_capacity(candidates.len());
    for (trial, &candidate) in candidates.iter().enumerate() {
        sums.push(try_candidate(
            problem.row(candidate),
            &gaps[trial * chosen..][..chosen],
            x,
            closest,
            owner,
            weights,
            &mut tried[trial * closest.len()..][..closest.len()],
            &mut near,
        ));
    }
    sums
}

vectorised! {
    fn try_candidate<'a, T>(
        simd; candidate: &'a [T], gaps: &'a [T], x: &'a [T],
        closest: &'a [T], owner: &'a [u32], weights: &'a [f64], tried: &'a mut [T],
        near: &'a mut Vec<u32>,
    ) -> f64 {
        let four = T::from_f64(4.0);
        // If the candidate is at least twice as far from a row's centre as the row is, the row is nearer
        // to its centre. The others are listed first, because a branch for each row would be mispredicted.
        near.clear();
        near.resize(closest.len(), 0);
        let mut count = 0;
        for (i, (&low, &owner)) in closest.iter().zip(owner).enumerate() {
            near[count] = i as u32;
            let gap = gaps.get(owner as usize).copied().unwrap_or(T::ZERO);
            count += usize::from(gap < four * low);
        }
        tried.copy_from_slice(closest);
        let d = candidate.len();
        for &i in &near[..count] {
            let i = i as usize;
            let distance = squared_difference(simd, &x[i * d..][..d], candidate);
            tried[i] = if distance < tried[i] { distance } else { tried[i] };
        }
        let mut sums = [0.0; 8];
        let ((eights, rest), (weights, weights_rest)) =
            (tried.as_chunks::<8>(), weights.as_chunks::<8>());
        for (low, weight) in eights.iter().zip(weights) {
            for lane in 0..8 {
                sums[lane] += weight[lane] * low[lane].to_f64();
            }
        }
        for (sum, (low, weight)) in sums.iter_mut().zip(rest.iter().zip(weights_rest)) {
            *sum += weight * low.to_f64();
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmeans::plus_plus;
    use crate::kmeans::tests::{groups, random};
    use rand::SeedableRng;

    #[test]
    fn plus_plus_spreads_over_groups() {
        let x = groups(8, 50, 3, 13);
        for seed in 0..10 {
            let rows = plus_plus(x.view(), None, 8, seed).unwrap();
            let mut hit: Vec<usize> = rows.iter().map(|row| row / 50).collect();
            hit.sort_unstable();
            assert_eq!(hit, (0..8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn draws_follow_the_mass() {
        let mass = [0.0, 1.0, 0.0, 2.0, 0.0, 1.0, 0.0];
        let parts = [1.0, 2.0, 1.0, 0.0];
        let at = |unit| draw(|row| mass[row], &parts, 2, 7, unit);
        let found: Vec<usize> = [0.0, 0.24, 0.25, 0.74, 0.75, 0.999].map(at).to_vec();
        assert_eq!(found, vec![1, 1, 3, 3, 5, 5]);
        assert_eq!(at(1.0), 5);
    }

    #[test]
    fn rows_without_weight_are_never_drawn() {
        let x = random(100, 2, 14);
        let weights: Vec<f64> = (0..100).map(|i| f64::from(u8::from(i % 10 == 0))).collect();
        for seed in 0..5 {
            let rows = plus_plus(x.view(), Some(&weights), 10, seed).unwrap();
            assert!(rows.iter().all(|row| row % 10 == 0), "{rows:?}");
            let problem = Problem::new(x.as_slice().unwrap(), 2, Some(&weights), 10);
            let rows = random_rows(&problem, &mut ChaCha8Rng::seed_from_u64(seed));
            assert!(rows.iter().all(|row| row % 10 == 0), "{rows:?}");
        }
    }
}
