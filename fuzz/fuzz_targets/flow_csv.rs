//! Any bytes as a flow table: nothing panics, names are distinct, and no row comes from nowhere.
//!
//!     cargo +nightly fuzz run flow_csv fuzz/corpus/flow_csv fuzz/corpus-seed/flow_csv -- -max_total_time=60
#![no_main]

use libfuzzer_sys::fuzz_target;
use papertrial_core::data::ReadOptions;
use papertrial_detect::flow_intrusion::Rows;
use std::collections::BTreeSet;

fuzz_target!(|bytes: &[u8]| {
    let Ok(rows) = Rows::new(bytes, "input", &ReadOptions::default(), None) else {
        return;
    };
    let mut rows = rows.lenient();
    while let Ok(true) = rows.advance() {}
    let table = rows.take().expect("any rows make a table");
    let names: BTreeSet<&String> = rows.columns().iter().collect();
    assert_eq!(names.len(), table.num_columns());
    let lines = bytes.split(|b| *b == b'\n').count();
    assert!(table.num_rows() + rows.repeated() as usize <= lines);
});
