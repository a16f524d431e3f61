//! The select family: choose, filter, label and collect training data.

pub mod active_learning;
pub mod bucket_curation;
pub mod coreset;
pub mod data_collection;
pub mod data_selection;
pub mod labelling_instructions;
pub mod pair_filtering;
pub mod stream_labelling;
pub mod subset_learning;
pub mod targeted_selection;
mod weighted;

use papertrial_core::task::{Family, Simulation};

/// What this crate exports to the program.
pub const FAMILY: Family = Family {
    name: "select",
    tasks: &[
        &active_learning::ActiveLearning,
        &bucket_curation::BucketCuration,
        &coreset::CoresetTask,
        &data_collection::DataCollection,
        &data_selection::DataSelection,
        &labelling_instructions::LabellingInstructions,
        &pair_filtering::PairFiltering,
        &stream_labelling::StreamLabelling,
        &subset_learning::SubsetLearning,
        &targeted_selection::TargetedSelection,
    ],
    simulations: &SIMULATIONS,
    version: env!("CARGO_PKG_VERSION"),
};

/// The simulations of each task that has any.
const OF_TASKS: [&[Simulation]; 6] = [
    data_collection::simulations::SIMULATIONS,
    labelling_instructions::simulations::SIMULATIONS,
    pair_filtering::simulation::SIMULATIONS,
    stream_labelling::simulations::SIMULATIONS,
    subset_learning::simulations::SIMULATIONS,
    &targeted_selection::simulations::SIMULATIONS,
];

static SIMULATIONS: [Simulation; Simulation::count(&OF_TASKS)] = Simulation::joined(&OF_TASKS);
