#!/usr/bin/env python3
"""Records the seeds: what the kernel really says, for `cargo xtask fuzz` to begin with.

    unshare --net --mount python3 fuzz/record.py

Makes rules, sets, listeners and a connection in the network namespace it runs in,
which has to be one of its own, and writes what the kernel answers to fuzz/seeds.
"""

import re, socket, struct, subprocess
from pathlib import Path

SEEDS = Path(__file__).parent / "seeds"
NFT = """
table inet fuzz {
  comment "a table"
  counter hits { packets 0 bytes 0; }
  set hosts { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.0.1-192.168.0.9 } }
  set pairs { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 80-90 } }
  map ports { type inet_service : ipv4_addr . inet_service; elements = { 8080 : 10.0.0.2 . 80 } }
  map ways { type inet_proto . inet_service : verdict
    elements = { tcp . 30000 comment "x" : jump way, udp . 53 : drop } }
  set seen { type ipv4_addr; size 100; flags dynamic,timeout; timeout 60s; }
  chain way { dnat ip to numgen random mod 2 map { 0 : 10.0.0.2, 1 : 10.0.0.3 }; }
  chain far { reject with icmpx type port-unreachable; }
  chain pre {
    type nat hook prerouting priority dstnat; policy accept;
    iifname { "eth0", "veth*" } tcp dport 30000-30010 dnat ip to tcp dport map @ports comment "a rule"
    meta l4proto . th dport vmap @ways
    fib daddr type local tcp dport 80 redirect to :8080
    ip saddr @hosts ip daddr . tcp dport @pairs goto far
    ip6 daddr fd00::/8 udp dport 53 dnat ip6 to [fd00::2]:5353
    ip daddr 10.9.0.1 dnat to jhash ip saddr mod 2 map { 0 : 10.0.0.4, 1 : 10.0.0.5 }
  }
  chain mangle {
    type filter hook prerouting priority mangle; policy accept;
    ct state new ct mark set mark and 0xff or 0x100 counter name hits
    tcp dport 99 tproxy ip to 127.0.0.1:1080 accept
    udp dport 98 notrack
    meta skuid 0 meta mark and 0x4000 == 0x4000 limit rate 5/second log prefix "x" drop
    update @seen { ip saddr limit rate 3/minute } quota over 1 mbytes drop
    socket transparent 1 rt classid 1 tcp option maxseg size set 1400
  }
  chain out {
    type nat hook postrouting priority srcnat;
    oifname "eth0" masquerade random,persistent
    meta l4proto tcp ip saddr 10.1.0.0/16 snat ip to 10.0.0.1-10.0.0.9:1000-2000
  }
}
table netdev dev { chain in { type filter hook ingress device lo priority 0; fwd to "lo"; }; }
"""
IPTABLES = """*nat
:WEB - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j WEB
-A WEB ! -s 10.0.0.0/8 -p tcp -m multiport --dports 80,443,8000:8010 -m comment --comment "a b" -j DNAT --to-destination 10.0.0.2:80
-A WEB -p udp -m statistic --mode random --probability 0.5 -j REDIRECT --to-ports 5353
-A WEB -m iprange --dst-range 10.0.0.1-10.0.0.9 -m recent --name x --rcheck --seconds 5 -g WEB2
-A WEB -p tcp -m set --match-set fuzz dst,dst -m mark --mark 1/3 -j NETMAP --to 10.2.0.0/16
-A OUTPUT -m owner --uid-owner 5 -m connmark --mark 2 -j ACCEPT
-A POSTROUTING -o eth+ -j MASQUERADE --random-fully
-A POSTROUTING -j SNAT --to-source 10.0.0.1-10.0.0.4
COMMIT
*mangle
-A PREROUTING -p tcp --dport 99 -m conntrack --ctstate NEW,DNAT -j TPROXY --on-port 1080 --tproxy-mark 1/1
-A PREROUTING -m conntrack ! --ctorigdst 10.0.0.0/8 -j CONNMARK --restore-mark
-A PREROUTING -m state --state ESTABLISHED -j MARK --set-xmark 4/4
COMMIT
*raw
-A OUTPUT -p udp -j CT --notrack
COMMIT
*filter
-A INPUT -f -j DROP
-A INPUT -p tcp --dport 7 --syn -j REJECT --reject-with tcp-reset
-P FORWARD DROP
COMMIT
""".replace(":WEB - [0:0]", ":WEB - [0:0]\n:WEB2 - [0:0]")


def run(*argv, text=None):
    subprocess.run(argv, input=text, text=True, check=True)


