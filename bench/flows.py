#!/usr/bin/env python3
"""Times a capture turned into flows against nfstream (flows by an engine in C) and dpkt (packets taken apart in Python).

    python3 -m venv /tmp/peers && /tmp/peers/bin/pip install nfstream==6.6.0 dpkt==1.9.8
    cargo build --release -p papertrial-bench
    /tmp/peers/bin/python bench/flows.py [CAPTURE ...]
    /tmp/peers/bin/python bench/flows.py --totals CAPTURE ...

Without a capture, one of 400,000 packets is made: 20,000 TCP connections, 64 of them at a time. The programs run in turn,
several rounds on files in the page cache; the ratio is that of the best rounds. nfstream runs with its defaults but no
look at the content (n_dissections=0) and one meter; ours runs on one thread. Packets per second count those of the file.
`--totals` prints what dpkt finds: packets, IP packets with a whole header, their IP bytes, pairs of ends, and checks ours
per pair of ends. BENCH_OURS names another program for our side; it prints JSON.
"""

import collections
import json
import os
import shlex
import socket
import struct
import subprocess
import sys
import tempfile
import time

import dpkt

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS = shlex.split(
    os.environ.get("BENCH_OURS", os.path.join(ROOT, "target", "release", "papertrial-bench") + " flows")
)
ROUNDS = 3


def made_capture():
    def packet(source, destination, ports, sequence, acknowledged, flags, content):
        tcp = struct.pack(">HHIIBBHHH", *ports, sequence, acknowledged, 0x50, flags, 8192, 0, 0)
        ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 40 + len(content), 1, 0, 64, 6, 0, source, destination)
        return b"\2" * 6 + b"\4" * 6 + b"\x08\0" + ip + tcp + content

    path = os.path.join(tempfile.mkdtemp(prefix="papertrial-bench-"), "made.pcap")
    moment = 1_700_000_000_000_000
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for group in range(20_000 // 64):
            for step in range(20):
                for one in range(64):
                    number = group * 64 + one
                    client = socket.inet_aton(f"10.{number >> 14}.{number >> 7 & 127}.{number & 127}")
                    server = socket.inet_aton(f"192.168.1.{number % 200 + 1}")
                    forward = step % 2 == 0
                    flags = {0: 2, 1: 18, 18: 17, 19: 17}.get(step, 24)
                    content = b"" if step in (0, 1, 18, 19) else b"x" * (60 + 70 * step)
                    ends = (client, server) if forward else (server, client)
                    ports = (20_000 + number, 443) if forward else (443, 20_000 + number)
                    data = packet(*ends, ports, 1000 * step, 0, flags, content)
                    moment += 40
                    file.write(struct.pack("<IIII", moment // 10**6, moment % 10**6, len(data), len(data)) + data)
    return path


def totals(path):
    """Packets, and (packets, IP bytes) of each pair of ends, by dpkt; later fragments go with the first."""
    pairs = collections.Counter(), collections.Counter()
    packets, first = 0, {}
    with open(path, "rb") as file:
        reader = dpkt.pcap.UniversalReader(file)
        for _, data in reader:
            packets += 1
            try:
                if reader.datalink() == dpkt.pcap.DLT_EN10MB:
                    ip = dpkt.ethernet.Ethernet(data).data
                else:
                    ip = (dpkt.ip6.IP6 if data[0] >> 4 == 6 else dpkt.ip.IP)(data)
            except (dpkt.UnpackError, IndexError):
                continue
            if not isinstance(ip, (dpkt.ip.IP, dpkt.ip6.IP6)):
                continue
            length = ip.len if isinstance(ip, dpkt.ip.IP) else 40 + ip.plen
            inner = ip.data
            ports = (inner.sport, inner.dport) if hasattr(inner, "sport") else (0, 0)
            if isinstance(ip, dpkt.ip.IP) and (ip.mf or ip.offset):
                name = (ip.src, ip.dst, ip.id, ip.p)
                if ip.offset == 0:
                    first[name] = ports
                else:
                    ports = first.get(name, (0, 0))
            family = socket.AF_INET if isinstance(ip, dpkt.ip.IP) else socket.AF_INET6
            ends = [(socket.inet_ntop(family, a), p) for a, p in zip((ip.src, ip.dst), ports)]
            pair = tuple(sorted(ends)) + (ip.p,)
            pairs[0][pair] += 1
            pairs[1][pair] += length
    return packets, {pair: (pairs[0][pair], pairs[1][pair]) for pair in pairs[0]}


def by_nfstream(path):
    from nfstream import NFStreamer

    start = time.perf_counter()
    flows, packets = 0, 0
    for flow in NFStreamer(source=path, n_dissections=0, n_meters=1):
        flows += 1
        packets += flow.bidirectional_packets
    return time.perf_counter() - start, packets, flows


def by_dpkt(path):
    start = time.perf_counter()
    packets, pairs = totals(path)
    return time.perf_counter() - start, packets, len(pairs)


def by_ours(path):
    told = json.loads(subprocess.run([*OURS, path], check=True, stdout=subprocess.PIPE).stdout)
    return told["seconds"], told["packets"], told["flows"]


def check(path):
    packets, theirs = totals(path)
    told = json.loads(subprocess.run([*OURS, path, "pairs"], check=True, stdout=subprocess.PIPE).stdout)
    ours = {}
    for address, port, other, other_port, protocol, n, size in told["pairs"]:
        pair = tuple(sorted([(address, port), (other, other_port)])) + (protocol,)
        before = ours.get(pair, (0, 0))
        ours[pair] = (before[0] + n, before[1] + size)
    differ = [pair for pair in ours.keys() | theirs.keys() if ours.get(pair) != theirs.get(pair)]
    counted, size = (sum(v[i] for v in theirs.values()) for i in (0, 1))
    print(f"{path}: dpkt: {packets} packets, {counted} in {len(theirs)} pairs, {size} bytes")
    print(f"  ours: {told['packets']} packets, {len(differ)} pairs differ")
    for pair in differ[:10]:
        print("   ", pair, "dpkt", theirs.get(pair), "ours", ours.get(pair))


def compare(path):
    programs = {"ours": by_ours, "nfstream": by_nfstream, "dpkt": by_dpkt}
    best = {}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            seconds, packets, flows = program(path)
            if name not in best or seconds < best[name][0]:
                best[name] = (seconds, packets, flows)
    for name, (seconds, packets, flows) in best.items():
        ratio = seconds / best["ours"][0]
        print(f"{name:10} {seconds:8.4f} s {packets / seconds:12,.0f} packets/s {flows:7} flows  ratio {ratio:8.1f}")


if __name__ == "__main__":
    paths = [word for word in sys.argv[1:] if not word.startswith("-")]
    if "--totals" in sys.argv:
        for capture in paths:
            check(capture)
    else:
        for capture in paths or [made_capture()]:
            print(capture)
            compare(capture)
