//! Capture files, piece by piece: `.pcap` in both byte orders, with micro- or nanoseconds, and `.pcapng`.
//!
//! The records are taken apart by `pcap-parser`; the buffer is kept here, so that a file that grows or comes through a
//! pipe is handed out as far as it is there, and so that a broken block is skipped where its length allows.
//! A capture that stops in the middle of a record ends there, with a remark.

use papertrial_core::{Error, Result};
use pcap_parser::nom::IResult;
use pcap_parser::{
    Block, LegacyPcapBlock, OptionCode, PcapError, parse_block_be, parse_block_le,
    parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header,
};
use std::io::Read;

/// Bytes read at once.
const PIECE: usize = 1 << 18;

/// No record of a real capture is longer.
const LONGEST: usize = 1 << 24;

/// Interfaces of one section that are told apart.
const INTERFACES: usize = 1 << 16;

/// What takes a record of a `.pcap` apart.
type Frame = for<'a> fn(&'a [u8]) -> IResult<&'a [u8], LegacyPcapBlock<'a>, PcapError<&'a [u8]>>;

/// One packet as it was captured.
#[derive(Debug, Clone, Copy)]
pub struct Captured<'a> {
    /// Nanoseconds since 1970; a block without a time has that of the packet before it.
    pub time: i64,
    /// Type of the link, by the numbers of the capture formats; -1 for an interface that was not described.
    pub link: i32,
    /// What was kept of it.
    pub data: &'a [u8],
    /// Bytes that were sent.
    pub original: u32,
}

/// What is strange about a capture.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Oddities {
    /// Blocks that contradict themselves.
    pub skipped: u64,
    /// Where and why reading stopped before the end.
    pub stopped: Option<String>,
}

/// A capture being read.
pub struct Reader<R> {
    input: R,
    buffer: Vec<u8>,
    /// What of the buffer was read and not used yet.
    start: usize,
    end: usize,
    /// Bytes before the buffer.
    passed: u64,
    form: Form,
    last_time: i64,
    oddities: Oddities,
}

enum Form {
    Unknown,
    Plain {
        link: i32,
        big: bool,
        frame: Frame,
        header: usize,
        /// Nanoseconds of a unit of the second number of a time.
        unit: i64,
    },
    Blocks {
        big: bool,
        interfaces: Vec<Interface>,
    },
    Over,
}

#[derive(Clone, Copy)]
struct Interface {
    link: i32,
    kept: u32,
    /// Units of time in a second, and seconds to add.
    units: u64,
    offset: i64,
}

/// What lies at the start of the unused bytes.
enum Found {
    /// That many bytes are dealt with.
    Used(usize),
    /// A record has that many bytes, which are not there yet.
    Need(usize),
    /// The rest can't be read.
    Broken(String),
}

impl<R: Read> Reader<R> {
    /// For the bytes of `input`, from the first.
    pub fn new(input: R) -> Reader<R> {
        Reader {
            input,
            buffer: vec![0; PIECE],
            start: 0,
            end: 0,
            passed: 0,
            form: Form::Unknown,
            last_time: 0,
            oddities: Oddities::default(),
        }
    }

    /// What is strange about it so far.
    pub fn oddities(&self) -> &Oddities {
        &self.oddities
    }

