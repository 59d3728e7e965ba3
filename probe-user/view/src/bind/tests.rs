use super::*;
use crate::fixtures::{HOST, HOSTILE, host, netns};
use whereis_port_model::{BindAsk, Port, PortRange, Proto};

fn bind() -> Bind {
    Bind {
        text: "8080/tcp".into(),
        zone: None,
        ask: BindAsk::server(HOST, Proto::Tcp, "::".parse().unwrap(), Port(8080)),
        everywhere: true,
        netns: netns(HOST, "host"),
        predicted: Some(true),
        error: None,
        notes: Vec::new(),
        held: Vec::new(),
        more_held: 0,
        fix: None,
        tried: None,
        gaps: Vec::new(),
    }
}

fn show(bind: Bind) -> String {
    text(&[bind], &host(), &Style::PLAIN, false, &[])
}

#[test]
fn what_becomes_of_it_comes_first() {
    assert_eq!(show(bind()), "8080/tcp at all addresses: a bind works\n");
    let failing =
        Bind { predicted: Some(false), error: Some(BindError::InUse), everywhere: false, ..bind() };
    let said = show(failing.clone());
    assert_eq!(said, "[::]:8080/tcp: a bind fails: the address is in use (EADDRINUSE)\n");
    let tried = Bind { tried: Some(Ok(())), ..failing };
    assert!(tried.is_wrong());
    let said = show(tried);
    assert!(said.starts_with("[::]:8080/tcp: a bind works, as was tried\n"), "{said}");
    assert!(said.contains("say that it fails"), "{said}");
    let unknown = Bind { predicted: None, notes: vec![BindNote::OptionsNotKnown], ..bind() };
    assert!(show(unknown).contains("not known whether a bind works"));
}

#[test]
fn what_comes_from_outside_is_made_safe() {
    let notes = vec![
        BindNote::TakenByRules(HOSTILE.into()),
        BindNote::Ephemeral(PortRange { first: Port(1), last: Port(9) }),
    ];
    let said = show(Bind { notes, ..bind() });
    assert!(!said.contains('\u{1b}') && said.lines().count() == 3, "{said:?}");
}