def talk(family, kind, flags, body):
    """Every buffer that answers one question."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family) as s:
        s.bind((0, 0))
        s.settimeout(2)
        s.send(struct.pack("=IHHII", 16 + len(body), kind, 1 | flags, 1, 0) + body)
        while True:
            buffer = s.recv(1 << 20)
            yield buffer
            last = buffer
            while last:
                length, kind = struct.unpack_from("=IH", last)
                if kind in (2, 3):
                    return
                last = last[(length + 3) & ~3:]


def attribute(kind, value):
    body = struct.pack("=HH", 4 + len(value), kind) + value
    return body + b"\0" * (-len(body) % 4)


def keep(target, name, data):
    (SEEDS / target).mkdir(parents=True, exist_ok=True)
    (SEEDS / target / name).write_bytes(data[:8192])


def messages(buffer):
    while len(buffer) >= 16:
        length = struct.unpack_from("=I", buffer)[0]
        yield buffer[16:length]
        buffer = buffer[(length + 3) & ~3:]


def attributes(data):
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3:]


def nf_tables():
    get = {"tables": 1, "chains": 4, "rules": 7, "sets": 10}
    for what, command in get.items():
        buffers = list(talk(12, 10 << 8 | command, 0x300, b"\0\0\0\0"))
        for n, buffer in enumerate(buffers):
            keep("nf_tables", f"{what}-{n}", buffer)
            if what == "rules":
                for m, message in enumerate(messages(buffer)):
                    for kind, value in attributes(message[4:]):
                        if kind == 4:
                            family = {2: 0, 10: 1}.get(message[0], 2)
                            keep("nf_tables_expressions", f"{n}-{m}", bytes([family]) + value)
                            for _, expression in attributes(value):
                                compat(dict(attributes(expression)))
    for name in ["hosts", "pairs", "ports", "ways"]:
        body = b"\1\0\0\0" + attribute(1, b"fuzz\0") + attribute(2, name.encode() + b"\0")
        buffers = [*talk(12, 10 << 8 | 10, 4, body), *talk(12, 10 << 8 | 13, 0x300, body)]
        keep("nf_tables", f"set-{name}", b"".join(buffers))


def compat(expression):
    if expression.get(1) in (b"match\0", b"target\0"):
        fields = dict(attributes(expression[2]))
        name, revision = fields[1].rstrip(b"\0"), fields[2][3]
        keep("xtables", f"{name.decode()}-{revision}", bytes([revision, 0]) + name + b"\0" + fields[3])


def legacy(ipv6):
    level, kind = (41, socket.AF_INET6) if ipv6 else (0, socket.AF_INET)
    with socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        for name in ["nat", "mangle", "raw", "filter"]:
            head = name.encode().ljust(32, b"\0")
            info = get_option(s, level, 64, head + bytes(52))
            size = struct.unpack_from("=I", info, 80)[0]
            blob = get_option(s, level, 65, head + struct.pack("=I", size) + bytes(4 + size))
            keep("legacy", f"{name}-{4 + 2 * ipv6}", bytes([ipv6]) + info + blob[40:])


def get_option(s, level, option, given):
    """getsockopt with a buffer that is read, too, which Python's has not."""
    import ctypes

    buffer = ctypes.create_string_buffer(given, len(given))
    length = ctypes.c_uint(len(given))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(s.fileno(), level, option, buffer, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), "getsockopt")
    return buffer.raw[: length.value]


def ipset():
    for name in [b"fuzz", b"nets"]:
        body = b"\0\0\0\0" + attribute(1, b"\7") + attribute(2, name + b"\0")
        keep("ipset", name.decode(), b"".join(talk(12, 6 << 8 | 7, 0x304, body)))


def sockets():
    listener = socket.create_server(("127.0.0.1", 8080))
    six = socket.create_server(("::1", 8081), family=socket.AF_INET6)
    client = socket.create_connection(("127.0.0.1", 8080))
    for n, family in enumerate([2, 10]):
        body = struct.pack("=BBBBI", family, 6, 0xFF, 0, 1 << 10) + bytes(48)
        keep("sock_diag", str(n), b"".join(talk(4, 20, 0x300, body)))
    for handle in [client, six, listener]:
        handle.close()


def routes():
    run("ip", "link", "add", "a0", "type", "veth", "peer", "name", "a1")
    run("ip", "link", "add", "x0", "type", "vxlan", "id", "7", "dstport", "4789", "local", "127.0.0.1")
    run("ip", "address", "add", "10.7.0.1/24", "dev", "a0")
    run("ip", "link", "set", "a0", "up")
    run("ip", "route", "add", "10.8.0.0/16", "via", "10.7.0.2")
    run("ip", "-6", "route", "add", "unreachable", "fd07::/64")
    for name, kind in {"links": 18, "addresses": 22, "routes": 26}.items():
        keep("rtnetlink", name, b"".join(talk(0, kind, 0x300, bytes(16))))


def proc():
    for name in ["status", "net/tcp", "net/udp6"]:
        keep("proc", name.replace("/", "-"), Path("/proc/self", name).read_bytes())
    keep("proc", "passwd", Path("/etc/passwd").read_bytes())


def main():
    run("ip", "link", "set", "lo", "up")
    proc()
    sockets()
    routes()
    run("ipset", "create", "fuzz", "hash:ip,port", "comment")
    run("ipset", "add", "fuzz", "10.0.0.1,tcp:80", "comment", "x")
    run("ipset", "create", "nets", "hash:net", "timeout", "600")
    run("ipset", "add", "nets", "10.0.0.0/9", "nomatch")
    run("nft", "-f", "-", text=NFT)
    run("iptables-nft-restore", text=IPTABLES)
    run("iptables-legacy-restore", text=IPTABLES)
    run("ip6tables-legacy-restore", text=re.sub(r"10\.[\d.]+(/\d+)?", "fd00::1", IPTABLES.split("-A WEB ")[0]) + "COMMIT\n*mangle\nCOMMIT\n*raw\nCOMMIT\n*filter\n-A INPUT -s fd00::/8 -p tcp --dport 80 -j DROP\nCOMMIT\n")
    nf_tables()
    legacy(False)
    legacy(True)
    ipset()
    keep("netlink", "families", b"".join(talk(16, 16, 0x300, struct.pack("=BBH", 3, 1, 0))))
    for file in Path("probe-user/node/src/live/conntrack/fixtures").glob("*.hex"):
        keep("conntrack", file.stem, bytes.fromhex(file.read_text()))


main()
