//! Exec over WebSocket, by the subprotocols `v5.channel.k8s.io` and `v4.channel.k8s.io`.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::{Answer, Does, Has, Shared, refusal};

/// Channels of the protocol.
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;

/// How much one message carries, as the kubelet does it.
const CHUNK: usize = 32 << 10;

pub(super) fn reply(mut request: Request<Incoming>, pod: &str, shared: Arc<Shared>) -> Answer {
    let node = pod.strip_prefix("whereis-port-agent-").unwrap_or_default();
    let Some(Has::Agent(does)) = shared.nodes.get(node) else {
        return refusal(404, &format!("pods \"{pod}\" not found"));
    };
    let does = does.clone();
    if let Does::Refused(code, message) = &does {
        return refusal(*code, message);
    }
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let offered = header("sec-websocket-protocol").unwrap_or_default();
    // Half of the nodes are behind an API server that knows the older protocol only.
    let older = node.ends_with(['1', '3', '5', '7', '9']);
    let protocol = if older { "v4.channel.k8s.io" } else { "v5.channel.k8s.io" };
    let Some(key) = header("sec-websocket-key").filter(|_| offered.contains(protocol)) else {
        return refusal(400, "Upgrade request required");
    };
    let accept = derive_accept_key(key.as_bytes());
    let query = request.uri().query().unwrap_or_default();
    let command = query.split('&').filter_map(|pair| pair.strip_prefix("command="));
    let command: Vec<String> = command.map(decoded).collect();
    shared.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let now = shared.now.fetch_add(1, Ordering::SeqCst) + 1;
        shared.peak.fetch_max(now, Ordering::SeqCst);
        if let Ok(upgraded) = upgrade.await {
            let stream = TokioIo::new(upgraded);
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            // A client that goes away ends this.
            let _ = Box::pin(act(&mut socket, does)).await;
        }
        shared.now.fetch_sub(1, Ordering::SeqCst);
    });
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    headers.insert("connection", HeaderValue::from_static("Upgrade"));
    headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert("sec-websocket-accept", accept);
    }
    answer
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;
type Done = Result<(), tokio_tungstenite::tungstenite::Error>;

async fn act(socket: &mut Socket, mut does: Does) -> Done {
    while let Does::After(time, then) = does {
        tokio::time::sleep(time).await;
        does = *then;
    }
    match does {
        Does::Says(text, code) => {
            write(socket, STDOUT, text.as_bytes()).await?;
            end(socket, status(code)).await
        }
        Does::Complains(text, code) => {
            write(socket, STDERR, text.as_bytes()).await?;
            end(socket, status(code)).await
        }
        Does::BreaksOff(text) => {
            let half = text.as_bytes().get(..text.len() / 2).unwrap_or_default();
            write(socket, STDOUT, half).await
        }
        Does::Babbles => loop {
            write(socket, STDOUT, &[b' '; CHUNK]).await?;
        },
        Does::HasNoTool => {
            let message = "error executing command in container: exec: \"whereis-port\": executable file not found in $PATH: unknown";
            end(socket, json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500})).await
        }
        Does::Hangs | Does::After(..) | Does::Refused(..) => {
            // Until the client goes away.
            while let Some(Ok(_)) = socket.next().await {}
            tokio::time::sleep(Duration::ZERO).await;
            Ok(())
        }
    }
}

async fn write(socket: &mut Socket, channel: u8, bytes: &[u8]) -> Done {
    for chunk in bytes.chunks(CHUNK) {
        let mut message = vec![channel];
        message.extend_from_slice(chunk);
        socket.send(Message::binary(message)).await?;
    }
    Ok(())
}

async fn end(socket: &mut Socket, status: Value) -> Done {
    write(socket, STATUS, status.to_string().as_bytes()).await?;
    socket.close(None).await
}

fn status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
}

/// A value of a query, as it was before it was put there.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex: Option<String> =
            (byte == b'%').then(|| rest.by_ref().take(2).map(char::from).collect());
        bytes.push(match hex.map(|hex| u8::from_str_radix(&hex, 16)) {
            Some(Ok(byte)) => byte,
            _ if byte == b'+' => b' ',
            _ => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
