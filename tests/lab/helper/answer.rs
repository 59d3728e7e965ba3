//! Servers that say who they are.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Answers everybody with `word`, each socket in a thread of its own.
pub(crate) fn serve(sockets: Vec<OwnedFd>, binds: &[(String, SocketAddr)], word: &str) {
    for (socket, (proto, _)) in sockets.into_iter().zip(binds) {
        let word = word.to_owned();
        if proto == "tcp" {
            std::thread::spawn(move || tcp(&socket.into(), &word));
        } else {
            std::thread::spawn(move || udp(&socket.into(), &word));
        }
    }
}

fn tcp(listener: &TcpListener, word: &str) {
    loop {
        // A client that has gone already wants no answer.
        match listener.accept() {
            Ok((mut client, _)) => drop(client.write_all(word.as_bytes())),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn udp(socket: &UdpSocket, word: &str) {
    let mut message = [0_u8; 512];
    loop {
        match socket.recv_from(&mut message) {
            Ok((_, client)) => drop(socket.send_to(word.as_bytes(), client)),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