    /// Reads once from the input and hands out the packets that are whole. `false` at the end.
    ///
    /// # Errors
    /// The input fails, or is no capture at all.
    pub fn advance(&mut self, mut each: impl FnMut(Captured)) -> Result<bool> {
        if matches!(self.form, Form::Over) {
            return Ok(false);
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.passed += self.start as u64;
            self.end -= self.start;
            self.start = 0;
        }
        let n = loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(n) => break n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::Failed(format!("the capture cannot be read: {e}"))),
            }
        };
        self.end += n;
        let need = loop {
            match self.next(&mut each)? {
                Found::Used(bytes) => self.start += bytes,
                Found::Need(bytes) => break bytes,
                Found::Broken(why) => {
                    self.stop(&why);
                    return Ok(false);
                }
            }
        };
        if n == 0 {
            if matches!(self.form, Form::Unknown) {
                return Err(not_a_capture());
            }
            if self.end > self.start {
                let rest = self.end - self.start;
                self.stop(&format!(
                    "the last record is cut: {rest} of its {need} bytes are there"
                ));
            }
            self.form = Form::Over;
            return Ok(false);
        }
        let wanted = need.max(PIECE);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        Ok(true)
    }

    fn stop(&mut self, why: &str) {
        let at = self.passed + self.start as u64;
        self.oddities.stopped = Some(format!("the capture could be read up to byte {at}: {why}"));
        self.form = Form::Over;
    }

    /// Deals with the record at the start.
    fn next(&mut self, each: &mut impl FnMut(Captured)) -> Result<Found> {
        let data = &self.buffer[self.start..self.end];
        match &mut self.form {
            Form::Unknown => {
                if data.len() < 24 {
                    return Ok(Found::Need(24));
                }
                let (form, used) = recognise(data)?;
                self.form = form;
                Ok(Found::Used(used))
            }
            Form::Plain {
                link,
                big,
                frame,
                header,
                unit,
            } => {
                let Some(length) = word(data, 8, *big) else {
                    return Ok(Found::Need(*header));
                };
                let length = *header + length as usize;
                if length > LONGEST {
                    return Ok(Found::Broken(format!("a record claims {length} bytes")));
                }
                if data.len() < length {
                    return Ok(Found::Need(length));
                }
                match frame(&data[..length]) {
                    Ok((_, packet)) => {
                        let seconds = i64::from(packet.ts_sec) * 1_000_000_000;
                        let time = seconds + i64::from(packet.ts_usec) * *unit;
                        each(Captured {
                            time,
                            link: *link,
                            data: packet.data,
                            original: packet.origlen,
                        });
                    }
                    Err(_) => self.oddities.skipped += 1,
                }
                Ok(Found::Used(length))
            }
            Form::Blocks { big, interfaces } => {
                let Some(kind) = word(data, 0, false) else {
                    return Ok(Found::Need(12));
                };
                // A new section says its byte order itself.
                if kind == SECTION {
                    match word(data, 8, false) {
                        None => return Ok(Found::Need(12)),
                        Some(MAGIC) => *big = false,
                        Some(_) if word(data, 8, true) == Some(MAGIC) => *big = true,
                        Some(_) => {
                            return Ok(Found::Broken("a section has no byte order".into()));
                        }
                    }
                }
                let length = match word(data, 4, *big) {
                    None => return Ok(Found::Need(12)),
                    Some(length) => length as usize,
                };
                if length < 12 || length % 4 != 0 || length > LONGEST {
                    return Ok(Found::Broken(format!("a block claims {length} bytes")));
                }
                if data.len() < length {
                    return Ok(Found::Need(length));
                }
                let parse = if *big { parse_block_be } else { parse_block_le };
                let block = match parse(&data[..length]) {
                    Ok((_, block)) => block,
                    Err(_) => {
                        self.oddities.skipped += 1;
                        return Ok(Found::Used(length));
                    }
                };
                match block {
                    Block::SectionHeader(_) => interfaces.clear(),
                    Block::InterfaceDescription(described) => {
                        if interfaces.len() == INTERFACES {
                            return Ok(Found::Broken("too many interfaces".into()));
                        }
                        interfaces.push(interface(&described, *big));
                    }
                    Block::EnhancedPacket(packet) => {
                        let on = interfaces.get(packet.if_id as usize);
                        let stamp = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                        if let Some(on) = on {
                            self.last_time = on.nanoseconds(stamp);
                        }
                        let kept = (packet.caplen as usize).min(packet.data.len());
                        each(Captured {
                            time: self.last_time,
                            link: on.map_or(-1, |on| on.link),
                            data: &packet.data[..kept],
                            original: packet.origlen,
                        });
                    }
                    Block::SimplePacket(packet) => {
                        let on = interfaces.first();
                        let limit = match on.map_or(0, |on| on.kept) {
                            0 => u32::MAX,
                            kept => kept,
                        };
                        let kept = packet.origlen.min(limit) as usize;
                        each(Captured {
                            time: self.last_time,
                            link: on.map_or(-1, |on| on.link),
                            data: &packet.data[..kept.min(packet.data.len())],
                            original: packet.origlen,
                        });
                    }
                    _ => {}
                }
                Ok(Found::Used(length))
            }
            Form::Over => Ok(Found::Need(0)),
        }
    }
}

/// The number of a section header, and the number in it that shows the byte order.
const SECTION: u32 = 0x0a0d_0d0a;
const MAGIC: u32 = 0x1a2b_3c4d;

/// Whether bytes begin like a capture.
pub fn is_capture(start: &[u8]) -> bool {
    matches!(
        word(start, 0, false),
        Some(SECTION | 0xa1b2_c3d4 | 0xa1b2_3c4d | 0xa1b2_cd34 | 0xd4c3_b2a1 | 0x4d3c_b2a1)
    )
}

