//! From packets to flows: a table of what is under way, of bounded size, from which a flow comes out when it ends.
//!
//! 1. A packet belongs to the flow with its two ends (address and port) and its protocol, in either direction. The
//!    source is who sent the first packet, or who received it if that was a TCP answer to an opening (SYN and ACK).
//! 2. A flow ends when it was silent for the idle time-out, when it has lasted for the active time-out (later packets
//!    go on in a record of the same direction), a second after both sides said FIN or one said RST, when a new
//!    connection opens between the same ports after that, when the table is full and no flow has been silent for
//!    longer, or with the capture.
//! 3. Three lists hold the flows in the order of their last packet, of their begin, and of their closing; their heads
//!    are what can end next. So flows come out in the order of the moments at which they ended, and the cost of a packet
//!    is one look into a hash table and a few links.
//!
//! The clock is the time of the latest packet so far; a packet with an earlier time counts as arriving now.
//!
//! Later pieces of a fragmented packet carry no ports: they go where the first piece went if it came before them, else
//! to a flow with ports 0. A TCP segment counts as retransmitted if its last byte is not beyond the last byte seen of
//! that direction, so a segment that was overtaken counts as well.

use super::fragments::Fragments;
use super::order::{NONE, Order};
use super::packet::{Dns, Header, flag};
use super::record::{End, FlowRecord, Way};
use papertrial_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::net::IpAddr;

const SECOND: f64 = 1e9;

/// How long a flow waits for stragglers after its close.
const LINGER: i64 = 1_000_000_000;

/// When a flow ends and how many may be under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct FlowOptions {
    /// Seconds of silence after which a flow ends.
    pub idle: f64,
    /// Seconds after which a lasting flow is cut.
    pub active: f64,
    /// Flows under way at one time; about 400 bytes each.
    pub flows: usize,
}

impl Default for FlowOptions {
    /// The time-outs of nProbe.
    fn default() -> Self {
        FlowOptions {
            idle: 30.0,
            active: 120.0,
            flows: 1 << 18,
        }
    }
}

/// Both ends, the lower first, then ports, protocol and version of IP.
type Key = [u64; 5];

/// Flows under way.
pub struct FlowTable {
    idle: i64,
    active: i64,
    limit: usize,
    now: i64,
    places: HashMap<Key, u32>,
    flows: Vec<Flow>,
    free: Vec<u32>,
    by_silence: Order,
    by_age: Order,
    by_close: Order,
    fragments: Fragments,
    /// Flows that ended, by the order of [`End::ALL`].
    ended: [u64; 6],
}

/// A flow under way.
struct Flow {
    key: Key,
    record: FlowRecord,
    /// The clock at its last packet, its begin, its close.
    seen: i64,
    born: i64,
    closed: Option<i64>,
    /// Of each direction the number after the last byte seen.
    next: [Option<u32>; 2],
    /// Which sides said FIN.
    finished: [bool; 2],
}

impl FlowTable {
    /// An empty table.
    ///
    /// # Errors
    /// A time-out that is no positive number, or room for no flow.
    pub fn new(options: &FlowOptions) -> Result<FlowTable> {
        for (name, value) in [("idle", options.idle), ("active", options.active)] {
            if !(value > 0.0 && value <= 1e9) {
                return Err(Error::option(
                    name,
                    format!("is {value}; it must be a positive number of seconds"),
                ));
            }
        }
        if options.flows == 0 || options.flows >= NONE as usize {
            return Err(Error::option(
                "flows",
                format!(
                    "is {}; the table needs room for 1 to {} flows",
                    options.flows,
                    NONE - 1
                ),
            ));
        }
        Ok(FlowTable {
            idle: (options.idle * SECOND) as i64,
            active: (options.active * SECOND) as i64,
            limit: options.flows,
            now: i64::MIN,
            places: HashMap::new(),
            flows: Vec::new(),
            free: Vec::new(),
            by_silence: Order::new(),
            by_age: Order::new(),
            by_close: Order::new(),
            fragments: Fragments::default(),
            ended: [0; 6],
        })
    }

    /// Flows under way.
    pub fn under_way(&self) -> usize {
        self.places.len()
    }

    /// Flows that ended, with the reason.
    pub fn ended(&self) -> [(End, u64); 6] {
        std::array::from_fn(|i| (End::ALL[i], self.ended[i]))
    }

    /// Later pieces of packets whose first piece did not come before them.
    pub fn orphans(&self) -> u64 {
        self.fragments.orphans()
    }

