//! A flow record and its columns: the names of NetFlow version 2 as nProbe writes them, and the two times.
//!
//! Where the layout leaves room, here is what a column holds:
//! - Lengths and byte counts are those of IP packets, headers included, as they were sent.
//! - `*_SECOND_BYTES` is the bytes of a direction by the seconds of the flow, where less than a second counts as one;
//!   `*_AVG_THROUGHPUT` is its bits by the same seconds, where less than a millisecond counts as one.
//! - `SHORTEST_FLOW_PKT` and `LONGEST_FLOW_PKT` are the same as `MIN_IP_PKT_LEN` and `MAX_IP_PKT_LEN`.
//! - `TCP_WIN_MAX_*` is the window field, not scaled.
//! - `ICMP_TYPE` is 256 times the type plus the code of the first ICMP packet, `ICMP_IPV4_TYPE` its type.
//! - `L7_PROTO` is nDPI's number of the protocol that is usual on the port, not a look at the content.
//! - `IPV4_*_ADDR` holds addresses of IP version 6 as well.

use super::packet::{Dns, ICMP, ICMPV6, TCP, UDP};
use arrow::array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use papertrial_core::{Error, Result};
use std::net::IpAddr;
use std::sync::Arc;

/// Nanoseconds of a millisecond.
const MILLISECOND: i64 = 1_000_000;

/// What passed between two ends, in both directions.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowRecord {
    /// Who began.
    pub source: IpAddr,
    /// The other.
    pub destination: IpAddr,
    /// Port of the source.
    pub source_port: u16,
    /// Port of the destination.
    pub destination_port: u16,
    /// Number of the protocol above IP.
    pub protocol: u8,
    /// Time of the first packet, nanoseconds since 1970.
    pub first: i64,
    /// Time of the last packet.
    pub last: i64,
    /// From the source, then to it.
    pub ways: [Way; 2],
    /// Packets of up to 128, 256, 512, 1024 and 1514 bytes, each counted once.
    pub sizes: [u64; 5],
    /// Least and greatest length of a packet.
    pub length: [u32; 2],
    /// Least and greatest number of hops left.
    pub ttl: [u8; 2],
    /// Type and code of the first ICMP packet.
    pub icmp: [u8; 2],
    /// Of the first DNS message with a question; the time to live of the first answer.
    pub dns: Dns,
    /// The last return code of an FTP server.
    pub ftp_code: u16,
    /// Why it ended.
    pub end: End,
}

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Way {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
    /// Time of its first packet.
    pub first: i64,
    /// Time of its last packet.
    pub last: i64,
    /// All TCP flags that occurred.
    pub flags: u8,
    /// Largest window.
    pub window: u16,
    /// Segments with content that was sent before.
    pub retransmitted: u64,
    /// Bytes of their content.
    pub retransmitted_bytes: u64,
}

/// Why a flow ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// No packet for the idle time-out.
    Idle,
    /// The active time-out passed; what comes after is another record.
    Active,
    /// Both sides said FIN, or one RST.
    Closed,
    /// A new connection between the same ports.
    Reused,
    /// The table was full, and no other flow had been silent for longer.
    Evicted,
    /// The capture ended.
    Flushed,
}

impl End {
    /// All of them, in the order of their numbers.
    pub const ALL: [End; 6] = [
        End::Idle,
        End::Active,
        End::Closed,
        End::Reused,
        End::Evicted,
        End::Flushed,
    ];
}

impl FlowRecord {
    /// Milliseconds from the first packet to the last.
    pub fn milliseconds(&self) -> u64 {
        milliseconds(self.first, self.last)
    }

    /// TCP flags of both directions.
    pub fn flags(&self) -> u8 {
        self.ways[0].flags | self.ways[1].flags
    }

    fn second_bytes(&self, way: usize) -> f64 {
        self.ways[way].bytes as f64 / (self.milliseconds() as f64 / 1e3).max(1.0)
    }

    fn throughput(&self, way: usize) -> f64 {
        self.ways[way].bytes as f64 * 8.0 / (self.milliseconds().max(1) as f64 / 1e3)
    }