fn not_a_capture() -> Error {
    Error::BadInput("is no capture: it begins neither like .pcap nor like .pcapng".into())
}

fn recognise(data: &[u8]) -> Result<(Form, usize)> {
    if word(data, 0, false) == Some(SECTION) {
        let blocks = Form::Blocks {
            big: false,
            interfaces: Vec::new(),
        };
        return Ok((blocks, 0));
    }
    let (_, header) = parse_pcap_header(data).map_err(|_| not_a_capture())?;
    let big = header.is_bigendian();
    let (frame, length): (Frame, usize) = if header.is_modified_format() {
        (parse_pcap_frame_modified, 24)
    } else if big {
        (parse_pcap_frame_be, 16)
    } else {
        (parse_pcap_frame, 16)
    };
    let plain = Form::Plain {
        // The upper bits say whether frames end with a checksum.
        link: header.network.0 & 0xffff,
        big,
        frame,
        header: length,
        unit: if header.is_nanosecond_precision() {
            1
        } else {
            1000
        },
    };
    Ok((plain, header.size()))
}

fn interface(described: &pcap_parser::InterfaceDescriptionBlock, big: bool) -> Interface {
    let mut interface = Interface {
        link: described.linktype.0,
        kept: described.snaplen,
        units: units(described.if_tsresol),
        offset: 0,
    };
    for option in &described.options {
        if option.code == OptionCode::IfTsoffset
            && let Some(bytes) = option.value.first_chunk::<8>()
        {
            interface.offset = if big {
                i64::from_be_bytes(*bytes)
            } else {
                i64::from_le_bytes(*bytes)
            };
        }
    }
    interface
}

/// Units of time in a second: a power of ten, or of two if the highest bit is set.
fn units(resolution: u8) -> u64 {
    let power = u32::from(resolution & 0x7f);
    let base: u64 = if resolution & 0x80 > 0 { 2 } else { 10 };
    base.checked_pow(power).unwrap_or(1_000_000)
}

impl Interface {
    fn nanoseconds(&self, stamp: u64) -> i64 {
        let units = i128::from(self.units);
        let since = i128::from(stamp) * 1_000_000_000 / units;
        let time = since + i128::from(self.offset) * 1_000_000_000;
        time.clamp(0, i128::from(i64::MAX)) as i64
    }
}

