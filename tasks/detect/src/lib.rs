//! The detect family: intrusions in network flows, tampered images, anomalous graphs.

pub mod flow_intrusion;
pub mod graph_anomaly;
pub mod image_scaling_attack;

use papertrial_core::task::{Family, Simulation};

/// What this crate exports to the program.
pub const FAMILY: Family = Family {
    name: "detect",
    tasks: &[
        &flow_intrusion::FlowIntrusion,
        &graph_anomaly::GraphAnomaly,
        &image_scaling_attack::ImageScalingAttack,
    ],
    simulations: &SIMULATIONS,
    version: env!("CARGO_PKG_VERSION"),
};

/// The simulations of each task.
const OF_TASKS: [&[Simulation]; 3] = [
    flow_intrusion::SIMULATIONS,
    graph_anomaly::simulations::SIMULATIONS,
    image_scaling_attack::simulation::SIMULATIONS,
];

static SIMULATIONS: [Simulation; Simulation::count(&OF_TASKS)] = Simulation::joined(&OF_TASKS);
