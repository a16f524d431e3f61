//! From the bytes of one packet to the header fields that a flow record is made of.
//!
//! Known links: Ethernet with up to four VLAN tags, Linux "cooked" (both versions), BSD loopback, and bare IP. The IP
//! headers are checked by `etherparse`; of extensions and the transport layer only fixed fields are read, so that a
//! packet of which the capture kept nothing but the headers counts like a whole one.

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, err};
use std::net::IpAddr;

/// The ICMP of IP version 4.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// The ICMP of IP version 6.
pub const ICMPV6: u8 = 58;

/// Bits of [`Tcp::flags`].
pub mod flag {
    /// The sender has no more to send.
    pub const FIN: u8 = 1;
    /// A connection begins.
    pub const SYN: u8 = 2;
    /// The connection is broken off.
    pub const RST: u8 = 4;
    /// An acknowledgement is given.
    pub const ACK: u8 = 16;
}

/// Header fields of one packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Header {
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Number of the protocol above IP.
    pub protocol: u8,
    /// Port of the sender; 0 where the protocol has none or the packet is a later fragment.
    pub source_port: u16,
    /// Port of the receiver.
    pub destination_port: u16,
    /// Bytes of the IP packet as it was sent, its header included.
    pub length: u32,
    /// Hops that were left.
    pub ttl: u8,
    /// Fields of TCP.
    pub tcp: Option<Tcp>,
    /// Type and code of ICMP.
    pub icmp: Option<[u8; 2]>,
    /// Set in each piece of a packet that was sent in pieces.
    pub fragment: Option<Fragment>,
    /// Fields of a DNS message on port 53.
    pub dns: Option<Dns>,
    /// Return code in an answer from port 21, else 0.
    pub ftp_code: u16,
}

/// Header fields of TCP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tcp {
    /// The flags FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, from the lowest bit.
    pub flags: u8,
    /// Number of the first byte.
    pub sequence: u32,
    /// Bytes of content as they were sent.
    pub payload: u32,
    /// Window, not scaled.
    pub window: u16,
}

/// Which piece of which packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fragment {
    /// Number that all pieces share.
    pub identification: u32,
    /// Whether it is the piece with the transport header.
    pub first: bool,
}

/// Header fields of DNS.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Dns {
    /// Number of the question.
    pub id: u16,
    /// Type of the first question.
    pub kind: u16,
    /// Seconds that the first answer may be kept; 0 without an answer.
    pub ttl: u32,
}

/// Why a packet is in no flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The link is none of those known here.
    Link,
    /// It is no IP packet: ARP, a bridge's message.
    NotIp,
    /// The capture kept too little of it.
    Truncated,
    /// Its header contradicts itself.
    Malformed,
}

/// Reads a packet of which `data` was kept and `original` bytes were sent over a link of type `link` (the numbers of
/// the capture formats).
///
/// # Errors
/// Why it can't belong to a flow.
pub fn parse(link: i32, data: &[u8], original: u32) -> Result<Header, Unread> {
    let at = network(link, data)?;
    let ip = data.get(at..).unwrap_or_default();
    let sent = (original as usize).max(data.len()) - at;
    let version = ip.first().ok_or(Unread::Truncated)? >> 4;
    let mut header = match version {
        4 => version_four(ip, sent)?,
        6 => version_six(ip, sent)?,
        _ => return Err(Unread::Malformed),
    };
    let length = header.length as usize;
    let too_short = if ip.len() < length {
        Unread::Truncated
    } else {
        Unread::Malformed
    };
    let mut start = match version {
        4 => usize::from(ip[0] & 15) * 4,
        _ => 40,
    };
    let end = ip.len().min(length);
    start += extensions(&mut header, version, &ip[start.min(end)..end]).ok_or(too_short)?;
    if header.fragment.is_none_or(|f| f.first) {
        let kept = &ip[start.min(end)..end];
        transport(&mut header, kept, length.saturating_sub(start)).ok_or(too_short)?;
    }
    Ok(header)
}

