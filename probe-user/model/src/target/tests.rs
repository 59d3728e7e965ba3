use super::*;

const SERVICES: &str = "\
# comment
ssh             22/tcp                          # SSH
domain          53/tcp
domain          53/udp
http            80/tcp          www             # WorldWideWeb HTTP
bootps          67/udp
z3950           210/tcp         wais
iso-tsap        102/tcp         tsap
gopher          70/tcp
sctponly        9999/sctp
broken
";

const HOSTS: &str = "\
127.0.0.1 localhost
::1 localhost ip6-localhost
10.0.0.7 api.internal api
";

fn names() -> HostNames {
    HostNames {
        services: SERVICES.to_owned(),
        hosts: Some(HOSTS.to_owned()),
        ipv6_loopback: true,
        commands: vec!["doctor".to_owned(), "list".to_owned()],
        ..HostNames::default()
    }
}

/// What a target means: a question in each word, as an agent of `cluster` would get it, with
/// the interface behind it.
fn check(target: &str, expected: &str) {
    let queries = parse_target(target, &names()).unwrap();
    let all: Vec<String> = queries
        .iter()
        .map(|query| {
            let zone = query.zone.as_ref().map_or_else(String::new, |zone| format!("%{zone}"));
            format!("{}{zone}", crate::fleet::target(query))
        })
        .collect();
    assert_eq!(all.join(" "), expected, "{target}");
    if let [one] = queries.as_slice() {
        assert_eq!(one.text, target.trim());
    }
}

#[test]
fn every_form_is_understood() {
    check("30518", "30518");
    check(":30518", "30518");
    check("53/udp", "53/udp");
    check("8000-8010", "8000-8010");
    check("8000-8010/tcp", "8000-8010/tcp");
    check("127.0.0.1:80", "127.0.0.1:80");
    check("[::1]:80/udp", "[::1]:80/udp");
    check("0.0.0.0:80", "0.0.0.0:80");
    check("ssh", "22");
    check("www", "80");
    check("iso-tsap", "102");
    check("bootps/udp", "67/udp");
    check("10.0.0.1:http", "10.0.0.1:80");
    check("65535", "65535");
}

#[test]
fn what_people_paste_is_understood() {
    check("http://10.0.0.1:8080/x?y=z#1", "10.0.0.1:8080/tcp");
    check("http://10.0.0.1", "10.0.0.1:80/tcp");
    check("HTTPS://api/x:1", "10.0.0.7:443/tcp");
    check("https://user:pass@10.0.0.1/", "10.0.0.1:443/tcp");
    check("http://[fe80::1%eth0]:80/", "[fe80::1]:80/tcp%eth0");
    check("http://[::1]", "[::1]:80/tcp");
    check("postgres://db:x@10.0.0.1/name", "10.0.0.1:5432/tcp");
    check("tcp://0.0.0.0:2375", "0.0.0.0:2375/tcp");
    check("udp://10.0.0.1:53", "10.0.0.1:53/udp");
    check("gopher://10.0.0.1", "10.0.0.1:70/tcp");
    check("*:80", "80");
    check(":::80", "[::]:80");
    check(":::80/tcp", "[::]:80/tcp");
    check("[fe80::1%eth0]:80", "[fe80::1]:80%eth0");
    check("127.0.0.53%lo:53", "127.0.0.53:53%lo");
    check("tcp:80", "80/tcp");
    check("UDP:53", "53/udp");
    check("tcp/80", "80/tcp");
    check("tcp:10.0.0.1:80", "10.0.0.1:80/tcp");
    check("tcp:80/tcp", "80/tcp");
    check("0.0.0.0:8080->80/tcp", "0.0.0.0:8080/tcp");
    check("[::]:53->53/udp", "[::]:53/udp");
    check("80,443,8000-8010", "80 443 8000-8010");
    check("127.0.0.1:80,www/tcp", "127.0.0.1:80/tcp 127.0.0.1:80/tcp");
    check("tcp:80, 443", "80/tcp 443/tcp");
    check(" 80 ", "80");
}

