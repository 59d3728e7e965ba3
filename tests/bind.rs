//! Whether a socket could be bound: what the tool predicts, and what the kernel does.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Lab, Netns, Place, Random, Run, Test, within};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde_json::Value;

/// What a socket is made with.
#[derive(Debug, Clone, Copy)]
struct Options {
    tcp: bool,
    address: IpAddr,
    reuse_addr: bool,
    reuse_port: bool,
    v6only: bool,
    uid: u32,
}

/// Makes such a socket in this thread, whose user changes with it.
fn made(options: Options, port: u16) -> Result<std::result::Result<OwnedFd, Errno>> {
    let Options { tcp, address, reuse_addr, reuse_port, v6only, uid } = options;
    if uid != 0 {
        let uid = rustix::process::Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, reuse_addr)?;
    sockopt::set_socket_reuseport(&socket, reuse_port)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, v6only)?;
    }
    let done = rustix::net::bind(&socket, &SocketAddr::new(address, port));
    Ok(done.map(|()| socket))
}

/// The same in a namespace, and what becomes of it there: bound, listening, connected.
fn have(
    netns: &Netns,
    options: Options,
    port: u16,
    fate: u64,
    server: SocketAddr,
) -> Result<Vec<OwnedFd>> {
    within(netns, || {
        let Ok(socket) = made(options, port)? else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        let loopback = SocketAddr::new(own(options.address), port);
        match (fate, options.tcp) {
            (0, true) => drop(rustix::net::listen(&socket, 8)),
            // A connection from here; it may be refused where the other end is of IPv4 alone.
            (1, true) => drop(rustix::net::connect(&socket, &server)),
            (1, false) => drop(rustix::net::connect(&socket, &server)),
            // What a listener accepted, without the listener, or with it.
            (2 | 3, true) if rustix::net::listen(&socket, 8).is_ok() => {
                let client = std::net::TcpStream::connect(loopback);
                if let Ok(client) = client {
                    all.push(rustix::net::accept_with(&socket, SocketFlags::CLOEXEC)?);
                    all.push(client.into());
                }
                if fate == 2 {
                    return Ok(all);
                }
            }
            _ => {}
        }
        all.push(socket);
        Ok(all)
    })
}

/// A loopback address that leads to what is bound to this one.
fn own(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(four) if four.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(six) if six.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        bound => bound,
    }
}

const ADDRESSES: [&str; 7] =
    ["0.0.0.0", "127.0.0.1", "127.0.0.2", "::", "::1", "::ffff:127.0.0.1", "::ffff:127.0.0.2"];

/// What is asked with each of these, and for root or another user.
const ASKED: [(&[&str], bool, bool, bool, u32); 6] = [
    (&[], false, false, false, 0),
    (&["--reuse"], true, false, false, 0),
    (&["--reuse=port"], false, true, false, 0),
    (&["--reuse=both"], true, true, false, 0),
    (&["--ipv6-only"], false, false, true, 0),
    (&["--reuse=port", "--uid", "7"], false, true, false, 7),
];

