//! Programs that pass ports on into a virtual machine. What is inside of it is not seen from here.

use crate::{Port, PortRange, Proto};

use super::text::{self, BindAddress};
use super::{ForwardTarget, ForwarderLine, Mapping, Word};

/// Recognises by the program's file name.
pub(super) fn recognise(name: &str, args: &[String]) -> Option<ForwarderLine> {
    Some(match name {
        "gvproxy" => unsaid("gvproxy", "which port of it is only told by its API socket", args),
        // Of Lima, and of Colima, which runs it. It resolves names for the machine as well.
        "limactl" if args.iter().any(|arg| arg == "hostagent") => {
            let mut line = unsaid(
                "limactl hostagent",
                "which port of it, or whether it resolves names for it here, is not told",
                args,
            );
            line.words = vec![Word::keep("hostagent")];
            line
        }
        "qemu-kvm" => qemu(args)?,
        name if name.starts_with("qemu-system-") => qemu(args)?,
        _ => return None,
    })
}

fn unsaid(kind: &'static str, instead: &'static str, args: &[String]) -> ForwarderLine {
    let mut line = ForwarderLine::unsaid(kind, "", args);
    for mapping in &mut line.mappings {
        mapping.target = ForwardTarget::Machine(None, Proto::Tcp, instead);
    }
    line
}

/// `qemu-system-x86_64 … -netdev user,id=n0,hostfwd=tcp:127.0.0.1:2222-:22`; `-nic` and `-net` alike.
/// What is added later by its monitor is not there.
fn qemu(args: &[String]) -> Option<ForwarderLine> {
    let (mut mappings, mut words) = (Vec::new(), Vec::new());
    for pair in args.windows(2) {
        let [option, value] = pair else { continue };
        let option = option.trim_start_matches('-');
        if !matches!(option, "netdev" | "nic" | "net") || !value.starts_with("user") {
            continue;
        }
        for rule in value.split(',').filter_map(|part| part.strip_prefix("hostfwd=")) {
            if let Some((mapping, word)) = hostfwd(rule) {
                mappings.push(mapping);
                words.extend([Word::keep("-netdev"), word]);
            }
        }
    }
    (!mappings.is_empty()).then_some(ForwarderLine { kind: "QEMU", mappings, words })
}

/// `[tcp|udp]:[HOST]:PORT-[GUEST]:PORT`.
fn hostfwd(rule: &str) -> Option<(Mapping, Word)> {
    let (from, to) = rule.rsplit_once('-')?;
    let (proto, from) = from.split_once(':')?;
    let proto = match proto {
        "" => Proto::Tcp,
        name => Proto::ALL.into_iter().find(|proto| proto.as_str() == name)?,
    };
    let (host, port) = text::host_port(from)?;
    let (guest, inner) = text::host_port(to)?;
    let (port, inner): (Port, Port) = (text::port(port)?, text::port(inner)?);
    let mapping = Mapping {
        proto: Some(proto),
        bind: BindAddress::from(host),
        ports: Some(PortRange::one(port)),
        except: Vec::new(),
        target: ForwardTarget::Machine(
            Some(inner),
            proto,
            "what takes it there is not seen from here",
        ),
        screens: Vec::new(),
        quote: text::quote([rule]),
    };
    let mut word = Word::keep(format_args!("user,hostfwd={proto}:")).then_bracketed(host);
    word = word.then(format_args!(":{port}-")).then_bracketed(guest).then(format_args!(":{inner}"));
    Some((mapping, word))
}