/// The four bytes at `at`.
fn word(data: &[u8], at: usize, big: bool) -> Option<u32> {
    let bytes = *data.get(at..)?.first_chunk::<4>()?;
    Some(if big {
        u32::from_be_bytes(bytes)
    } else {
        u32::from_le_bytes(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(big: bool, nanoseconds: bool, packets: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let number = |v: u32| {
            if big {
                v.to_be_bytes()
            } else {
                v.to_le_bytes()
            }
        };
        let magic = if nanoseconds {
            0xa1b2_3c4d
        } else {
            0xa1b2_c3d4
        };
        let mut file = number(magic).to_vec();
        file.extend(if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] });
        for value in [0, 0, 65535, 1] {
            file.extend(number(value));
        }
        for (seconds, part, data) in packets {
            for value in [*seconds, *part, data.len() as u32, data.len() as u32 + 5] {
                file.extend(number(value));
            }
            file.extend(*data);
        }
        file
    }

    /// Sections, an interface of the given resolution, packets on it.
    fn blocks(big: bool, resolution: u8, offset: i64, packets: &[(u64, &[u8])]) -> Vec<u8> {
        let number = |v: u32| {
            if big {
                v.to_be_bytes()
            } else {
                v.to_le_bytes()
            }
        };
        let short = |v: u16| {
            if big {
                v.to_be_bytes()
            } else {
                v.to_le_bytes()
            }
        };
        let mut file = Vec::new();
        let mut block = |kind: u32, body: &[u8]| {
            let length = number(body.len() as u32 + 12);
            file.extend(number(kind));
            file.extend(length);
            file.extend(body);
            file.extend(length);
        };
        let mut body = number(MAGIC).to_vec();
        body.extend([short(1), short(0)].concat());
        body.extend([0xff; 8]);
        block(SECTION, &body);
        let mut body = [short(1), short(0)].concat();
        body.extend(number(0));
        body.extend([short(9), short(1)].concat());
        body.extend([resolution, 0, 0, 0]);
        body.extend([short(14), short(8)].concat());
        body.extend(if big {
            offset.to_be_bytes()
        } else {
            offset.to_le_bytes()
        });
        body.extend([0; 4]);
        block(1, &body);
        for (time, data) in packets {
            let mut body = number(0).to_vec();
            body.extend(number((*time >> 32) as u32));
            body.extend(number(*time as u32));
            body.extend(number(data.len() as u32));
            body.extend(number(data.len() as u32));
            body.extend(*data);
            body.resize(body.len().next_multiple_of(4), 0);
            block(6, &body);
        }
        let mut body = number(3).to_vec();
        body.extend([7, 8, 9, 0]);
        block(3, &body);
        file
    }

    /// Hands out at most seven bytes at a time, as a slow pipe does.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let n = to.len().min(7).min(self.0.len());
            to[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    type Seen = Vec<(i64, i32, Vec<u8>, u32)>;

    fn all(file: &[u8]) -> Result<(Seen, Oddities)> {
        let mut reader = Reader::new(Drops(file));
        let mut seen = Vec::new();
        while reader.advance(|p| seen.push((p.time, p.link, p.data.to_vec(), p.original)))? {}
        Ok((seen, reader.oddities().clone()))
    }

    #[test]
    fn plain_captures_of_both_orders_and_resolutions() {
        for big in [false, true] {
            for (fine, time) in [(false, 3_000_004_000), (true, 3_000_000_004)] {
                let file = plain(big, fine, &[(3, 4, b"abc"), (5, 0, b"")]);
                let (seen, oddities) = all(&file).unwrap();
                assert_eq!(seen[0], (time, 1, b"abc".to_vec(), 8));
                assert_eq!(seen[1], (5_000_000_000, 1, vec![], 5));
                assert_eq!(oddities, Oddities::default());
            }
        }
    }

    #[test]
    fn blocks_of_both_orders_and_any_resolution() {
        for big in [false, true] {
            for (resolution, offset, stamp, time) in [
                (6, 0, 3_000_004, 3_000_004_000),
                (9, 10, 3_000_000_004, 13_000_000_004),
                // Units of 1/1024 second.
                (0x80 | 10, -1, 3 * 1024 + 512, 2_500_000_000),
            ] {
                let mut file = blocks(big, resolution, offset, &[(stamp, b"abcde")]);
                file.extend(blocks(!big, 6, 0, &[(7, b"z")]));
                let (seen, oddities) = all(&file).unwrap();
                assert_eq!(
                    seen[0],
                    (time, 1, b"abcde".to_vec(), 5),
                    "{big} {resolution}"
                );
                assert_eq!(seen[1], (time, 1, vec![7, 8, 9], 3));
                assert_eq!(seen[2], (7_000, 1, b"z".to_vec(), 1));
                assert_eq!((seen.len(), oddities.skipped), (4, 0));
            }
        }
    }

    #[test]
    fn a_cut_capture_gives_what_is_whole_and_a_remark() {
        let file = plain(false, false, &[(3, 4, b"abc"), (5, 0, b"defgh")]);
        for length in 44..file.len() {
            let (seen, oddities) = all(&file[..length]).unwrap();
            assert_eq!(seen.len(), 1);
            match oddities.stopped {
                None => assert_eq!(length, 24 + 16 + 3),
                Some(text) => assert!(
                    text.contains("up to byte 43: the last record is cut"),
                    "{text}"
                ),
            }
        }
        let file = blocks(true, 6, 0, &[(3, b"abc")]);
        let (_, oddities) = all(&file[..file.len() - 1]).unwrap();
        assert!(oddities.stopped.unwrap().contains("19 of its 20 bytes"));
        let (seen, _) = all(&plain(false, false, &[])).unwrap();
        assert!(seen.is_empty());
    }

    #[test]
    fn broken_blocks_are_skipped_and_nonsense_ends_the_reading() {
        let mut file = blocks(false, 6, 0, &[(3, b"abcd"), (4, b"efgh")]);
        let section = 28;
        let first = section + 44;
        // The first packet claims more bytes than its block has.
        file[first + 20] = 200;
        let (seen, oddities) = all(&file).unwrap();
        assert_eq!((seen.len(), oddities.skipped), (2, 1));
        assert_eq!(seen[0].2, b"efgh");
        file[first + 7] = 0xff;
        let (seen, oddities) = all(&file).unwrap();
        assert!(seen.is_empty() && oddities.stopped.unwrap().contains("claims"));
        let mut file = plain(false, false, &[(3, 4, b"abc")]);
        file[24 + 11] = 0x7f;
        assert!(all(&file).unwrap().1.stopped.unwrap().contains("claims"));
        for file in [
            &b""[..],
            b"abc",
            b"no capture, but a text that is long enough",
        ] {
            assert!(all(file).is_err());
        }
    }
}