/// Random sockets on one port, every question about it: what is predicted is what the kernel
/// does, or "not known". Without options it is always known.
#[test]
fn what_is_predicted_is_what_the_kernel_does() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let server = "127.0.0.1:25900".parse::<SocketAddr>()?;
    let _server = lab.listen(lab.host(), "tcp 127.0.0.1:25900")?;
    let mut random = Random::new()?;
    let (mut known, mut open) = (0, 0);
    for round in 0..12 {
        let port = 26000 + round;
        let mut sockets = Vec::new();
        let mut what = Vec::new();
        for _ in 0..=random.below(3) {
            let options = Options {
                tcp: random.below(3) > 0,
                address: random.pick(&ADDRESSES)?.parse()?,
                reuse_addr: random.below(2) == 0,
                reuse_port: random.below(2) == 0,
                v6only: random.below(2) == 0,
                uid: if random.below(4) == 0 { 7 } else { 0 },
            };
            let options =
                Options { v6only: options.v6only && options.address.is_unspecified(), ..options };
            let fate = random.below(5);
            sockets.extend(have(lab.host(), options, port, fate, server)?);
            what.push((options, fate));
        }
        for (args, reuse_addr, reuse_port, v6only, uid) in ASKED {
            for (tcp, proto) in [(true, "tcp"), (false, "udp")] {
                let mut targets = Vec::new();
                let mut kernel = Vec::new();
                for address in ADDRESSES {
                    let address: IpAddr = address.parse()?;
                    targets.push(format!("{}/{proto}", SocketAddr::new(address, port)));
                    let options = Options {
                        tcp,
                        address,
                        reuse_addr,
                        reuse_port,
                        v6only: v6only && address.is_unspecified(),
                        uid,
                    };
                    kernel.push(within(lab.host(), || Ok(made(options, port)?.is_ok()))?);
                }
                let mut tool = lab.tool().args(&["--json", "bind", "--try"]).args(args);
                for target in &targets {
                    tool = tool.arg(target);
                }
                let run = tool.run()?;
                let binds = run.json["binds"].as_array().with_context(|| run.stderr.clone())?;
                ensure!(binds.len() == targets.len(), "{}", run.stdout);
                for ((target, kernel), bind) in targets.iter().zip(&kernel).zip(binds) {
                    let situation = format!("{target} {args:?} with {what:?}: {bind:#}");
                    ensure!(bind["tried"] == *kernel, "the try is no try: {situation}");
                    match bind["predicted"].as_bool() {
                        Some(predicted) => {
                            ensure!(predicted == *kernel, "predicted {predicted}: {situation}");
                            known += 1;
                        }
                        // What nothing tells: options of others, and whether a connection of
                        // IPv6 is that of a socket for both.
                        None => {
                            let may_be = !args.is_empty() && args != ["--ipv6-only"]
                                || target.starts_with("0.0.0.0");
                            ensure!(may_be, "not known: {situation}");
                            open += 1;
                        }
                    }
                }
            }
        }
    }
    println!("{known} known, {open} not");
    ensure!(known > open, "{known} known, {open} not");
    Ok(())
}

fn only(run: &Run) -> Result<&Value> {
    match run.json["binds"].as_array().map(Vec::as_slice) {
        Some([one]) => Ok(one),
        _ => bail!("not one bind, exit {:?}: {}{}", run.code, run.stdout, run.stderr),
    }
}

fn codes(bind: &Value) -> Vec<&str> {
    let notes = bind["notes"].as_array().into_iter().flatten();
    notes.filter_map(|note| note["code"].as_str()).collect()
}

#[test]
fn a_link_local_address_is_bound_to_with_its_interface() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let host = lab.host();
    host.ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"])?;
    host.ip(&["link", "set", "up0", "up"])?;
    host.address("up0", "fe80::7/64")?;
    for (target, works) in [("[fe80::7%up0]:25930/tcp", true), ("[fe80::7%lo]:25930/tcp", false)] {
        let run = lab.whereis(&["bind", "--try", target])?;
        let bind = only(&run)?;
        ensure!(bind["predicted"] == works && bind["tried"] == works, "{bind:#}");
        ensure!(bind["text"].as_str().is_some_and(|text| text.contains('%')), "{bind:#}");
    }
    let run = lab.whereis(&["bind", "[fe80::7]:25930/tcp"])?;
    ensure!(only(&run)?["predicted"] == false, "{}", run.stdout);
    // What is proposed can be bound to.
    let run = lab.whereis(&["bind", "[fd00::9]:25930/tcp"])?;
    let fix = only(&run)?["fix"]["text"].as_str().context("no fix")?.to_owned();
    ensure!(fix.contains("fe80::7%up0"), "{fix}");
    let _listener = lab.listen(host, "tcp [fe80::7]:25931 --device up0")?;
    let run = lab.whereis(&["bind", "--try", "[fe80::7%up0]:25931/tcp"])?;
    let bind = only(&run)?;
    ensure!(bind["predicted"] == false && bind["tried"] == false, "{bind:#}");
    ensure!(bind["error"] == "EADDRINUSE", "{bind:#}");
    Ok(())
}