    /// Takes a packet of time `time` (nanoseconds since 1970) and adds the flows that have ended to `out`.
    pub fn push(&mut self, time: i64, header: &Header, out: &mut Vec<FlowRecord>) {
        self.now = self.now.max(time);
        self.expire(out);
        let mut header = *header;
        self.fragments.resolve(self.now, &mut header);
        let key = key(&header);
        let known = self.places.get(&key).copied();
        let opens = header
            .tcp
            .is_some_and(|tcp| tcp.flags & (flag::SYN | flag::ACK) == flag::SYN);
        let at = match known {
            Some(at) if opens && self.flows[at as usize].closed.is_some() => {
                self.end(at, End::Reused, out);
                self.begin(key, &header)
            }
            Some(at) => at,
            None => {
                if self.places.len() >= self.limit
                    && let Some(oldest) = self.by_silence.head().or(self.by_close.head())
                {
                    self.end(oldest, End::Evicted, out);
                }
                self.begin(key, &header)
            }
        };
        let flow = &mut self.flows[at as usize];
        flow.seen = self.now;
        flow.add(time, &header);
        if flow.closed.is_none() {
            if flow.is_closed(&header) {
                flow.closed = Some(self.now);
                self.by_silence.remove(at);
                self.by_close.push(at);
            } else {
                self.by_silence.remove(at);
                self.by_silence.push(at);
            }
        }
    }

    /// Ends all flows, in the order of their last packet.
    pub fn flush(&mut self, out: &mut Vec<FlowRecord>) {
        let mut rest: Vec<u32> = self.places.values().copied().collect();
        rest.sort_by_key(|at| {
            let flow = &self.flows[*at as usize];
            (flow.seen, flow.born, flow.key)
        });
        for at in rest {
            self.end(at, End::Flushed, out);
        }
    }

    /// Ends what has timed out, the earliest first.
    fn expire(&mut self, out: &mut Vec<FlowRecord>) {
        loop {
            let due = [
                self.by_close.head().map(|at| {
                    let closed = self.flows[at as usize].closed.unwrap_or(self.now);
                    (closed.saturating_add(LINGER), at, End::Closed)
                }),
                self.by_silence.head().map(|at| {
                    let seen = self.flows[at as usize].seen;
                    (seen.saturating_add(self.idle), at, End::Idle)
                }),
                self.by_age.head().map(|at| {
                    let born = self.flows[at as usize].born;
                    (born.saturating_add(self.active), at, End::Active)
                }),
            ];
            let Some((when, at, why)) = due.into_iter().flatten().min_by_key(|d| d.0) else {
                return;
            };
            if when >= self.now {
                return;
            }
            match why {
                End::Active => self.cut(at, when, out),
                why => self.end(at, why, out),
            }
        }
    }

    /// Gives out a lasting flow and lets it go on empty.
    fn cut(&mut self, at: u32, when: i64, out: &mut Vec<FlowRecord>) {
        let flow = &mut self.flows[at as usize];
        let empty = flow.record.empty_twin();
        let mut record = std::mem::replace(&mut flow.record, empty);
        flow.born = when;
        self.by_age.remove(at);
        self.by_age.push(at);
        if record.packets() > 0 {
            record.end = End::Active;
            self.ended[End::Active as usize] += 1;
            out.push(record);
        }
    }

    /// Takes a flow out of the table.
    fn end(&mut self, at: u32, why: End, out: &mut Vec<FlowRecord>) {
        let flow = &mut self.flows[at as usize];
        self.places.remove(&flow.key);
        if flow.closed.is_some() {
            self.by_close.remove(at);
        } else {
            self.by_silence.remove(at);
        }
        self.by_age.remove(at);
        self.free.push(at);
        // A flow that was cut and got no further packet has nothing to tell.
        if flow.record.packets() > 0 {
            let empty = flow.record.empty_twin();
            let mut record = std::mem::replace(&mut flow.record, empty);
            record.end = why;
            self.ended[why as usize] += 1;
            out.push(record);
        }
    }

    /// A new flow, of which the packet is the first.
    fn begin(&mut self, key: Key, header: &Header) -> u32 {
        let flow = Flow {
            key,
            record: FlowRecord::begin(header),
            seen: self.now,
            born: self.now,
            closed: None,
            next: [None; 2],
            finished: [false; 2],
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.flows[at as usize] = flow;
                at
            }
            None => {
                self.flows.push(flow);
                (self.flows.len() - 1) as u32
            }
        };
        self.places.insert(key, at);
        self.by_silence.push(at);
        self.by_age.push(at);
        at
    }
}

