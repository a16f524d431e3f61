//! Simulated flows as a table with the columns of the unified-flow schema.

use super::{Flow, Kind};
use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use papertrial_core::{Error, Result};
use std::sync::Arc;

/// Sums over the packets of one direction.
pub(super) struct Sums {
    pub(super) packets: f64,
    bytes: f64,
}

fn sums(packets: &[(u16, u32)], again: u32) -> Sums {
    let count = |(_, n): &(u16, u32)| f64::from(*n);
    let bytes = |(size, n): &(u16, u32)| f64::from(*size) * f64::from(*n);
    Sums {
        packets: packets.iter().map(count).sum::<f64>() + f64::from(again),
        bytes: packets.iter().map(bytes).sum::<f64>()
            + f64::from(again) * f64::from(largest(packets)),
    }
}

fn largest(packets: &[(u16, u32)]) -> u16 {
    let some = packets.iter().filter(|(_, n)| *n > 0);
    some.map(|(size, _)| *size).max().unwrap_or(0)
}

/// What a column holds for one flow.
type Number = fn(&Flow) -> f64;

pub(super) fn sent(f: &Flow) -> Sums {
    sums(&f.sent, 0)
}

pub(super) fn got(f: &Flow) -> Sums {
    sums(&f.got, 0)
}

fn seconds(f: &Flow) -> f64 {
    (f.duration / 1000.0).max(1.0)
}

/// Packets of both directions above `low` and up to `high` bytes.
pub(super) fn of_sizes(f: &Flow, low: u16, high: u16) -> f64 {
    let both = f.sent.iter().chain(&f.got);
    both.filter(|(size, _)| *size > low && *size <= high)
        .map(|(_, n)| f64::from(*n))
        .sum()
}

pub(super) fn extreme(f: &Flow, most: bool) -> f64 {
    let sizes = f.sent.iter().chain(&f.got).filter(|(_, n)| *n > 0);
    let sizes = sizes.map(|(size, _)| *size);
    f64::from(if most { sizes.max() } else { sizes.min() }.unwrap_or(0))
}

/// Whole milliseconds that a direction lasts: 0 for one packet.
fn lasting(f: &Flow, packets: &[(u16, u32)]) -> f64 {
    if packets.iter().map(|(_, n)| n).sum::<u32>() < 2 {
        0.0
    } else {
        f.duration.round()
    }
}

/// The schema's columns with their content, each a whole number but for the application's.
const COLUMNS: [(&str, Number); 37] = [
    ("L4_SRC_PORT", |f| f64::from(f.source_port)),
    ("L4_DST_PORT", |f| f64::from(f.destination_port)),
    ("PROTOCOL", |f| f64::from(f.protocol)),
    ("L7_PROTO", |f| f.application),
    ("IN_BYTES", |f| sent(f).bytes),
    ("IN_PKTS", |f| sent(f).packets),
    ("OUT_BYTES", |f| got(f).bytes),
    ("OUT_PKTS", |f| got(f).packets),
    ("TCP_FLAGS", |f| f64::from(f.client_flags | f.server_flags)),
    ("CLIENT_TCP_FLAGS", |f| f64::from(f.client_flags)),
    ("SERVER_TCP_FLAGS", |f| f64::from(f.server_flags)),
    ("FLOW_DURATION_MILLISECONDS", |f| f.duration.round()),
    ("DURATION_IN", |f| lasting(f, &f.sent)),
    ("DURATION_OUT", |f| lasting(f, &f.got)),
    ("MIN_TTL", |f| f64::from(f.ttl.0.min(f.ttl.1))),
    ("MAX_TTL", |f| f64::from(f.ttl.0.max(f.ttl.1))),
    ("LONGEST_FLOW_PKT", |f| extreme(f, true)),
    ("SHORTEST_FLOW_PKT", |f| extreme(f, false)),
    ("MIN_IP_PKT_LEN", |f| extreme(f, false)),
    ("MAX_IP_PKT_LEN", |f| extreme(f, true)),
    ("SRC_TO_DST_SECOND_BYTES", |f| {
        (sent(f).bytes / seconds(f)).round()
    }),
    ("DST_TO_SRC_SECOND_BYTES", |f| {
        (got(f).bytes / seconds(f)).round()
    }),
    ("RETRANSMITTED_IN_BYTES", |f| {
        f64::from(f.again_sent) * f64::from(largest(&f.sent))
    }),
    ("RETRANSMITTED_IN_PKTS", |f| f64::from(f.again_sent)),
    ("RETRANSMITTED_OUT_BYTES", |f| {
        f64::from(f.again_got) * f64::from(largest(&f.got))
    }),
    ("RETRANSMITTED_OUT_PKTS", |f| f64::from(f.again_got)),
    ("SRC_TO_DST_AVG_THROUGHPUT", |f| {
        (8.0 * sent(f).bytes / seconds(f)).round()
    }),
    ("DST_TO_SRC_AVG_THROUGHPUT", |f| {
        (8.0 * got(f).bytes / seconds(f)).round()
    }),
    ("NUM_PKTS_UP_TO_128_BYTES", |f| of_sizes(f, 0, 128)),
    ("NUM_PKTS_128_TO_256_BYTES", |f| of_sizes(f, 128, 256)),
    ("NUM_PKTS_256_TO_512_BYTES", |f| of_sizes(f, 256, 512)),
    ("NUM_PKTS_512_TO_1024_BYTES", |f| of_sizes(f, 512, 1024)),
    ("NUM_PKTS_1024_TO_1514_BYTES", |f| of_sizes(f, 1024, 1514)),
    ("TCP_WIN_MAX_IN", |f| f64::from(f.windows.0)),
    ("TCP_WIN_MAX_OUT", |f| f64::from(f.windows.1)),
    ("ICMP_TYPE", |f| f64::from(f.icmp)),
    ("ICMP_IPV4_TYPE", |f| f64::from(f.icmp >> 8)),
];

/// Milliseconds since 1970 of the first simulated moment: 2025-01-01, midnight.
const FIRST: i64 = 1_735_689_600_000;

pub(super) fn table(flows: &[Flow]) -> Result<RecordBatch> {
    let address = |a: u32| std::net::Ipv4Addr::from(a).to_string();
    let texts = |of: &dyn Fn(&Flow) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(flows.iter().map(of)))
    };
    let whole = |of: &dyn Fn(&Flow) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(flows.iter().map(of)))
    };
    let mut all: Vec<(&str, ArrayRef)> = vec![
        (
            "FLOW_START_MILLISECONDS",
            whole(&|f| FIRST + f.start as i64),
        ),
        ("IPV4_SRC_ADDR", texts(&|f| address(f.source))),
        ("IPV4_DST_ADDR", texts(&|f| address(f.destination))),
    ];
    for (name, of) in COLUMNS {
        let column: ArrayRef = if name == "L7_PROTO" {
            Arc::new(Float64Array::from_iter_values(flows.iter().map(of)))
        } else {
            whole(&|f| of(f) as i64)
        };
        all.push((name, column));
    }
    all.push(("Label", whole(&|f| i64::from(f.attack.is_some()))));
    let class = |f: &Flow| f.attack.map_or("Benign", Kind::attack).to_owned();
    all.push(("Attack", texts(&class)));
    RecordBatch::try_from_iter(all).map_err(|e| Error::Failed(e.to_string()))
}