#[test]
fn it_works_where_nothing_is_in_the_way() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let run = lab.whereis(&["bind", "25901"])?;
    let works = run.json["binds"].as_array().context("no binds")?.iter();
    ensure!(works.clone().all(|bind| bind["works"] == true), "{}", run.stdout);
    ensure!(run.code == Some(0) && works.count() == 2, "{}", run.stdout);
    let listener = lab.listen(lab.host(), "tcp 127.0.0.1:25901")?;
    let run = lab.whereis(&["bind", "25901"])?;
    ensure!(run.code == Some(1), "{}", run.stdout);
    let tcp = &run.json["binds"][0];
    ensure!(tcp["works"] == false && tcp["error"] == "EADDRINUSE", "{tcp}");
    ensure!(tcp["held"][0]["end"]["process"]["pid"] == listener.pid, "{tcp}");
    ensure!(tcp["fix"]["commands"][0][0] == "kill" && codes(tcp) == ["ipv6_works"], "{tcp}");
    ensure!(run.json["binds"][1]["works"] == true, "{}", run.stdout);
    // SO_REUSEADDR does not help against a listener, another address does.
    let run = lab.whereis(&["bind", "25901/tcp", "--reuse"])?;
    ensure!(run.code == Some(1), "{}", run.stdout);
    let run = lab.whereis(&["bind", "127.0.0.2:25901/tcp", "[::1]:25901/tcp"])?;
    ensure!(run.code == Some(0), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_privileged_port_is_not_for_everybody() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let run = lab.whereis(&["bind", "80/tcp"])?;
    ensure!(run.code == Some(0), "{}", run.stdout);
    for args in
        [&["bind", "80/tcp", "--uid", "1000"][..], &["bind", "80/tcp", "--uid", "1000", "--try"]]
    {
        let run = lab.whereis(args)?;
        let bind = only(&run)?;
        ensure!(run.code == Some(1) && bind["error"] == "EACCES", "{}", run.stdout);
        ensure!(codes(bind) == ["privileged"], "{bind}");
    }
    // Who asks is meant when nobody else is named.
    let run = lab.tool().args(&["--json", "bind", "80/tcp"]).uid(1000).run()?;
    ensure!(run.code == Some(1) && only(&run)?["error"] == "EACCES", "{}", run.stdout);
    lab.host().sysctl("ipv4/ip_unprivileged_port_start", "80")?;
    let run = lab.whereis(&["bind", "80/tcp", "--uid", "1000", "--try"])?;
    ensure!(run.code == Some(0) && only(&run)?["predicted"] == true, "{}", run.stdout);
    Ok(())
}

#[test]
fn the_capability_counts_and_not_the_number_of_the_user() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let dropped = ["setpriv", "--bounding-set", "-net_bind_service"];
    let own = ["unshare", "-Urn"];
    let foreign = ["unshare", "-Ur"];
    for (wrapper, works) in [(&dropped[..], false), (&own, true), (&foreign, false)] {
        // `--try` disagrees with a wrong prediction.
        let asked = ["--json", "bind", "0.0.0.0:80/tcp", "--try"];
        let run = lab.tool().through(wrapper).args(&asked).run()?;
        let bind = only(&run)?;
        ensure!(run.code == Some(i32::from(!works)), "{wrapper:?}: {}", run.stdout);
        ensure!(bind["predicted"] == works, "{wrapper:?}: {bind}");
        ensure!(codes(bind).contains(&"privileged") != works, "{wrapper:?}: {bind}");
    }
    Ok(())
}

