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

/// All of them in one row.
static SIMULATIONS: [Simulation; count(&OF_TASKS)] = {
    let mut all = [OF_TASKS[0][0]; count(&OF_TASKS)];
    let (mut task, mut next) = (0, 0);
    while task < OF_TASKS.len() {
        let mut i = 0;
        while i < OF_TASKS[task].len() {
            all[next] = OF_TASKS[task][i];
            next += 1;
            i += 1;
        }
        task += 1;
    }
    all
};

const fn count(of_tasks: &[&[Simulation]]) -> usize {
    let (mut task, mut count) = (0, 0);
    while task < of_tasks.len() {
        count += of_tasks[task].len();
        task += 1;
    }
    count
}
