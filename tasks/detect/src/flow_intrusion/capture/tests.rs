//! Whole captures: real ones against totals from another program, and thousands of broken ones.

use super::super::exports::Rows;
use super::super::exports::tests::real;
use super::*;
use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use papertrial_core::data::ReadOptions;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn flows(bytes: &[u8], options: &FlowOptions) -> Result<(Vec<FlowRecord>, Counts, Vec<String>)> {
    let mut reader = FlowReader::new(bytes, options)?;
    let mut out = Vec::new();
    while reader.advance(&mut out)? {}
    Ok((out, reader.counts(), reader.notes()))
}

/// What must hold of any capture.
fn adds_up(flows: &[FlowRecord], counts: Counts) {
    let told =
        counts.in_flows + counts.other_link + counts.not_ip + counts.truncated + counts.malformed;
    assert_eq!(told, counts.packets);
    assert_eq!(
        flows.iter().map(FlowRecord::packets).sum::<u64>(),
        counts.in_flows
    );
    assert_eq!(
        flows.iter().map(FlowRecord::bytes).sum::<u64>(),
        counts.bytes
    );
    for flow in flows {
        assert!(flow.first <= flow.last && flow.length[0] <= flow.length[1]);
        assert!(flow.ttl[0] <= flow.ttl[1]);
        assert!(flow.sizes.iter().sum::<u64>() <= flow.packets());
    }
    let table = table(flows).unwrap();
    assert_eq!((table.num_rows(), table.num_columns()), (flows.len(), 45));
}

/// The small files from which the fuzzers start.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus-seed");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder.join(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 3);
    paths.iter().map(|p| std::fs::read(p).unwrap()).collect()
}

/// One to eight changes: bits, bytes, numbers at their limits, pieces taken out, doubled, or from another seed.
fn broken(seeds: &[Vec<u8>], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..=8) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..64)).min(bytes.len());
        match random.random_range(0..8) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.next_u32() as u8,
            2 => bytes[at..end].fill([0, 0x7f, 0x80, 0xff][random.random_range(0..4)]),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => {
                let other = &seeds[random.random_range(0..seeds.len())];
                let from = random.random_range(0..other.len());
                let piece = &other[from..(from + 64).min(other.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            _ => bytes[at..end].reverse(),
        }
    }
    bytes
}

#[test]
fn seeds_give_flows_of_every_kind() {
    let (mut protocols, mut all) = (Vec::new(), Counts::default());
    for seed in seeds("capture") {
        let (flows, counts, _) = flows(&seed, &FlowOptions::default()).unwrap();
        adds_up(&flows, counts);
        protocols.extend(flows.iter().map(|f| f.protocol));
        all.not_ip += counts.not_ip;
        all.truncated += counts.truncated;
        all.malformed += counts.malformed;
    }
    for protocol in [1, 6, 17, 58] {
        assert!(protocols.contains(&protocol), "{protocol}");
    }
    assert!(
        all.not_ip > 0 && all.truncated > 0 && all.malformed > 0,
        "{all:?}"
    );
}

#[test]
fn ten_thousand_broken_captures_are_survived_and_add_up() {
    let seeds = seeds("capture");
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let options = FlowOptions {
        idle: 1.0,
        active: 2.0,
        flows: 3,
    };
    let (mut read, mut odd) = (0, 0);
    for _ in 0..10_000 {
        let bytes = broken(&seeds, &mut random);
        // What no longer begins like a capture is refused as a whole.
        if let Ok((flows, counts, notes)) = flows(&bytes, &options) {
            adds_up(&flows, counts);
            read += 1;
            odd += usize::from(notes.len() > 1);
        }
    }
    // Most mutants must get past the first bytes, or the test tests nothing.
    assert!(read > 7_000 && odd > 1_000, "{read} {odd}");
}

#[test]
fn ten_thousand_broken_flow_tables_are_survived_and_add_up() {
    let seeds = seeds("flow_csv");
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut rows_read = 0;
    for _ in 0..10_000 {
        let bytes = broken(&seeds, &mut random);
        let Ok(rows) = Rows::new(&bytes[..], "mutant", &ReadOptions::default(), None) else {
            continue;
        };
        let mut rows = rows.lenient();
        let mut columns = rows.columns().to_vec();
        while rows.advance().unwrap() {}
        let table = rows.take().unwrap();
        let lines = bytes.split(|b| *b == b'\n').count();
        assert!(table.num_rows() + rows.repeated() as usize <= lines);
        assert_eq!(table.num_columns(), columns.len());
        columns.sort();
        columns.dedup();
        assert_eq!(columns.len(), table.num_columns(), "names are distinct");
        rows_read += table.num_rows();
    }
    // About half of the seeds lose their header or their first line.
    assert!(rows_read > 5_000, "{rows_read}");
}

#[test]
fn a_capture_is_a_source_that_can_be_read_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcap");
    std::fs::write(&path, &seeds("capture")[0]).unwrap();
    let capture = Capture::open(&path, &FlowOptions::default()).unwrap();
    let rows = || -> usize {
        let batches = capture.batches().unwrap();
        batches.map(|b| b.unwrap().num_rows()).sum()
    };
    assert!(rows() > 0);
    assert_eq!(rows(), rows());
    assert!(Source::notes(&capture)[0].contains("packets of the capture"));
    assert_eq!(capture.columns().len(), 45);
    std::fs::write(&path, b"a,b\n1,2\n").unwrap();
    assert!(Capture::open(&path, &FlowOptions::default()).is_err());
}

#[test]
fn columns_are_those_of_the_schema() {
    let schema = super::super::Schema::named("unified-flow").unwrap();
    let columns = columns();
    for name in schema.features().chain(schema.time.as_deref()) {
        assert!(columns.iter().any(|c| c == name), "{name}");
    }
    for name in schema.five_tuple.columns() {
        assert!(columns.iter().any(|c| Some(c.as_str()) == name));
    }
}

/// Totals that `dpkt` 1.9.8 counts for the same files (`bench/flows.py --totals`).
#[test]
fn real_captures_have_the_totals_of_another_program() {
    for (file, packets, in_flows, bytes, tuples) in REAL {
        let Some(path) = real(&format!("netflow-pcap/{file}")) else {
            continue;
        };
        let content = std::fs::read(&path).unwrap();
        let (flows, counts, notes) = flows(&content, &FlowOptions::default()).unwrap();
        adds_up(&flows, counts);
        assert_eq!(
            (counts.packets, counts.in_flows, counts.bytes),
            (packets, in_flows, bytes),
            "{notes:?}"
        );
        let mut ends: Vec<_> = flows
            .iter()
            .map(|f| {
                let (a, b) = (
                    (f.source, f.source_port),
                    (f.destination, f.destination_port),
                );
                (a.min(b), a.max(b), f.protocol)
            })
            .collect();
        ends.sort();
        ends.dedup();
        assert_eq!(ends.len(), tuples, "{file}");
        let table = table(&flows).unwrap();
        let column = |name: &str| -> u64 {
            let column = table
                .column_by_name(name)
                .unwrap()
                .as_primitive::<UInt64Type>();
            column.values().iter().sum()
        };
        assert_eq!(column("IN_BYTES") + column("OUT_BYTES"), bytes);
    }
}

/// File, packets, packets in flows, their IP bytes, pairs of ends.
const REAL: [(&str, u64, u64, u64, usize); 3] = [
    ("ntp.pcap", 12, 12, 912, 6),
    ("ipfix_first1500.pcap", 1500, 1500, 1_939_333, 2),
    ("wireshark_samples-test.pcapng", 5898, 4088, 792_581, 1153),
];
