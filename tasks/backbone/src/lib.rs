//! The backbone family: architectures whose parts are exchanged and compared.

pub mod image_classification;
pub mod mixer_equivalence;
pub mod mixers;
pub mod sequence_modelling;

use papertrial_core::task::{Family, Simulation};

/// What this crate exports to the program.
pub const FAMILY: Family = Family {
    name: "backbone",
    tasks: &[
        &image_classification::ImageClassification,
        &mixer_equivalence::MixerEquivalence,
        &sequence_modelling::SequenceModelling,
    ],
    simulations: &SIMULATIONS,
    version: env!("CARGO_PKG_VERSION"),
};

static SIMULATIONS: [Simulation; 2] = [
    mixer_equivalence::simulation::SIMULATION,
    sequence_modelling::simulation::SIMULATION,
];