/// The IP header of version 4, of a packet of `sent` bytes.
fn version_four(ip: &[u8], sent: usize) -> Result<Header, Unread> {
    let header = Ipv4HeaderSlice::from_slice(ip).map_err(|e| match e {
        err::ipv4::HeaderSliceError::Len(_) => Unread::Truncated,
        err::ipv4::HeaderSliceError::Content(_) => Unread::Malformed,
    })?;
    let length = match usize::from(header.total_len()) {
        // A network card that cuts packets itself leaves the length open.
        0 => sent,
        length if length < header.slice().len() => return Err(Unread::Malformed),
        length => length,
    };
    let offset = header.fragments_offset().value();
    let pieces = offset > 0 || header.more_fragments();
    Ok(Header {
        fragment: pieces.then(|| Fragment {
            identification: u32::from(header.identification()),
            first: offset == 0,
        }),
        ..Header::bare(
            [
                header.source_addr().into(),
                header.destination_addr().into(),
            ],
            header.protocol().0,
            length as u32,
            header.ttl(),
        )
    })
}

/// The IP header of version 6, of a packet of `sent` bytes.
fn version_six(ip: &[u8], sent: usize) -> Result<Header, Unread> {
    let header = Ipv6HeaderSlice::from_slice(ip).map_err(|e| match e {
        err::ipv6::HeaderSliceError::Len(_) => Unread::Truncated,
        err::ipv6::HeaderSliceError::Content(_) => Unread::Malformed,
    })?;
    let length = match usize::from(header.payload_length()) {
        0 => sent.max(40),
        length => 40 + length,
    };
    Ok(Header::bare(
        [
            header.source_addr().into(),
            header.destination_addr().into(),
        ],
        header.next_header().0,
        length as u32,
        header.hop_limit(),
    ))
}

/// Goes past the extension headers at the start of `kept` to the transport protocol and returns their length; `None` if
/// they are not whole. They are walked here and not by `etherparse`, whose iterator (0.21) reads beyond the packet where
/// the headers are cut off.
fn extensions(header: &mut Header, version: u8, kept: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = kept.get(at..)?;
        let length = match header.protocol {
            // Authentication: counted in words, but for two.
            51 => (usize::from(*rest.get(1)?) + 2) * 4,
            // Hop by hop, routing, destination, mobility, host identity, shim: in eight bytes, but for the first eight.
            0 | 43 | 60 | 135 | 139 | 140 if version == 6 => (usize::from(*rest.get(1)?) + 1) * 8,
            44 if version == 6 => {
                let piece = rest.first_chunk::<8>()?;
                let offset = u16::from_be_bytes([piece[2], piece[3]]);
                // An offset of 0 without more pieces is no fragmentation.
                if offset & !6 > 0 {
                    header.fragment = Some(Fragment {
                        identification: u32::from_be_bytes([
                            piece[4], piece[5], piece[6], piece[7],
                        ]),
                        first: offset & !7 == 0,
                    });
                }
                8
            }
            _ => return Some(at),
        };
        header.protocol = *rest.get(..length)?.first()?;
        at += length;
        if header.fragment.is_some_and(|f| !f.first) {
            return Some(at);
        }
    }
}

impl Header {
    /// What every IP packet has.
    fn bare(ends: [IpAddr; 2], protocol: u8, length: u32, ttl: u8) -> Header {
        Header {
            source: ends[0],
            destination: ends[1],
            protocol,
            source_port: 0,
            destination_port: 0,
            length,
            ttl,
            tcp: None,
            icmp: None,
            fragment: None,
            dns: None,
            ftp_code: 0,
        }
    }
}