    fn icmp_type(&self) -> u64 {
        u64::from(u16::from_be_bytes(self.icmp))
    }

    /// nDPI's number of the protocol that is usual on the lower known port; 0 if none is known.
    pub fn application(&self) -> u64 {
        let port = |port| usual(self.protocol, port);
        port(self.destination_port)
            .or_else(|| port(self.source_port))
            .unwrap_or(0)
    }
}

fn milliseconds(first: i64, last: i64) -> u64 {
    (last.saturating_sub(first) / MILLISECOND).max(0) as u64
}

/// nDPI's number of the protocol that is usual on a port.
fn usual(protocol: u8, port: u16) -> Option<u64> {
    match (protocol, port) {
        (ICMP, _) => return Some(81),
        (2, _) => return Some(82),
        (47, _) => return Some(80),
        (50 | 51, _) => return Some(79),
        (ICMPV6, _) => return Some(102),
        (89, _) => return Some(85),
        (TCP | UDP, _) => {}
        _ => return None,
    }
    let number = match port {
        20 => 175,
        21 => 1,
        22 => 92,
        23 => 77,
        25 | 587 => 3,
        53 => 5,
        67 | 68 => 18,
        69 => 96,
        80 | 8080 => 7,
        88 => 111,
        110 => 2,
        111 => 127,
        119 => 93,
        123 => 9,
        135 => 127,
        137..=139 => 10,
        143 => 4,
        161 | 162 => 14,
        179 => 13,
        389 => 112,
        443 if protocol == UDP => 188,
        443 | 8443 => 91,
        445 => 41,
        465 => 29,
        500 | 4500 => 79,
        514 => 17,
        546 | 547 => 103,
        554 => 50,
        631 => 6,
        873 => 166,
        993 => 51,
        995 => 23,
        1433 => 114,
        1521 => 167,
        1723 => 115,
        1812 | 1813 => 146,
        1883 => 222,
        1900 => 12,
        2049 => 11,
        2055 | 4739 => 128,
        3306 => 20,
        3389 => 88,
        3478 => 78,
        5060 => 100,
        5353 => 8,
        5432 => 19,
        5900 => 89,
        6343 => 129,
        6379 => 182,
        9418 => 226,
        11211 => 40,
        _ => return None,
    };
    Some(number)
}

/// How a column is made.
enum Column {
    Text(fn(&FlowRecord) -> String),
    Whole(fn(&FlowRecord) -> u64),
    Real(fn(&FlowRecord) -> f64),
}

use Column::{Real, Text, Whole};