#[test]
fn of_a_list_each_has_its_own_words() {
    let text = |target| {
        let all = parse_target(target, &names()).unwrap();
        all.into_iter().map(|query| query.text).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(text("80,443/tcp"), "80/tcp 443/tcp");
    assert_eq!(text("tcp:[::1]:80,81"), "[::1]:80/tcp [::1]:81/tcp");
}

#[test]
fn a_name_stands_for_all_its_addresses() {
    check("localhost:80/tcp", "[::1]:80/tcp 127.0.0.1:80/tcp");
    check("http://app.localhost:3000/", "[::1]:3000/tcp 127.0.0.1:3000/tcp");
    check("API.internal.:80", "10.0.0.7:80");
    let queries = parse_target("localhost:80,81", &names()).unwrap();
    let named = |query: &Query| query.name.as_ref().map(|n| (n.at, n.of, n.ordered));
    let all: Vec<_> = queries.iter().filter_map(named).collect();
    assert_eq!(all, [(0, 2, true), (1, 2, true), (0, 2, true), (1, 2, true)]);
}

#[test]
fn what_is_no_port_is_named_with_the_reason() {
    for (target, part) in [
        ("0", "out of range"),
        ("65536", "out of range"),
        ("99999999999999999999", "out of range"),
        ("-1", "out of range"),
        ("1-0", "out of range"),
        ("9000-8000", "use 8000-9000"),
        ("80/sctpx", "sctpx"),
        ("80/", "unknown protocol"),
        ("::1:80", "[::1]:80"),
        ("fe80::1", "port is missing"),
        ("fe80::1:80", "brackets"),
        ("::1", "the port is missing: [::1]:PORT"),
        ("2130706433:8080", "2130706433"),
        ("[::1]", "needs a port"),
        ("[::1]80", "needs a port"),
        ("[1.2.3.4]:80", "not an IPv6 address"),
        ("[fe80::1%]:80", "no name of an interface"),
        ("1.2.3.4", "port is missing"),
        ("1.2.3.4:", "port is missing"),
        ("1.2.3:80", "not an IP address"),
        ("10.0.0.0/8", "looks like a network"),
        ("example.org:80", "DNS is not asked; use its address (getent ahosts example.org)"),
        ("a;b:80", "(getent ahosts NAME)"),
        ("example.org", "a host, without a port: example.org:PORT"),
        ("api", "a host, without a port: api:PORT"),
        ("http://", "without a host"),
        ("foo://10.0.0.1", "no usual port"),
        ("80:30518/TCP", "two ports; ask for one of them: 80 or 30518"),
        ("*:*", "any port"),
        ("80,", "port is missing"),
        ("80,,81", "port is missing"),
        ("tcp:80/udp", "two protocols"),
        ("nosuch", "no service"),
        ("nginx", "of a process or container: --name nginx"),
        ("bootps/tcp", "for tcp"),
        ("", "port is missing"),
        ("sctponly", "no service"),
        ("lsit", "did you mean the command `list`?"),
        ("docter", "did you mean the command `doctor`?"),
    ] {
        let error = parse_target(target, &names()).unwrap_err().to_string();
        assert!(error.contains(part), "{target}: {error}");
        assert!(error.contains(&format!("{target:?}")), "{target}: {error}");
    }
    let many = ["80"; 65].join(",");
    assert!(parse_target(&many, &names()).unwrap_err().to_string().contains("more than 64"));
}

#[test]
fn a_path_or_an_abstract_name_is_a_unix_socket() {
    let of = |target| unix_target(target);
    assert_eq!(of("/run/docker.sock").as_deref(), Some("/run/docker.sock"));
    assert_eq!(of("unix:///run/docker.sock").as_deref(), Some("/run/docker.sock"));
    assert_eq!(of("unix:/run/x").as_deref(), Some("/run/x"));
    assert_eq!(of("@/tmp/x-1").as_deref(), Some("@/tmp/x-1"));
    for other in ["80", "run/x", "./x.sock", "@", "file:///run/x", "unix://", "80/tcp", "me@host"] {
        assert_eq!(of(other), None, "{other}");
    }
    for target in ["./x.sock", "file:///run/x", "~/x"] {
        let error = parse_target(target, &names()).unwrap_err().to_string();
        assert!(error.contains("looks like a path"), "{error}");
    }
}

#[test]
fn a_password_is_not_repeated() {
    let error = parse_target("redis://me:secret@nowhere.example", &names()).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn no_name_is_known_of_a_recording() {
    let names = HostNames { services: SERVICES.to_owned(), ..HostNames::default() };
    let error = parse_target("api:80", &names).unwrap_err().to_string();
    assert!(error.contains("not known of a recording"), "{error}");
    assert_eq!(parse_target("localhost:80", &names).unwrap().len(), 2);
}

#[test]
fn letters_that_differ_are_counted() {
    for (one, other, expected) in
        [("list", "list", 0), ("lsit", "list", 1), ("lis", "list", 1), ("", "man", 3)]
    {
        assert_eq!(distance(one, other), expected, "{one} {other}");
    }
}