/// Where the IP header begins.
fn network(link: i32, data: &[u8]) -> Result<usize, Unread> {
    let word = |at: usize| match data.get(at..at + 2) {
        Some(b) => Ok(u16::from_be_bytes([b[0], b[1]])),
        None => Err(Unread::Truncated),
    };
    let (mut kind, mut at) = match link {
        // Ethernet.
        1 => (word(12)?, 14),
        // Linux cooked, both versions.
        113 => (word(14)?, 16),
        276 => (word(0)?, 20),
        // Loopback: the address family in the byte order of the machine, or of the network.
        0 | 108 => {
            let family = data.get(..4).ok_or(Unread::Truncated)?;
            // The families of IP version 4, then of version 6 on the various systems.
            return match family.iter().copied().max() {
                Some(2 | 10 | 24 | 28 | 30) if family.iter().filter(|b| **b > 0).count() == 1 => {
                    Ok(4)
                }
                _ => Err(Unread::NotIp),
            };
        }
        // Bare IP under its various numbers.
        12 | 14 | 101 | 228 | 229 => return Ok(0),
        _ => return Err(Unread::Link),
    };
    for _ in 0..4 {
        match kind {
            0x8100 | 0x88a8 | 0x9100 => {
                kind = word(at + 2)?;
                at += 4;
            }
            0x0800 | 0x86dd if at < data.len() => return Ok(at),
            0x0800 | 0x86dd => return Err(Unread::Truncated),
            _ => break,
        }
    }
    match kind {
        0x0800 | 0x86dd if at < data.len() => Ok(at),
        _ => Err(Unread::NotIp),
    }
}

/// Reads the transport header from `kept`, the first of `sent` bytes; `None` if it is not whole.
fn transport(header: &mut Header, kept: &[u8], sent: usize) -> Option<()> {
    let word = |at: usize| Some(u16::from_be_bytes([*kept.get(at)?, *kept.get(at + 1)?]));
    let mut content: &[u8] = &[];
    match header.protocol {
        TCP => {
            header.source_port = word(0)?;
            header.destination_port = word(2)?;
            let length = usize::from(*kept.get(12)? >> 4) * 4;
            if length < 20 || length > sent {
                return None;
            }
            header.tcp = Some(Tcp {
                flags: *kept.get(13)?,
                sequence: u32::from_be_bytes([kept[4], kept[5], kept[6], kept[7]]),
                payload: (sent - length) as u32,
                window: word(14)?,
            });
            content = kept.get(length..).unwrap_or_default();
        }
        UDP => {
            header.source_port = word(0)?;
            header.destination_port = word(2)?;
            kept.get(..8)?;
            content = &kept[8..];
        }
        ICMP | ICMPV6 => header.icmp = Some([*kept.first()?, *kept.get(1)?]),
        // DCCP, SCTP, UDP-Lite begin with their ports.
        33 | 132 | 136 => {
            header.source_port = word(0)?;
            header.destination_port = word(2)?;
        }
        _ => {}
    }
    let ports = [header.source_port, header.destination_port];
    if ports.contains(&53) {
        // Over TCP the length comes first.
        let skip = if header.protocol == TCP { 2 } else { 0 };
        header.dns = content.get(skip..).and_then(dns);
    }
    if header.protocol == TCP && header.source_port == 21 {
        header.ftp_code = ftp_code(content).unwrap_or(0);
    }
    Some(())
}

/// Number, type of the first question, and time to live of the first answer.
fn dns(message: &[u8]) -> Option<Dns> {
    let word = |at: usize| {
        Some(u16::from_be_bytes([
            *message.get(at)?,
            *message.get(at + 1)?,
        ]))
    };
    if word(4)? == 0 {
        return None;
    }
    let question = after_name(message, 12)?;
    let mut found = Dns {
        id: word(0)?,
        kind: word(question)?,
        ttl: 0,
    };
    // The answer comes after the only question.
    if word(4)? == 1
        && word(6)? > 0
        && let Some(answer) = after_name(message, question + 4)
        && let (Some(high), Some(low)) = (word(answer + 4), word(answer + 6))
    {
        found.ttl = u32::from(high) << 16 | u32::from(low);
    }
    Some(found)
}