#[test]
fn an_address_has_to_be_there() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    lab.lan(&[(lab.host(), &["192.0.2.7/24", "2001:db8::7/64"])])?;
    let device = ["--device", "eth0"];
    let link_local = || -> Result<String> {
        let out = std::process::Command::new("ip")
            .args([
                "-n",
                &lab.host().name,
                "-o",
                "-6",
                "addr",
                "show",
                "dev",
                "eth0",
                "scope",
                "link",
            ])
            .output()?;
        let text = String::from_utf8(out.stdout)?;
        let address =
            text.split_whitespace().find(|word| word.starts_with("fe80")).context("none")?;
        Ok(address.split('/').next().unwrap_or_default().to_owned())
    };
    let local = link_local()?;
    for (target, args, error, code) in [
        ("192.0.2.7:25902/tcp", &[][..], None, None),
        ("192.0.2.255:25902/udp", &[], None, None),
        ("127.3.4.5:25902/tcp", &[], None, None),
        ("192.0.2.8:25902/tcp", &[], Some("EADDRNOTAVAIL"), Some("address_not_own")),
        ("[2001:db8::8]:25902/udp", &[], Some("EADDRNOTAVAIL"), Some("address_not_own")),
        (&format!("[{local}]:25902/tcp"), &[], Some("EINVAL"), Some("needs_interface")),
        ("[fe80::77]:25902/tcp", &device, Some("EADDRNOTAVAIL"), Some("address_not_own")),
        ("[::1]:25902/tcp", &device, Some("EADDRNOTAVAIL"), Some("address_not_own")),
        ("[ff02::1]:25902/tcp", &device, Some("EINVAL"), None),
        ("[ff02::1]:25902/udp", &device, None, None),
        ("[ff02::1]:25902/udp", &[], Some("EINVAL"), Some("needs_interface")),
        ("[ff05::1]:25902/udp", &[], None, None),
        ("0.0.0.1:25902/tcp", &[], Some("EADDRNOTAVAIL"), Some("address_not_own")),
        ("192.0.2.7:25902/tcp", &device, None, None),
        ("127.0.0.1:25902/tcp", &device, None, None),
    ] {
        for attempt in [&[][..], &["--try"]] {
            let run = lab.whereis(&[&["bind", target], args, attempt].concat())?;
            let bind = only(&run)?;
            ensure!(bind["predicted"] == error.is_none(), "{target} {args:?}: {bind:#}");
            ensure!(bind["error"].as_str() == error, "{target} {args:?}: {bind:#}");
            ensure!(code.is_none_or(|code| codes(bind).contains(&code)), "{target}: {bind:#}");
            let tried = if attempt.is_empty() { Value::Null } else { error.is_none().into() };
            ensure!(bind["tried"] == tried, "{target} {args:?}: {bind:#}");
        }
    }
    // AnyIP: a local route has a whole network.
    lab.host().ip(&["route", "add", "local", "198.51.100.0/24", "dev", "lo"])?;
    lab.host().sysctl("ipv6/ip_nonlocal_bind", "1")?;
    for target in ["198.51.100.9:25902/tcp", "[2001:db8::9]:25902/tcp"] {
        let run = lab.whereis(&["bind", target, "--try"])?;
        let bind = only(&run)?;
        ensure!(bind["predicted"] == true && bind["tried"] == true, "{target}: {bind:#}");
    }
    lab.host().sysctl("ipv4/ip_nonlocal_bind", "1")?;
    let run = lab.whereis(&["bind", "192.0.2.8:25902/tcp", "--try"])?;
    ensure!(only(&run)?["predicted"] == true && run.code == Some(0), "{}", run.stdout);
    Ok(())
}

#[test]
fn another_namespace_has_ports_of_its_own() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let inner = lab.netns("inner")?;
    let listener = lab.listen(&inner, "tcp 0.0.0.0:25903")?;
    let run = lab.whereis(&["bind", "25903/tcp", "--try"])?;
    ensure!(run.code == Some(0), "{}", run.stdout);
    for name in [inner.name.as_str(), &inner.inode.to_string()] {
        let run = lab.whereis(&["bind", "25903/tcp", "--netns", name, "--try"])?;
        let bind = only(&run)?;
        ensure!(run.code == Some(1) && bind["netns"]["inode"] == inner.inode, "{}", run.stdout);
        ensure!(bind["held"][0]["end"]["process"]["pid"] == listener.pid, "{bind}");
    }
    let run = lab.whereis(&["bind", "25903", "--netns", "no-such"])?;
    ensure!(run.code == Some(2) && run.stderr.contains("\"no-such\""), "{}", run.stderr);
    let run = lab.whereis(&["bind", "25903", "--device", "no-such0"])?;
    ensure!(run.code == Some(2) && run.stderr.contains("\"no-such0\""), "{}", run.stderr);
    let run = lab.whereis(&["bind", "25903-25909"])?;
    ensure!(run.code == Some(2) && run.stderr.contains("25903-25909"), "{}", run.stderr);
    let run = lab.whereis(&["bind", "25903", "--try", "--replay", "/nowhere"])?;
    ensure!(run.code == Some(2) && run.stderr.contains("--try"), "{}", run.stderr);
    Ok(())
}

