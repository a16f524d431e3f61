//! The select family: choose, label and collect training data.

pub mod data_collection;
pub mod stream_labelling;

use data_collection::simulations::SIMULATIONS as GROUPS;
use papertrial_core::task::{Family, Simulation};
use stream_labelling::simulations::SIMULATIONS as STREAMS;

/// What this crate exports to the program.
pub const FAMILY: Family = Family {
    name: "select",
    tasks: &[
        &data_collection::DataCollection,
        &stream_labelling::StreamLabelling,
    ],
    simulations: &SIMULATIONS,
    version: env!("CARGO_PKG_VERSION"),
};

/// The simulations of all tasks.
static SIMULATIONS: [Simulation; GROUPS.len() + STREAMS.len()] = {
    let mut all = [const { copy(&GROUPS[0]) }; GROUPS.len() + STREAMS.len()];
    let mut i = 0;
    while i < all.len() {
        all[i] = copy(if i < GROUPS.len() {
            &GROUPS[i]
        } else {
            &STREAMS[i - GROUPS.len()]
        });
        i += 1;
    }
    all
};

const fn copy(simulation: &Simulation) -> Simulation {
    Simulation {
        name: simulation.name,
        about: simulation.about,
        options: simulation.options,
        roles: simulation.roles,
        generate: simulation.generate,
    }
}
