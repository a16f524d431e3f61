//! Simulated traffic of a small network as flow records, with attacks whose single flows look like everyday ones.
//!
//! The columns are those of the unified-flow schema (NetFlow version 2 as nProbe writes it), with the start and the
//! addresses before them, and `Label` (0 or 1) and `Attack` (its name, or Benign) behind them; the rows are in the
//! order of their starts. What happens:
//! 1. Everyday sessions start at random, `rate` flows a second in the mean: a page (one or two DNS questions, then
//!    3 to 10 connections over TLS or QUIC within two seconds), mail, clocks, shared files, pings.
//! 2. A share `look-alikes` of the everyday flows are of four kinds that attacks are made of: a connection that is
//!    refused, one that nobody answers, the short login of a script, a slow upload.
//! 3. A share `attacks` of all flows are attacks, in episodes of 20 to 60 flows of one kind, `intensity` of them for
//!    each everyday flow of that time: a port scan (refused), a SYN flood (unanswered), password guessing (short
//!    logins) and exfiltration in pieces (slow uploads).
//! 4. An attack's flow is drawn exactly like the everyday flow of its kind, so that it tells nothing alone and only
//!    the flows before it do, but for a share `marked`, which shows its tool: ports that nobody uses, odd windows and
//!    times to live, other sizes. With `marked` = 1 one flow is enough, and a window is of little use.
//! 5. With `drift`, sizes grow, QUIC takes the place of TLS, and scans and floods give way to guessing and
//!    exfiltration in the course of the rows. `site` names another network: its own mix of services, sizes and
//!    distances.

mod columns;

use arrow::record_batch::RecordBatch;
use columns::table;
use papertrial_core::data::Roles;
use papertrial_core::options::{self, Settings};
use papertrial_core::task::Simulation;
use papertrial_core::{Error, Result};
use papertrial_numerics::sampling;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, StandardNormal};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The simulations of the task.
pub const SIMULATIONS: &[Simulation] = &[Simulation {
    name: "network-traffic",
    about: "flow records of a small network with scans, floods, password guessing and exfiltration",
    options: options::describe::<NetworkTraffic>,
    roles,
    generate: network_traffic,
}];

/// Options of `network-traffic`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct NetworkTraffic {
    /// Number of flows.
    #[schemars(range(min = 1, max = 20_000_000))]
    n: usize,
    /// Share of the flows that are attacks.
    #[schemars(range(min = 0.0, max = 1.0))]
    attacks: f64,
    /// Share of the everyday flows that look like those of an attack.
    #[schemars(range(min = 0.0, max = 1.0))]
    look_alikes: f64,
    /// Share of the attacks' flows that show what they are on their own.
    #[schemars(range(min = 0.0, max = 1.0))]
    marked: f64,
    /// Flows of an attack for each everyday flow while it lasts.
    #[schemars(range(min = 0.01, max = 1000.0))]
    intensity: f64,
    /// Everyday flows in a second.
    #[schemars(range(min = 0.001, max = 1_000_000.0))]
    rate: f64,
    /// How far the traffic changes from the first row to the last: 0 not at all, 1 much.
    #[schemars(range(min = 0.0, max = 1.0))]
    drift: f64,
    /// Number of the network; others have other services, sizes and distances.
    site: u32,
}

impl Default for NetworkTraffic {
    fn default() -> Self {
        NetworkTraffic {
            n: 20_000,
            attacks: 0.15,
            look_alikes: 0.4,
            marked: 0.2,
            intensity: 3.0,
            rate: 20.0,
            drift: 0.0,
            site: 0,
        }
    }
}

fn roles() -> Roles {
    Roles {
        label: Some("Attack".into()),
        time: Some("FLOW_START_MILLISECONDS".into()),
        ..Roles::default()
    }
}

/// What attacks are made of, and what of everyday traffic looks like it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Refused,
    Unanswered,
    ShortLogin,
    SlowUpload,
}

const KINDS: [Kind; 4] = [
    Kind::Refused,
    Kind::Unanswered,
    Kind::ShortLogin,
    Kind::SlowUpload,
];