#[test]
fn what_else_may_want_the_port_is_told() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let run = lab.whereis(&["bind", "40000/tcp"])?;
    ensure!(run.code == Some(0) && codes(only(&run)?) == ["ephemeral"], "{}", run.stdout);
    lab.host().sysctl("ipv4/ip_local_reserved_ports", "39999-40001")?;
    let run = lab.whereis(&["bind", "40000/tcp"])?;
    ensure!(codes(only(&run)?) == ["reserved"], "{}", run.stdout);
    if lab::no_rules().is_none() {
        lab.nft(
            lab.host(),
            "table ip t { chain p { type nat hook output priority -100; tcp dport 25904 redirect to :25905; }; }",
        )?;
        let run = lab.whereis(&["bind", "25904/tcp"])?;
        ensure!(run.code == Some(0) && codes(only(&run)?) == ["taken_by_rules"], "{}", run.stdout);
    }
    Ok(())
}

#[test]
fn two_interfaces_have_ports_apart() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    for device in ["bridge1", "bridge2"] {
        lab.host().ip(&["link", "add", device, "type", "bridge"])?;
        lab.host().ip(&["link", "set", device, "up"])?;
    }
    let _one = within(lab.host(), || {
        let options = Options {
            tcp: true,
            address: "0.0.0.0".parse()?,
            reuse_addr: false,
            reuse_port: false,
            v6only: false,
            uid: 0,
        };
        let family = AddressFamily::INET;
        let socket =
            rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        to_device(&socket, "bridge1")?;
        rustix::net::bind(&socket, &SocketAddr::new(options.address, 25906))?;
        rustix::net::listen(&socket, 1)?;
        Ok(socket)
    })?;
    for (args, works) in
        [(&[][..], false), (&["--device", "bridge1"], false), (&["--device", "bridge2"], true)]
    {
        let run = lab.whereis(&[&["bind", "25906/tcp", "--try"], args].concat())?;
        let bind = only(&run)?;
        ensure!(bind["predicted"] == works && bind["tried"] == works, "{args:?}: {bind:#}");
    }
    Ok(())
}

/// `SO_BINDTODEVICE`.
#[expect(unsafe_code, reason = "rustix has no such option")]
fn to_device(socket: &OwnedFd, name: &str) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    let size = u32::try_from(name.len())?;
    // SAFETY: the name lives as long as the call, and is as long as is said.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            size,
        )
    };
    ensure!(done == 0, "{}", std::io::Error::last_os_error());
    Ok(())
}

#[test]
fn a_plain_user_gets_a_prediction_too() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _listener = lab.listen(lab.host(), "tcp 127.0.0.1:25907")?;
    let run = lab.tool().args(&["--json", "bind", "25907/tcp", "--try"]).uid(65534).run()?;
    let bind = only(&run)?;
    ensure!(run.code == Some(1) && bind["tried"] == false, "{}", run.stdout);
    ensure!(bind["held"][0]["end"]["ending"] == "not_readable", "{bind}");
    let run = lab.tool().args(&["--json", "bind", "25908/tcp"]).uid(65534).run()?;
    ensure!(run.code == Some(0), "{}", run.stdout);
    // Another user's it can't try.
    let run = lab
        .tool()
        .args(&["--json", "bind", "25908/tcp", "--try", "--uid", "7"])
        .uid(65534)
        .run()?;
    ensure!(only(&run)?["tried"].is_null() && run.gap_text().is_empty(), "{}", run.stdout);
    ensure!(run.stdout.contains("becoming that user"), "{}", run.stdout);
    Ok(())
}

