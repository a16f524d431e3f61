//! A generator whose place can be kept in a file, so that a stream goes on where it stopped.

use papertrial_numerics::sampling;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Poisson, StandardNormal};
use serde::{Deserialize, Serialize};

/// Draws for one purpose. Kept as the key of its stream and the words taken from it so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Place", from = "Place")]
pub struct Draws(ChaCha8Rng);

#[derive(Serialize, Deserialize)]
struct Place {
    key: [u8; 32],
    /// Words of 32 bits; 2^64 of them last longer than any stream.
    word: u64,
}

impl From<Draws> for Place {
    fn from(draws: Draws) -> Place {
        Place {
            key: draws.0.get_seed(),
            word: draws.0.get_word_pos() as u64,
        }
    }
}

impl From<Place> for Draws {
    fn from(place: Place) -> Draws {
        let mut rng = ChaCha8Rng::from_seed(place.key);
        rng.set_word_pos(u128::from(place.word));
        Draws(rng)
    }
}

impl Draws {
    /// The stream of `seed` for `purpose`.
    pub fn new(seed: u64, purpose: &str) -> Draws {
        Draws(sampling::rng(seed, purpose))
    }

    /// True with probability `p`; one draw whatever `p` is.
    pub fn chance(&mut self, p: f64) -> bool {
        self.share() < p
    }

    /// A number uniform in \[0, 1).
    pub fn share(&mut self) -> f64 {
        self.0.random()
    }

    /// A whole number from 0, below `n`, which is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n.max(1))
    }

    /// A normal number of mean 0 and variance 1.
    pub fn normal(&mut self) -> f64 {
        self.0.sample(StandardNormal)
    }

    /// How often a member of an online bag sees a row: Poisson with mean 1.
    pub fn poisson(&mut self) -> f64 {
        // The mean is a constant that the constructor accepts.
        Poisson::new(1.0).map_or(1.0, |p| self.0.sample(p))
    }

    /// A number from which another stream can be started.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_place_goes_on_with_the_same_bits() {
        let mut draws = Draws::new(3, "test");
        for i in 0..100 {
            // Mixed kinds of draws, so that the place falls on odd words too.
            if i % 3 == 0 {
                draws.normal();
            }
            draws.chance(0.5);
            draws.poisson();
            let text = serde_json::to_string(&draws).unwrap();
            let mut again: Draws = serde_json::from_str(&text).unwrap();
            let mut on = draws.clone();
            for _ in 0..5 {
                assert_eq!(on.normal().to_bits(), again.normal().to_bits());
                assert_eq!(on.number(), again.number());
            }
        }
    }

    #[test]
    fn chances_and_counts_have_their_means() {
        let mut draws = Draws::new(0, "test");
        let n = 20_000;
        let hits = (0..n).filter(|_| draws.chance(0.1)).count() as f64 / f64::from(n);
        let counts: f64 = (0..n).map(|_| draws.poisson()).sum::<f64>() / f64::from(n);
        // Standard errors 0.002 and 0.007.
        assert!((hits - 0.1).abs() < 0.01, "{hits}");
        assert!((counts - 1.0).abs() < 0.035, "{counts}");
        assert!(!draws.chance(0.0) && draws.chance(1.0));
    }
}