impl Kind {
    /// The attack that consists of it.
    fn attack(self) -> &'static str {
        match self {
            Kind::Refused => "Port scan",
            Kind::Unanswered => "SYN flood",
            Kind::ShortLogin => "Password guessing",
            Kind::SlowUpload => "Exfiltration",
        }
    }
}

/// A network.
struct Site {
    /// First three bytes of its addresses, as a number.
    addresses: u32,
    hosts: u32,
    /// Weights of page, mail, clock, shared files, ping.
    services: [f64; 5],
    /// Everyday sizes are multiplied by it.
    size: f64,
    /// Routers between a host and the outside.
    hops: u32,
    /// Milliseconds to the outside and back.
    trip: f64,
}

/// Flows that a session of each service has in the mean: see [`Everyday::session`].
const FLOWS_OF_SERVICE: [f64; 5] = [8.0, 1.0, 1.0, 1.0, 1.0];

impl Site {
    fn new(number: u32) -> Site {
        let mut site = Site {
            addresses: 10 << 16,
            hosts: 60,
            services: [0.4, 0.2, 0.15, 0.15, 0.1],
            size: 1.0,
            hops: 8,
            trip: 30.0,
        };
        if number > 0 {
            let mut draws = sampling::rng(u64::from(number), "network-traffic site");
            site.addresses += number & 0xFFFF;
            site.hosts = draws.random_range(30..200);
            for weight in &mut site.services {
                *weight *= (0.6 * normal(&mut draws)).exp();
            }
            site.size = (0.7 * normal(&mut draws)).exp();
            site.hops = draws.random_range(4..20);
            site.trip = 30.0 * (0.7 * normal(&mut draws)).exp();
        }
        site
    }

    fn host(&self, draws: &mut ChaCha8Rng) -> u32 {
        (self.addresses << 8) | (10 + draws.random_range(0..self.hosts))
    }
}

/// One record.
#[derive(Debug, Clone, Default)]
struct Flow {
    /// Milliseconds since the first.
    start: f64,
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    /// nDPI's number of the application.
    application: f64,
    client_flags: u8,
    server_flags: u8,
    icmp: u16,
    /// Packets from the source: (bytes of one, how many).
    sent: Vec<(u16, u32)>,
    /// Packets to the source.
    got: Vec<(u16, u32)>,
    /// Milliseconds.
    duration: f64,
    ttl: (u8, u8),
    windows: (u32, u32),
    again_sent: u32,
    again_got: u32,
    attack: Option<Kind>,
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const RST: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const TLS: f64 = 91.0;

fn normal(draws: &mut impl Rng) -> f64 {
    StandardNormal.sample(draws)
}

fn exponential(draws: &mut impl Rng) -> f64 {
    Exp1.sample(draws)
}

/// A positive number around `middle`, its logarithm normal with deviation `spread`.
fn around(draws: &mut impl Rng, middle: f64, spread: f64) -> f64 {
    middle * (spread * normal(draws)).exp()
}

/// The place that `share` of the sum of `weights` falls on.
fn chosen(draws: &mut impl Rng, weights: &[f64]) -> usize {
    let mut left = draws.random::<f64>() * weights.iter().sum::<f64>();
    for (i, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return i;
        }
    }
    weights.len() - 1
}

/// Draws of everyday traffic and of what looks like it.
struct Everyday<'a> {
    site: &'a Site,
    draws: ChaCha8Rng,
    drift: f64,
}