/// A program that refuses or allows to bind, at the cgroup that the tool is in or above it: what
/// it does is not evaluated, so the answer is "not known", and names it. `--try` tells.
#[test]
fn a_program_of_a_cgroup_may_refuse_a_bind() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let cgroup = lab.cgroup().to_owned();
    let four = "127.0.0.1:25990/tcp";
    let six = "[::1]:25990/udp";
    let is_open = |targets: &[&str], named: &str| -> Test {
        for target in targets {
            let run = lab.whereis(&["bind", target])?;
            let bind = only(&run)?;
            ensure!(run.code == Some(3) && bind["predicted"].is_null(), "{target}: {bind:#}");
            ensure!(codes(bind) == ["bind_program"], "{target}: {bind:#}");
            let text = bind["notes"][0]["text"].as_str().unwrap_or_default();
            ensure!(text.contains(named), "{target}: {text}, not {named}");
        }
        Ok(())
    };
    let is_known = |target: &str| -> Test {
        let run = lab.whereis(&["bind", target, "--try"])?;
        ensure!(run.code == Some(0) && only(&run)?["predicted"] == true, "{}", run.stdout);
        Ok(())
    };
    let refuses = match lab.host().attach(Place::CgroupBind4(&cgroup), 0) {
        Ok(attached) => attached,
        Err(error) => {
            lab::skip(&format!("no program can be attached to a cgroup: {error:#}"));
            return Ok(());
        }
    };
    let named = format!("the cgroup bind4 program wp_test (id {}) on ", refuses.id);
    is_open(&[four], &named)?;
    is_known(six)?;
    let run = lab.whereis(&["bind", four, "--try"])?;
    ensure!(run.code == Some(1) && only(&run)?["error"] == "EPERM", "{}", run.stdout);
    // Where nothing listens, "surely nothing" is not "a bind works".
    let run = lab.whereis(&["25990"])?;
    run.is_nothing()?;
    let finding = &run.answer()?["findings"][0];
    ensure!(finding["code"] == "bind_program", "{finding}");
    ensure!(finding["what"].as_str().is_some_and(|what| what.contains(&named)), "{finding}");
    drop(refuses);
    let passes = lab.host().attach(Place::CgroupPostBind6(&cgroup), 1)?;
    is_open(&[six], &format!("the cgroup post_bind6 program wp_test (id {}) on ", passes.id))?;
    is_known(four)?;
    let tried = lab.whereis(&["bind", six, "--try"])?;
    ensure!(tried.code == Some(0) && only(&tried)?["predicted"].is_null(), "{}", tried.stdout);
    drop(passes);
    // That of a cgroup beside the own one is nobody's here.
    let aside = cgroup.join("aside");
    std::fs::create_dir(&aside)?;
    let _refuses = lab.host().attach(Place::CgroupBind4(&aside), 0)?;
    is_known(four)?;
    is_known(six)
}

#[test]
fn what_a_listener_accepted_is_told_with_it() -> Test {
    lab::root_or_skip!();
    let lab = Lab::new()?;
    let _all = within(lab.host(), || {
        let listener = std::net::TcpListener::bind("127.0.0.1:25991")?;
        let client = std::net::TcpStream::connect("127.0.0.1:25991")?;
        let waits = std::net::TcpStream::connect("127.0.0.1:25991")?;
        let (served, _) = listener.accept()?;
        Ok((listener, client, waits, served))
    })?;
    let run = lab.whereis(&["bind", "25991/tcp"])?;
    let bind = only(&run)?;
    let held = bind["held"].as_array().context("nothing has it")?;
    ensure!(run.code == Some(1) && held.len() == 1 && held[0]["role"] == "listener", "{bind:#}");
    let commands = bind["fix"]["commands"].as_array().context("no command")?;
    ensure!(commands.len() == 1 && commands[0][0] == "kill", "{bind:#}");
    Ok(())
}