impl Flow {
    /// Counts a packet.
    fn add(&mut self, time: i64, header: &Header) {
        let record = &mut self.record;
        let out = header.source == record.source && header.source_port == record.source_port;
        let side = usize::from(!out);
        let way = &mut record.ways[side];
        if let Some(tcp) = header.tcp {
            way.flags |= tcp.flags;
            way.window = way.window.max(tcp.window);
            self.finished[side] |= tcp.flags & flag::FIN > 0;
            let ends = [flag::SYN, flag::FIN]
                .iter()
                .filter(|f| tcp.flags & *f > 0)
                .count() as u32;
            let after = tcp.sequence.wrapping_add(tcp.payload).wrapping_add(ends);
            // Numbers wrap around: the shorter way says which is later.
            let new = self.next[side].is_none_or(|next| (after.wrapping_sub(next) as i32) > 0);
            if new {
                self.next[side] = Some(after);
            } else if tcp.payload > 0 {
                way.retransmitted += 1;
                way.retransmitted_bytes += u64::from(tcp.payload);
            }
        }
        if way.packets == 0 {
            way.first = time;
            way.last = time;
        }
        way.first = way.first.min(time);
        way.last = way.last.max(time);
        way.packets += 1;
        way.bytes += u64::from(header.length);
        if record.packets() == 1 {
            record.first = time;
            record.last = time;
            record.length = [header.length; 2];
            record.ttl = [header.ttl; 2];
            record.icmp = header.icmp.unwrap_or_default();
        }
        record.first = record.first.min(time);
        record.last = record.last.max(time);
        record.length[0] = record.length[0].min(header.length);
        record.length[1] = record.length[1].max(header.length);
        record.ttl[0] = record.ttl[0].min(header.ttl);
        record.ttl[1] = record.ttl[1].max(header.ttl);
        let size = match header.length {
            0..=128 => Some(0),
            129..=256 => Some(1),
            257..=512 => Some(2),
            513..=1024 => Some(3),
            1025..=1514 => Some(4),
            _ => None,
        };
        if let Some(size) = size {
            record.sizes[size] += 1;
        }
        if let Some(dns) = header.dns {
            if record.dns == Dns::default() {
                record.dns = dns;
            } else if record.dns.ttl == 0 {
                record.dns.ttl = dns.ttl;
            }
        }
        if header.ftp_code > 0 {
            record.ftp_code = header.ftp_code;
        }
    }

    /// Whether the connection is over with this packet.
    fn is_closed(&self, header: &Header) -> bool {
        header.tcp.is_some_and(|tcp| tcp.flags & flag::RST > 0) || self.finished == [true; 2]
    }
}

impl FlowRecord {
    /// Packets of both directions.
    pub fn packets(&self) -> u64 {
        self.ways[0].packets + self.ways[1].packets
    }

    /// Bytes of both directions.
    pub fn bytes(&self) -> u64 {
        self.ways[0].bytes + self.ways[1].bytes
    }

    /// Of no packet yet, with the direction that the first one shows.
    fn begin(header: &Header) -> FlowRecord {
        let both = flag::SYN | flag::ACK;
        let answer = header.tcp.is_some_and(|tcp| tcp.flags & both == both);
        let ends = [
            (header.source, header.source_port),
            (header.destination, header.destination_port),
        ];
        let [from, to] = if answer { [ends[1], ends[0]] } else { ends };
        FlowRecord {
            source: from.0,
            destination: to.0,
            source_port: from.1,
            destination_port: to.1,
            protocol: header.protocol,
            first: 0,
            last: 0,
            ways: [Way::default(); 2],
            sizes: [0; 5],
            length: [0; 2],
            ttl: [0; 2],
            icmp: [0; 2],
            dns: Dns::default(),
            ftp_code: 0,
            end: End::Flushed,
        }
    }

    /// The same ends without packets.
    fn empty_twin(&self) -> FlowRecord {
        FlowRecord {
            first: 0,
            last: 0,
            ways: [Way::default(); 2],
            sizes: [0; 5],
            dns: Dns::default(),
            ftp_code: 0,
            ..self.clone()
        }
    }
}