impl Everyday<'_> {
    /// What all flows have: ends, times to live, windows. `at` is in milliseconds, `part` the part of the rows that
    /// is over, 0 to 1.
    fn flow(&mut self, at: f64, protocol: u8, port: u16, application: f64) -> Flow {
        let draws = &mut self.draws;
        let inside = draws.random::<f64>() < 0.3;
        let destination = if inside {
            self.site.host(draws)
        } else {
            (198 << 24) | (51 << 16) | draws.random_range(0..65536)
        };
        let hops = if inside {
            1
        } else {
            self.site.hops + draws.random_range(0..5)
        };
        let trip = around(draws, if inside { 1.0 } else { self.site.trip }, 0.4);
        let start_ttl = if draws.random::<f64>() < 0.6 { 64 } else { 128 };
        let (window_in, window_out) = if protocol == TCP {
            let choices = [64_240, 65_535, 29_200];
            (
                choices[draws.random_range(0..3)],
                choices[draws.random_range(0..3)],
            )
        } else {
            (0, 0)
        };
        Flow {
            start: at,
            source: self.site.host(draws),
            destination,
            source_port: draws.random_range(32_768..61_000),
            destination_port: port,
            protocol,
            application,
            ttl: (start_ttl, (64 - hops) as u8),
            windows: (window_in, window_out),
            duration: trip,
            ..Flow::default()
        }
    }

    /// A whole TCP connection that sends and gets about so many bytes of content within about `lasting` ms.
    fn connection(&mut self, mut flow: Flow, sent: f64, got: f64, lasting: f64) -> Flow {
        let spread = |bytes: f64| ((bytes / 1400.0) as u32, 60 + (bytes % 1400.0) as u16);
        let ((full_out, rest_out), (full_in, rest_in)) = (spread(sent), spread(got));
        flow.sent = vec![
            (60, 1),
            (52, 2 + full_in / 2),
            (1452, full_out),
            (rest_out, 1),
        ];
        flow.got = vec![
            (60, 1),
            (52, 1 + full_out / 2),
            (1452, full_in),
            (rest_in, 1),
        ];
        flow.client_flags = SYN | ACK | 8 | 1;
        flow.server_flags = SYN | ACK | 8 | 1;
        let trips = 3.0 + (1.0 + f64::from(full_in + full_out)).log2();
        flow.duration = (flow.duration * trips).max(around(&mut self.draws, lasting, 0.6));
        if self.draws.random::<f64>() < 0.05 {
            flow.again_got = 1 + full_in / 50;
            flow.again_sent = full_out / 50;
        }
        flow
    }

    /// One packet each way, no smaller than its headers and no larger than the wire takes.
    fn exchange(&mut self, mut flow: Flow, sent: f64, got: f64) -> Flow {
        flow.sent = vec![(sent.clamp(40.0, 1500.0) as u16, 1)];
        flow.got = vec![(got.clamp(40.0, 1500.0) as u16, 1)];
        flow
    }

    fn growth(&self, part: f64) -> f64 {
        self.site.size * (1.5 * self.drift * part).exp()
    }

    /// The flows of one everyday session that starts at `at`.
    fn session(&mut self, at: f64, part: f64, to: &mut Vec<Flow>) {
        let size = self.growth(part);
        match chosen(&mut self.draws, &self.site.services) {
            0 => {
                let questions = self.draws.random_range(1..3);
                for i in 0..questions {
                    let flow = self.flow(at + 15.0 * f64::from(i), UDP, 53, 5.0);
                    let (sent, got) = (
                        around(&mut self.draws, 65.0, 0.15),
                        around(&mut self.draws, 140.0, 0.4),
                    );
                    to.push(self.exchange(flow, sent, got));
                }
                let quic = 0.2 + 0.6 * self.drift * part;
                for _ in 0..self.draws.random_range(3..11) {
                    let when = at + 60.0 + 2000.0 * self.draws.random::<f64>();
                    let sent = around(&mut self.draws, 1200.0, 0.6);
                    let got = around(&mut self.draws, 15_000.0 * size, 1.2).min(5e7);
                    if self.draws.random::<f64>() < quic {
                        let mut flow = self.flow(when, UDP, 443, 188.0);
                        let full = (got / 1250.0) as u32 + 1;
                        flow.sent = vec![(1280, 1), (70, 2 + full / 2)];
                        flow.got = vec![(1278, full), (90, 2)];
                        flow.duration *= 4.0;
                        to.push(flow);
                    } else {
                        let flow = self.flow(when, TCP, 443, TLS);
                        to.push(self.connection(flow, sent, got, 400.0));
                    }
                }
            }
            1 => {
                let flow = self.flow(at, TCP, 993, 51.0);
                let got = around(&mut self.draws, 6000.0 * size, 1.0).min(5e7);
                to.push(self.connection(flow, 900.0, got, 3000.0));
            }
            2 => {
                let flow = self.flow(at, UDP, 123, 9.0);
                to.push(self.exchange(flow, 76.0, 76.0));
            }
            3 => {
                let flow = self.flow(at, TCP, 445, 41.0);
                let (sent, got) = (
                    around(&mut self.draws, 20_000.0 * size, 1.2).min(5e7),
                    around(&mut self.draws, 20_000.0 * size, 1.2).min(5e7),
                );
                to.push(self.connection(flow, sent, got, 800.0));
            }
            _ => {
                let mut flow = self.flow(at, 1, 0, 81.0);
                flow.source_port = 0;
                // Type 8, code 0: a request for an echo.
                flow.icmp = 8 << 8;
                let count = self.draws.random_range(1..5);
                flow.sent = vec![(84, count)];
                flow.got = vec![(84, count)];
                flow.duration += 1000.0 * f64::from(count - 1);
                to.push(flow);
            }
        }
    }

    /// A flow of a kind that attacks are made of; who sends it, an everyday program or an attack, makes no difference.
    fn of_kind(&mut self, kind: Kind, at: f64, part: f64) -> Flow {
        const TRIED: [u16; 8] = [80, 443, 8080, 22, 445, 3389, 5432, 25];
        let port = TRIED[self.draws.random_range(0..8)];
        match kind {
            Kind::Refused => {
                let mut flow = self.flow(at, TCP, port, 0.0);
                flow.sent = vec![(60, 1)];
                flow.got = vec![(40, 1)];
                flow.client_flags = SYN;
                flow.server_flags = RST | ACK;
                flow.windows.1 = 0;
                flow
            }
            Kind::Unanswered => {
                let web = if port.is_multiple_of(2) { 80 } else { 443 };
                let mut flow = self.flow(at, TCP, web, 0.0);
                let tries = self.draws.random_range(1..4);
                flow.sent = vec![(60, tries)];
                flow.client_flags = SYN;
                flow.windows.1 = 0;
                flow.again_sent = tries - 1;
                flow.duration = 1000.0 * (f64::from(1u32 << (tries - 1)) - 1.0);
                flow
            }
            Kind::ShortLogin => {
                let flow = self.flow(at, TCP, 22, 92.0);
                let (sent, got) = (
                    around(&mut self.draws, 2300.0, 0.2),
                    around(&mut self.draws, 2900.0, 0.2),
                );
                self.connection(flow, sent, got, 1500.0)
            }
            Kind::SlowUpload => {
                let flow = self.flow(at, TCP, 443, TLS);
                let middle = 60_000.0 * self.growth(part);
                let sent = around(&mut self.draws, middle, 0.5).min(5e7);
                self.connection(flow, sent, 2500.0, 20_000.0)
            }
        }
    }

    /// Makes a flow of an attack show what it is.
    fn mark(&mut self, kind: Kind, flow: &mut Flow) {
        let draws = &mut self.draws;
        match kind {
            Kind::Refused => {
                flow.destination_port = draws.random_range(1..32_768);
                flow.windows.0 = 1024;
                flow.sent = vec![(44, 1)];
            }
            Kind::Unanswered => {
                flow.windows.0 = 512;
                flow.ttl.0 = 255;
                flow.sent = vec![(40, 1)];
            }
            Kind::ShortLogin => {
                // The guess was wrong, and the tool hangs up at once.
                flow.client_flags |= RST;
                flow.got = vec![(60, 1), (52, 4), (700, 2)];
                flow.sent = vec![(60, 1), (52, 4), (600, 2)];
                flow.duration *= 0.3;
            }
            Kind::SlowUpload => {
                flow.destination_port = [4444, 8443, 9001][draws.random_range(0..3)];
                flow.application = 0.0;
                flow.duration *= 5.0;
            }
        }
    }
}

