//! Who connects, as typed behind `--from`.

use std::net::IpAddr;

use crate::model::Origin;

/// Understands `pod:NAMESPACE/NAME`, `container:NAME`, `pid:N`, `netns:NAME`, an address, or the
/// name of a device.
///
/// # Errors
/// Says what is wrong, and what can be written.
pub fn parse_origin(text: &str) -> Result<Origin, String> {
    let text = text.trim();
    let name = |what: &str, name: &str| match name.trim() {
        "" => Err(format!("{what} needs a name: {what}:NAME")),
        name => Ok(name.to_owned()),
    };
    if let Some((kind, rest)) = text.split_once(':') {
        match kind {
            "pod" => {
                return match rest.split_once('/') {
                    None => Ok(Origin::Pod(None, name("pod", rest)?)),
                    Some((namespace, pod)) if !pod.contains('/') => {
                        Ok(Origin::Pod(Some(name("pod", namespace)?), name("pod", pod)?))
                    }
                    Some(_) => Err(format!("{rest:?} is no pod: write pod:NAMESPACE/NAME")),
                };
            }
            "container" => return Ok(Origin::Container(name(kind, rest)?)),
            "netns" => return Ok(Origin::Netns(name(kind, rest)?)),
            "pid" => {
                let pid = rest.parse().ok().filter(|pid| *pid != 0);
                return pid
                    .map(Origin::Process)
                    .ok_or_else(|| format!("{rest:?} is no process id: write pid:1234"));
            }
            _ => {}
        }
    }
    let address = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = address.parse::<IpAddr>() {
        return Ok(Origin::Address(address));
    }
    // IFNAMSIZ with its NUL; the kernel refuses these characters.
    let is_device = |text: &str| {
        !text.is_empty()
            && text.len() < 16
            && !text.contains(|c: char| c.is_whitespace() || matches!(c, '/' | ':'))
    };
    if is_device(text) {
        return Ok(Origin::Device(text.to_owned()));
    }
    Err(format!(
        "{text:?} is no sender: write pod:NAMESPACE/NAME, container:NAME, pid:N, netns:NAME, an address, or the name of a device"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_understood_or_refused_with_a_hint() {
        let pod =
            |ns: Option<&str>, name: &str| Origin::Pod(ns.map(str::to_owned), name.to_owned());
        for (text, origin) in [
            ("pod:shop/cart-1", pod(Some("shop"), "cart-1")),
            ("pod:cart-1", pod(None, "cart-1")),
            ("container:web", Origin::Container("web".to_owned())),
            ("pid:12", Origin::Process(12)),
            ("netns:blue", Origin::Netns("blue".to_owned())),
            ("192.0.2.7", Origin::Address("192.0.2.7".parse().unwrap())),
            ("[2001:db8::1]", Origin::Address("2001:db8::1".parse().unwrap())),
            ("eth0.100", Origin::Device("eth0.100".to_owned())),
        ] {
            assert_eq!(parse_origin(text), Ok(origin), "{text}");
        }
        for text in ["", "pod:", "pod:a/b/c", "pid:x", "pid:0", "netns:", "a b", "service:web"] {
            let error = parse_origin(text).unwrap_err();
            assert!(error.contains("write") || error.contains("needs a name"), "{text}: {error}");
        }
    }
}