/// The key of a packet's flow, the same in both directions.
fn key(header: &Header) -> Key {
    let from = (number(header.source), header.source_port);
    let to = (number(header.destination), header.destination_port);
    let (low, high) = (from.min(to), from.max(to));
    let version = u64::from(header.source.is_ipv6());
    let rest = u64::from(low.1) << 32
        | u64::from(high.1) << 16
        | u64::from(header.protocol) << 8
        | version;
    [
        (low.0 >> 64) as u64,
        low.0 as u64,
        (high.0 >> 64) as u64,
        high.0 as u64,
        rest,
    ]
}

/// An address as a number.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::{Fragment, TCP, Tcp, UDP};
    use super::*;
    use proptest::prelude::*;

    const S: i64 = 1_000_000_000;

    fn header(from: u8, to: u8, ports: [u16; 2], protocol: u8, length: u32) -> Header {
        Header {
            source: IpAddr::from([10, 0, 0, from]),
            destination: IpAddr::from([10, 0, 0, to]),
            protocol,
            source_port: ports[0],
            destination_port: ports[1],
            length,
            ttl: 60 + from,
            tcp: None,
            icmp: None,
            fragment: None,
            dns: None,
            ftp_code: 0,
        }
    }

    fn segment(from: u8, flags: u8, sequence: u32, payload: u32) -> Header {
        let (to, ports) = if from == 1 {
            (2, [4000, 80])
        } else {
            (1, [80, 4000])
        };
        Header {
            tcp: Some(Tcp {
                flags,
                sequence,
                payload,
                window: 100 * u16::from(from) + sequence as u16 % 7,
            }),
            ..header(from, to, ports, TCP, 40 + payload)
        }
    }

    fn table(idle: f64, active: f64, flows: usize) -> FlowTable {
        FlowTable::new(&FlowOptions {
            idle,
            active,
            flows,
        })
        .unwrap()
    }

    #[test]
    fn a_connection_by_hand() {
        let mut table = table(30.0, 120.0, 10);
        let mut out = Vec::new();
        let steps = [
            (0, segment(1, flag::SYN, 99, 0)),
            (1, segment(2, flag::SYN | flag::ACK, 499, 0)),
            (2, segment(1, flag::ACK, 100, 0)),
            (3, segment(1, flag::ACK | 8, 100, 200)),
            // The same content once more.
            (4, segment(1, flag::ACK | 8, 100, 200)),
            (5, segment(2, flag::ACK, 500, 1000)),
            (6, segment(2, flag::ACK | flag::FIN, 1500, 0)),
            (7, segment(1, flag::ACK | flag::FIN, 300, 0)),
            (8, segment(2, flag::ACK, 1501, 0)),
        ];
        for (time, header) in steps {
            table.push(time * S / 100, &header, &mut out);
        }
        assert!(out.is_empty());
        // A packet of another flow moves the clock.
        table.push(2 * S, &header(7, 8, [1, 2], UDP, 100), &mut out);
        let [flow] = &out[..] else { panic!("{out:?}") };
        assert_eq!(flow.end, End::Closed);
        assert_eq!((flow.source_port, flow.destination_port), (4000, 80));
        let [from, to] = flow.ways;
        assert_eq!((from.packets, from.bytes), (5, 5 * 40 + 400));
        assert_eq!((to.packets, to.bytes), (4, 4 * 40 + 1000));
        assert_eq!((from.flags, to.flags), (1 | 2 | 8 | 16, 1 | 2 | 16));
        assert_eq!((from.retransmitted, from.retransmitted_bytes), (1, 200));
        assert_eq!(to.retransmitted, 0);
        assert_eq!((from.window, to.window), (106, 203));
        assert_eq!((flow.ttl, flow.length), ([61, 62], [40, 1040]));
        assert_eq!(flow.sizes, [6, 2, 0, 0, 1]);
        assert_eq!((flow.milliseconds(), from.last), (80, 7 * S / 100));
    }

    #[test]
    fn directions_reuse_and_reset() {
        let mut table = table(30.0, 120.0, 10);
        let mut out = Vec::new();
        // The capture began after the opening: the answer shows who asked.
        table.push(0, &segment(2, flag::SYN | flag::ACK, 9, 0), &mut out);
        table.push(1, &segment(1, flag::RST, 9, 0), &mut out);
        table.push(2, &segment(1, flag::SYN, 5000, 0), &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].end, out[0].source_port), (End::Reused, 4000));
        assert_eq!(out[0].packets(), 2);
        table.flush(&mut out);
        assert_eq!((out[1].end, out[1].packets()), (End::Flushed, 1));
        assert_eq!(table.under_way(), 0);
    }

    #[test]
    fn time_outs_cut_and_end_flows_in_order() {
        let mut table = table(10.0, 25.0, 10);
        let mut out = Vec::new();
        let long = header(1, 2, [1, 2], UDP, 100);
        let back = header(2, 1, [2, 1], UDP, 100);
        let short = header(3, 4, [1, 2], UDP, 50);
        table.push(0, &long, &mut out);
        table.push(S, &short, &mut out);
        for k in 1..=8 {
            table.push(5 * k * S, &back, &mut out);
        }
        // Silent since 1 s, so ended at 11 s; the other one was cut at 25 s.
        let ends: Vec<(End, u64)> = out.iter().map(|f| (f.end, f.packets())).collect();
        assert_eq!(ends, [(End::Idle, 1), (End::Active, 6)]);
        table.push(100 * S, &short, &mut out);
        assert_eq!((out[2].end, out[2].packets()), (End::Idle, 3));
        // Its direction is that of the flow which was cut, though the other side sent all of it.
        assert_eq!((out[2].source_port, out[2].ways[0].packets), (1, 0));
        assert_eq!(out[2].first, 30 * S);
        table.flush(&mut out);
        let total: u64 = out.iter().map(FlowRecord::packets).sum();
        assert_eq!(total, 11);
    }

    #[test]
    fn a_full_table_gives_out_the_longest_silent() {
        let mut table = table(1e6, 1e6, 2);
        let mut out = Vec::new();
        for (time, from) in [(0, 1), (1, 2), (2, 1), (3, 3)] {
            table.push(time, &header(from, 9, [1, 2], UDP, 10), &mut out);
        }
        assert_eq!(out.len(), 1);
        assert_eq!(
            (out[0].source, out[0].end),
            (IpAddr::from([10, 0, 0, 2]), End::Evicted)
        );
        assert_eq!(table.under_way(), 2);
    }

    #[test]
    fn later_fragments_follow_the_first() {
        let mut table = table(30.0, 120.0, 10);
        let mut out = Vec::new();
        let piece = |identification, first, ports| Header {
            fragment: Some(Fragment {
                identification,
                first,
            }),
            ..header(1, 2, ports, UDP, 1500)
        };
        table.push(0, &piece(7, true, [5, 53]), &mut out);
        table.push(1, &piece(7, false, [0, 0]), &mut out);
        table.push(2, &piece(8, false, [0, 0]), &mut out);
        table.flush(&mut out);
        let seen: Vec<(u16, u64)> = out
            .iter()
            .map(|f| (f.destination_port, f.packets()))
            .collect();
        assert_eq!((seen, table.orphans()), (vec![(53, 2), (0, 1)], 1));
    }

    #[test]
    fn options_are_checked() {
        for (idle, active, flows) in [(0.0, 1.0, 1), (1.0, f64::NAN, 1), (1.0, 1.0, 0)] {
            assert!(
                FlowTable::new(&FlowOptions {
                    idle,
                    active,
                    flows
                })
                .is_err()
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_is_lost_and_the_table_stays_bounded(
            packets in prop::collection::vec((0u8..4, 0u8..4, 0u16..3, 0u8..32, 0i64..8_000_000_000, 20u32..1600), 1..400),
            limit in 1usize..6,
        ) {
            let mut table = table(5.0, 9.0, limit);
            let (mut out, mut time, mut bytes) = (Vec::new(), 0, 0);
            for (from, to, port, flags, gap, length) in &packets {
                // Every eighth packet comes from the past.
                time += if gap % 8 == 0 { -gap / 16 } else { gap / 8 };
                let mut packet = header(*from, *to, [*port, 2 - *port], TCP, *length);
                packet.tcp = Some(Tcp { flags: *flags, sequence: *length, payload: 1, window: 1 });
                table.push(time, &packet, &mut out);
                bytes += u64::from(*length);
                prop_assert!(table.under_way() <= limit);
                prop_assert!(table.flows.len() <= limit);
            }
            table.flush(&mut out);
            prop_assert_eq!(out.iter().map(FlowRecord::packets).sum::<u64>(), packets.len() as u64);
            prop_assert_eq!(out.iter().map(FlowRecord::bytes).sum::<u64>(), bytes);
            prop_assert_eq!(table.ended().iter().map(|e| e.1).sum::<u64>(), out.len() as u64);
            for flow in &out {
                prop_assert!(flow.first <= flow.last && flow.length[0] <= flow.length[1]);
            }
        }
    }
}