/// Draws the table.
fn network_traffic(seed: u64, settings: &Settings) -> Result<RecordBatch> {
    let how: NetworkTraffic = options::build("network-traffic", settings)?;
    if how.n > 20_000_000 {
        return Err(Error::option("n", "at most 20000000 flows are simulated"));
    }
    table(&flows(seed, &how))
}

/// All flows in the order of their starts.
fn flows(seed: u64, how: &NetworkTraffic) -> Vec<Flow> {
    let site = Site::new(how.site);
    let attacks = (how.n as f64 * how.attacks).round() as usize;
    let everyday = how.n - attacks;
    let per_ms = how.rate / 1000.0;
    // Sessions have several flows, look-alikes one: how often a session is a look-alike for their share of the flows.
    let whole: f64 = site.services.iter().sum();
    let of_service = site.services.iter().zip(FLOWS_OF_SERVICE);
    let of_session = of_service.map(|(w, n)| w * n).sum::<f64>() / whole;
    let share =
        how.look_alikes * of_session / (how.look_alikes * of_session + 1.0 - how.look_alikes);
    let of_start = share + (1.0 - share) * of_session;
    let mut draw = Everyday {
        site: &site,
        draws: sampling::rng(seed, "network-traffic"),
        drift: how.drift,
    };
    let mut all: Vec<Flow> = Vec::with_capacity(how.n + 16);
    let length = how.n.max(1) as f64 / per_ms;
    let mut at = 0.0;
    while all.len() < everyday {
        at += exponential(&mut draw.draws) * of_start / per_ms;
        let part = all.len() as f64 / everyday as f64;
        if draw.draws.random::<f64>() < share {
            let kind = KINDS[draw.draws.random_range(0..4)];
            let flow = draw.of_kind(kind, at, part);
            all.push(flow);
        } else {
            draw.session(at, part, &mut all);
        }
    }
    all.sort_by(|a, b| a.start.total_cmp(&b.start));
    all.truncate(everyday);
    // Episodes start anywhere while everyday traffic lasts, and elsewhere if there is none.
    let lasts = all.last().map_or(length, |f| f.start);
    let mut left = attacks;
    while left > 0 {
        let part = draw.draws.random::<f64>();
        let early = [0.4, 0.4, 0.15, 0.05];
        let weights: Vec<f64> = (0..4)
            .map(|k| {
                let late = early[3 - k];
                let even = 0.25;
                even + how.drift * (early[k] * (1.0 - part) + late * part - even)
            })
            .collect();
        let kind = KINDS[chosen(&mut draw.draws, &weights)];
        let length = draw.draws.random_range(20..61).min(left);
        let mut at = part * lasts;
        for _ in 0..length {
            at += exponential(&mut draw.draws) / (per_ms * how.intensity);
            let mut flow = draw.of_kind(kind, at, part);
            if draw.draws.random::<f64>() < how.marked {
                draw.mark(kind, &mut flow);
            }
            flow.attack = Some(kind);
            all.push(flow);
        }
        left -= length;
    }
    all.sort_by(|a, b| a.start.total_cmp(&b.start));
    all
}

