//! Any bytes as a capture: nothing panics, memory stays bounded, and every packet is in a flow or counted by its kind.
//!
//!     cargo +nightly fuzz run capture fuzz/corpus/capture fuzz/corpus-seed/capture -- -max_total_time=60
#![no_main]

use libfuzzer_sys::fuzz_target;
use papertrial_detect::flow_intrusion::capture::{FlowOptions, FlowReader, FlowRecord, table};

fuzz_target!(|bytes: &[u8]| {
    let options = FlowOptions {
        idle: 1.0,
        active: 2.0,
        flows: 3,
    };
    let mut reader = FlowReader::new(bytes, &options).expect("the options are in range");
    let mut flows = Vec::new();
    loop {
        match reader.advance(&mut flows) {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => return,
        }
    }
    let counts = reader.counts();
    let unread = counts.other_link + counts.not_ip + counts.truncated + counts.malformed;
    assert_eq!(counts.packets, counts.in_flows + unread);
    assert_eq!(
        flows.iter().map(FlowRecord::packets).sum::<u64>(),
        counts.in_flows
    );
    assert_eq!(
        flows.iter().map(FlowRecord::bytes).sum::<u64>(),
        counts.bytes
    );
    assert_eq!(
        table(&flows).expect("any flows make a table").num_rows(),
        flows.len()
    );
});
