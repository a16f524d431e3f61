//! Packets that were sent in pieces: only the first piece has ports, so they are remembered for the others.

use super::flows::number;
use super::packet::Header;
use std::collections::{HashMap, VecDeque};

/// First pieces that are remembered.
const FRAGMENTS: usize = 8192;

/// Ports of fragmented packets, by the packet's number.
#[derive(Default)]
pub(super) struct Fragments {
    known: HashMap<[u64; 5], ([u16; 2], i64)>,
    order: VecDeque<[u64; 5]>,
    orphans: u64,
}

impl Fragments {
    /// Seconds for which a first piece is remembered.
    const AGE: i64 = 30_000_000_000;

    /// Later pieces whose first piece was not there.
    pub(super) fn orphans(&self) -> u64 {
        self.orphans
    }

    /// Notes the ports of a first piece, or gives them to a later one.
    pub(super) fn resolve(&mut self, now: i64, header: &mut Header) {
        let Some(fragment) = header.fragment else {
            return;
        };
        let (from, to) = (number(header.source), number(header.destination));
        let packet = [
            (from >> 64) as u64,
            from as u64,
            (to >> 64) as u64,
            to as u64,
            u64::from(fragment.identification) << 16
                | u64::from(header.protocol) << 8
                | u64::from(header.source.is_ipv6()),
        ];
        if fragment.first {
            let ports = [header.source_port, header.destination_port];
            if self.known.insert(packet, (ports, now)).is_none() {
                self.order.push_back(packet);
            }
            if self.order.len() > FRAGMENTS
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
            return;
        }
        match self.known.get(&packet) {
            Some((ports, time)) if now.saturating_sub(*time) <= Self::AGE => {
                [header.source_port, header.destination_port] = *ports;
            }
            _ => self.orphans += 1,
        }
    }
}