#[cfg(test)]
mod tests {
    use super::super::schema::Schema;
    use super::columns::{extreme, got, of_sizes, sent};
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use proptest::prelude::*;
    use serde_json::json;

    fn settings(value: serde_json::Value) -> Settings {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn columns_are_those_of_the_schema_and_classes_agree() {
        let batch = network_traffic(1, &settings(json!({"n": 3000}))).unwrap();
        let schema = batch.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(
            Schema::guess("simulated", &columns).unwrap().name,
            "unified-flow"
        );
        let unified = Schema::named("unified-flow").unwrap();
        let told = unified.five_tuple.columns();
        assert!(
            told.iter().all(|c| c.is_some_and(|c| columns.contains(&c))),
            "{told:?}"
        );
        let class = batch.column_by_name("Attack").unwrap();
        let class = class.as_any().downcast_ref::<StringArray>().unwrap();
        let label = batch.column_by_name("Label").unwrap();
        let label = label.as_any().downcast_ref::<Int64Array>().unwrap();
        let attacks = (0..3000).filter(|i| label.value(*i) == 1).count();
        assert_eq!(attacks, 450);
        for i in 0..3000 {
            assert_eq!(unified.is_attack(class.value(i)), label.value(i) == 1);
        }
        let named: std::collections::BTreeSet<&str> = class.iter().flatten().collect();
        assert_eq!(named.len(), 5, "{named:?}");
    }

    #[test]
    fn one_flow_says_little_and_its_neighbours_much() {
        let how = NetworkTraffic {
            marked: 0.0,
            ..NetworkTraffic::default()
        };
        let flows = flows(3, &how);
        // The kind of an unmarked flow is all that it can tell.
        let kind = |f: &Flow| match (f.client_flags, f.server_flags, f.destination_port) {
            (SYN, 0, _) => 1,
            (SYN, _, _) => 2,
            (_, _, 22) => 3,
            (_, _, 443) if f.protocol == TCP && f.sent[2].1 > 12 => 4,
            _ => 0,
        };
        let attack: Vec<bool> = flows.iter().map(|f| f.attack.is_some()).collect();
        let kinds: Vec<usize> = flows.iter().map(kind).collect();
        let balanced = |said: &dyn Fn(usize) -> bool| {
            let share = |of: bool| {
                let rows: Vec<usize> = (7..flows.len()).filter(|i| attack[*i] == of).collect();
                rows.iter().filter(|i| said(**i) == of).count() as f64 / rows.len() as f64
            };
            (share(true) + share(false)) / 2.0
        };
        let alone = balanced(&|i| kinds[i] > 0);
        let with = balanced(&|i| {
            kinds[i] > 0 && kinds[i - 7..i].iter().filter(|k| **k == kinds[i]).count() >= 3
        });
        assert!((0.74..0.84).contains(&alone), "{alone}");
        assert!(with > 0.92, "{with}");
    }

    #[test]
    fn marks_sites_and_drift_change_what_they_should() {
        let draw = |value| {
            let how: NetworkTraffic = serde_json::from_value(value).unwrap();
            flows(5, &how)
        };
        let marked = draw(json!({"n": 4000, "marked": 1.0}));
        let shows = |f: &Flow| {
            matches!(f.windows.0, 512 | 1024)
                || f.client_flags & RST != 0
                || matches!(f.destination_port, 4444 | 8443 | 9001)
        };
        for flow in &marked {
            assert_eq!(shows(flow), flow.attack.is_some());
        }
        let kinds_of = |flows: &[Flow]| {
            let of = |k: Kind| flows.iter().filter(|f| f.attack == Some(k)).count();
            KINDS.map(of)
        };
        let drifting = draw(json!({"n": 40_000, "drift": 1.0}));
        let (early, late) = (kinds_of(&drifting[..10_000]), kinds_of(&drifting[30_000..]));
        assert!(
            early[0] > 2 * early[3] && late[3] > 2 * late[0],
            "{early:?} {late:?}"
        );
        let home = draw(json!({"n": 4000}));
        let away = draw(json!({"n": 4000, "site": 2}));
        assert_ne!(home[10].source >> 8, away[10].source >> 8);
        assert!(
            draw(json!({"n": 50, "attacks": 0.0}))
                .iter()
                .all(|f| f.attack.is_none())
        );
        assert!(
            draw(json!({"n": 50, "attacks": 1.0}))
                .iter()
                .all(|f| f.attack.is_some())
        );
        assert_eq!(draw(json!({"n": 1})).len(), 1);
    }

    #[test]
    fn impossible_traffic_is_refused() {
        for bad in [
            json!({"n": 0}),
            json!({"attacks": 1.5}),
            json!({"rate": 0.0}),
            json!({"hosts": 3}),
        ] {
            assert!(network_traffic(0, &settings(bad.clone())).is_err(), "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn flows_are_in_order_and_whole(
            n in 1usize..800, attacks in 0.0f64..1.0, look_alikes in 0.0f64..1.0, drift in 0.0f64..1.0,
            site in 0u32..50, seed in 0u64..99,
        ) {
            let how = NetworkTraffic { n, attacks, look_alikes, drift, site, ..NetworkTraffic::default() };
            let flows = flows(seed, &how);
            prop_assert_eq!(flows.len(), n);
            prop_assert_eq!(flows.iter().filter(|f| f.attack.is_some()).count(), (n as f64 * attacks).round() as usize);
            for pair in flows.windows(2) {
                prop_assert!(pair[0].start <= pair[1].start);
            }
            for flow in &flows {
                let packets = sent(flow).packets + got(flow).packets;
                prop_assert_eq!(packets, of_sizes(flow, 0, 1514));
                prop_assert!(packets >= 1.0 && flow.duration >= 0.0 && flow.duration < 1e9);
                prop_assert!(extreme(flow, false) >= 40.0);
            }
            prop_assert_eq!(table(&flows).unwrap(), network_traffic(seed, &settings(serde_json::to_value(&how).unwrap())).unwrap());
        }
    }
}
