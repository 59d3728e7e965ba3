//! Listeners that speak no TLS, or nothing at all.

use std::io::Write as _;
use std::net::TcpListener;
use std::time::Instant;

use super::*;

fn begun(listener: &TcpListener) -> PeerStream {
    let address = listener.local_addr().unwrap();
    Ok((super::super::socket(false).unwrap(), address))
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// What is said of a listener that greets with `bytes` and closes.
fn greeted(bytes: &'static [u8]) -> String {
    let listener = listener();
    let begun = begun(&listener);
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(bytes).unwrap();
        // So that closing does not take back what was sent.
        let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
    });
    let said = all(vec![begun]).remove(0).unwrap_err();
    server.join().unwrap();
    said
}

#[test]
fn what_is_no_tls_is_said_to_be_none() {
    assert_eq!(greeted(b"SSH-2.0-OpenSSH_9.2p1\r\n"), "what it sends is not TLS");
    assert_eq!(greeted(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "what it sends is not TLS");
    assert!(greeted(b"").contains("does not speak TLS"));
}

#[test]
fn silent_listeners_are_waited_for_together_and_not_for_long() {
    let silent: Vec<TcpListener> = (0..20).map(|_| listener()).collect();
    let since = Instant::now();
    let said = all(silent.iter().map(begun).collect());
    assert!(said.iter().all(|said| said.as_ref().unwrap_err().contains("silent")), "{said:?}");
    // One after the other they would take twenty times as long.
    assert!(since.elapsed() < TIME * 10, "{:?}", since.elapsed());
}

#[test]
fn a_listener_that_is_gone_is_said_to_refuse() {
    let listener = listener();
    let begun = begun(&listener);
    drop(listener);
    let said = all(vec![begun, Err("no way in".to_owned())]);
    assert!(said[0].as_ref().unwrap_err().contains("can't be connected to"), "{said:?}");
    assert_eq!(said[1], Err("no way in".to_owned()));
}