/// The place after the name at `at`: labels up to an empty one, or up to a reference.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    // A name has at most 255 bytes.
    for _ in 0..128 {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
    None
}

/// The three digits with which an answer of an FTP server begins.
fn ftp_code(content: &[u8]) -> Option<u16> {
    let digits = content.get(..3)?;
    if !digits.iter().all(u8::is_ascii_digit) || !matches!(content.get(3), Some(b' ' | b'-')) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0, |code, d| code * 10 + u16::from(d - b'0')),
    )
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    /// An Ethernet frame with a TCP segment.
    pub fn tcp(
        from: [u8; 4],
        ports: [u16; 2],
        to: [u8; 4],
        flags: u8,
        sequence: u32,
        content: &[u8],
    ) -> Vec<u8> {
        let mut header = etherparse::TcpHeader::new(ports[0], ports[1], sequence, 1000);
        header.fin = flags & flag::FIN > 0;
        header.syn = flags & flag::SYN > 0;
        header.rst = flags & flag::RST > 0;
        header.ack = flags & flag::ACK > 0;
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4(from, to, 64)
            .tcp_header(header);
        let mut frame = Vec::new();
        builder.write(&mut frame, content).unwrap();
        frame
    }

    #[test]
    fn ethernet_vlan_and_cooked_give_the_same() {
        let frame = tcp(
            [10, 0, 0, 1],
            [4000, 80],
            [10, 0, 0, 2],
            flag::SYN,
            7,
            b"abc",
        );
        let plain = parse(1, &frame, frame.len() as u32).unwrap();
        assert_eq!(plain.source.to_string(), "10.0.0.1");
        assert_eq!(
            (plain.source_port, plain.destination_port, plain.ttl),
            (4000, 80, 64)
        );
        assert_eq!(plain.length, 43);
        let expected = Tcp {
            flags: 2,
            sequence: 7,
            payload: 3,
            window: 1000,
        };
        assert_eq!(plain.tcp, Some(expected));

        let mut tagged = frame[..12].to_vec();
        tagged.extend([0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]);
        tagged.extend(&frame[12..]);
        let mut cooked = vec![0; 14];
        cooked.extend(&frame[12..]);
        let mut cooked2 = vec![8, 0];
        cooked2.extend([0; 18]);
        cooked2.extend(&frame[14..]);
        let mut loopback = vec![2, 0, 0, 0];
        loopback.extend(&frame[14..]);
        for (link, bytes) in [
            (1, &tagged[..]),
            (113, &cooked),
            (276, &cooked2),
            (0, &loopback),
            (101, &frame[14..]),
            (228, &frame[14..]),
        ] {
            assert_eq!(
                parse(link, bytes, bytes.len() as u32),
                Ok(plain),
                "link {link}"
            );
        }
        assert_eq!(parse(147, &frame, 57), Err(Unread::Link));
        let mut arp = frame.clone();
        arp[13] = 6;
        assert_eq!(parse(1, &arp, 57), Err(Unread::NotIp));
        // Padding after a short packet is no content.
        let mut padded = frame.clone();
        padded.extend([0; 9]);
        assert_eq!(parse(1, &padded, 66), Ok(plain));
    }

    #[test]
    fn what_was_cut_off_is_truncated_and_what_is_wrong_malformed() {
        let frame = tcp([10, 0, 0, 1], [4000, 80], [10, 0, 0, 2], 0, 7, &[0; 100]);
        let all = frame.len() as u32;
        let whole = parse(1, &frame, all).unwrap();
        // The headers are enough.
        assert_eq!(parse(1, &frame[..54], all), Ok(whole));
        for kept in [0, 10, 14, 20, 33, 34, 40, 47] {
            assert_eq!(
                parse(1, &frame[..kept], all),
                Err(Unread::Truncated),
                "{kept}"
            );
        }
        for (at, value) in [(14, 0x41), (14, 0x95), (17, 10), (46, 0x10)] {
            let mut wrong = frame.clone();
            wrong[at] = value;
            assert_eq!(parse(1, &wrong, all), Err(Unread::Malformed), "{at}");
        }
        // A length of 0 stands for all that was sent.
        let mut open = frame.clone();
        open[16] = 0;
        open[17] = 0;
        assert_eq!(parse(1, &open, all).unwrap().length, 140);
    }

    #[test]
    fn version_six_with_extensions_and_fragments() {
        let udp = [0, 53, 0x12, 0x34, 0, 12, 0, 0, 1, 2, 3, 4];
        let build = |extensions: &[u8], first: u8, rest: &[u8]| {
            let mut packet = vec![
                0x60,
                0,
                0,
                0,
                0,
                (extensions.len() + rest.len()) as u8,
                first,
                55,
            ];
            packet.extend([0xfe; 16]);
            packet.extend([0xfd; 16]);
            packet.extend(extensions);
            packet.extend(rest);
            packet
        };
        // Hop-by-hop options, then destination options, then UDP.
        let options = [60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0];
        let packet = build(&options, 0, &udp);
        let header = parse(101, &packet, packet.len() as u32).unwrap();
        assert_eq!(
            (header.protocol, header.source_port, header.destination_port),
            (17, 53, 0x1234)
        );
        assert_eq!((header.length, header.ttl, header.fragment), (68, 55, None));
        // First and second piece of packet 9.
        let first = build(&[17, 0, 0, 1, 0, 0, 0, 9], 44, &udp);
        let header = parse(229, &first, first.len() as u32).unwrap();
        let piece = |first| Fragment {
            identification: 9,
            first,
        };
        assert_eq!(
            (header.source_port, header.fragment),
            (53, Some(piece(true)))
        );
        // Extensions that are cut off, or claim to go on beyond the packet.
        for kept in 40..packet.len() {
            let got = parse(101, &packet[..kept], packet.len() as u32);
            assert_eq!(got.is_ok(), kept >= 64, "{kept}");
        }
        let endless = build(
            &[60, 0, 1, 4, 0, 0, 0, 0, 60, 200, 1, 4, 0, 0, 0, 0],
            0,
            &[],
        );
        assert_eq!(
            parse(101, &endless, endless.len() as u32),
            Err(Unread::Malformed)
        );
        let second = build(&[17, 0, 0, 16, 0, 0, 0, 9], 44, &[6; 12]);
        let header = parse(229, &second, second.len() as u32).unwrap();
        assert_eq!((header.protocol, header.source_port), (17, 0));
        assert_eq!(header.fragment, Some(piece(false)));
    }

    #[test]
    fn dns_and_ftp_fields() {
        let mut message = vec![0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        message.extend(b"\x03www\x02ex\x00\x00\x1c\x00\x01");
        message.extend([0xc0, 12, 0, 28, 0, 1, 0, 0, 1, 44, 0, 16]);
        let expected = Dns {
            id: 0xabcd,
            kind: 28,
            ttl: 300,
        };
        assert_eq!(dns(&message), Some(expected));
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([1, 1, 1, 1], [2, 2, 2, 2], 9)
            .udp(53, 9999)
            .write(&mut frame, &message)
            .unwrap();
        let header = parse(1, &frame, frame.len() as u32).unwrap();
        assert_eq!(header.dns, Some(expected));
        for length in 0..message.len() {
            let _ = dns(&message[..length]);
        }
        // No question; a name without an end.
        assert_eq!(dns(&[0; 40]), None);
        assert_eq!(dns(&[1; 400]), None);
        let answer = tcp(
            [9, 9, 9, 9],
            [21, 5000],
            [8, 8, 8, 8],
            flag::ACK,
            1,
            b"530 no\r\n",
        );
        assert_eq!(parse(1, &answer, 62).unwrap().ftp_code, 530);
        assert_eq!(ftp_code(b"12"), None);
        assert_eq!(ftp_code(b"1234"), None);
    }
}