/// The columns.
const COLUMNS: [(&str, Column); 45] = [
    (
        "FLOW_START_MILLISECONDS",
        Whole(|f| milliseconds(0, f.first)),
    ),
    ("FLOW_END_MILLISECONDS", Whole(|f| milliseconds(0, f.last))),
    ("IPV4_SRC_ADDR", Text(|f| f.source.to_string())),
    ("L4_SRC_PORT", Whole(|f| f.source_port.into())),
    ("IPV4_DST_ADDR", Text(|f| f.destination.to_string())),
    ("L4_DST_PORT", Whole(|f| f.destination_port.into())),
    ("PROTOCOL", Whole(|f| f.protocol.into())),
    ("L7_PROTO", Whole(|f| f.application())),
    ("IN_BYTES", Whole(|f| f.ways[0].bytes)),
    ("IN_PKTS", Whole(|f| f.ways[0].packets)),
    ("OUT_BYTES", Whole(|f| f.ways[1].bytes)),
    ("OUT_PKTS", Whole(|f| f.ways[1].packets)),
    ("TCP_FLAGS", Whole(|f| f.flags().into())),
    ("CLIENT_TCP_FLAGS", Whole(|f| f.ways[0].flags.into())),
    ("SERVER_TCP_FLAGS", Whole(|f| f.ways[1].flags.into())),
    ("FLOW_DURATION_MILLISECONDS", Whole(|f| f.milliseconds())),
    (
        "DURATION_IN",
        Whole(|f| milliseconds(f.ways[0].first, f.ways[0].last)),
    ),
    (
        "DURATION_OUT",
        Whole(|f| milliseconds(f.ways[1].first, f.ways[1].last)),
    ),
    ("MIN_TTL", Whole(|f| f.ttl[0].into())),
    ("MAX_TTL", Whole(|f| f.ttl[1].into())),
    ("LONGEST_FLOW_PKT", Whole(|f| f.length[1].into())),
    ("SHORTEST_FLOW_PKT", Whole(|f| f.length[0].into())),
    ("MIN_IP_PKT_LEN", Whole(|f| f.length[0].into())),
    ("MAX_IP_PKT_LEN", Whole(|f| f.length[1].into())),
    ("SRC_TO_DST_SECOND_BYTES", Real(|f| f.second_bytes(0))),
    ("DST_TO_SRC_SECOND_BYTES", Real(|f| f.second_bytes(1))),
    (
        "RETRANSMITTED_IN_BYTES",
        Whole(|f| f.ways[0].retransmitted_bytes),
    ),
    ("RETRANSMITTED_IN_PKTS", Whole(|f| f.ways[0].retransmitted)),
    (
        "RETRANSMITTED_OUT_BYTES",
        Whole(|f| f.ways[1].retransmitted_bytes),
    ),
    ("RETRANSMITTED_OUT_PKTS", Whole(|f| f.ways[1].retransmitted)),
    ("SRC_TO_DST_AVG_THROUGHPUT", Real(|f| f.throughput(0))),
    ("DST_TO_SRC_AVG_THROUGHPUT", Real(|f| f.throughput(1))),
    ("NUM_PKTS_UP_TO_128_BYTES", Whole(|f| f.sizes[0])),
    ("NUM_PKTS_128_TO_256_BYTES", Whole(|f| f.sizes[1])),
    ("NUM_PKTS_256_TO_512_BYTES", Whole(|f| f.sizes[2])),
    ("NUM_PKTS_512_TO_1024_BYTES", Whole(|f| f.sizes[3])),
    ("NUM_PKTS_1024_TO_1514_BYTES", Whole(|f| f.sizes[4])),
    ("TCP_WIN_MAX_IN", Whole(|f| f.ways[0].window.into())),
    ("TCP_WIN_MAX_OUT", Whole(|f| f.ways[1].window.into())),
    ("ICMP_TYPE", Whole(|f| f.icmp_type())),
    ("ICMP_IPV4_TYPE", Whole(|f| f.icmp[0].into())),
    ("DNS_QUERY_ID", Whole(|f| f.dns.id.into())),
    ("DNS_QUERY_TYPE", Whole(|f| f.dns.kind.into())),
    ("DNS_TTL_ANSWER", Whole(|f| f.dns.ttl.into())),
    ("FTP_COMMAND_RET_CODE", Whole(|f| f.ftp_code.into())),
];

/// Names of the columns.
pub fn columns() -> Vec<String> {
    COLUMNS.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// Names and types of the columns.
fn schema() -> SchemaRef {
    let field = |(name, column): &(&str, Column)| {
        let kind = match column {
            Text(_) => DataType::Utf8,
            Whole(_) => DataType::UInt64,
            Real(_) => DataType::Float64,
        };
        Field::new(*name, kind, false)
    };
    Arc::new(Schema::new(COLUMNS.iter().map(field).collect::<Vec<_>>()))
}

/// The records as a table.
///
/// # Errors
/// None that data can cause.
pub fn table(flows: &[FlowRecord]) -> Result<RecordBatch> {
    let arrays = COLUMNS
        .iter()
        .map(|(_, column)| -> ArrayRef {
            match column {
                Text(of) => Arc::new(StringArray::from_iter_values(flows.iter().map(of))),
                Whole(of) => Arc::new(UInt64Array::from_iter_values(flows.iter().map(of))),
                Real(of) => Arc::new(Float64Array::from_iter_values(flows.iter().map(of))),
            }
        })
        .collect();
    RecordBatch::try_new(schema(), arrays).map_err(|e| Error::Failed(e.to_string()))
}
