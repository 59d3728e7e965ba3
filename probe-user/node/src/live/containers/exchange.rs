//! One question to a daemon of which no library knows the API, in one piece.

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::super::asking::{ConnectionTasks, DaemonFailure, SocketPeer};
use super::super::reader::OpenedSocket;
use whereis_port_model::Pod;

/// Sends a question to who listens at a socket, if it is who is meant, and reads until the
/// connection ends, at most `limit` bytes.
pub(super) async fn exchange(
    socket: &OpenedSocket,
    connections: &ConnectionTasks,
    limit: usize,
    is_meant: impl FnOnce(SocketPeer) -> Result<(), DaemonFailure>,
    question: &[u8],
) -> Result<Vec<u8>, DaemonFailure> {
    let stream = UnixStream::from_std(socket.connect().map_err(std::io::Error::from)?)?;
    is_meant(SocketPeer::of(&stream)?)?;
    let mut stream = connections.limited(stream, limit);
    stream.write_all(question).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// The body of an answer of HTTP 1.0, which comes in one piece, if it is a good one.
pub(super) fn body(answer: &[u8]) -> Option<&[u8]> {
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let status = answer.get(..at)?.split(|b| *b == b' ').nth(1)?;
    (status == b"200").then_some(())?;
    answer.get(at + 4..)
}

/// Containers, by their ids, and the pod that each is in.
pub(super) type Pods = Vec<(String, Pod)>;

/// What Podman is asked for the pods of its containers: Docker's API has none.
pub(super) const PODS: &[u8] =
    b"GET /v4.0.0/libpod/containers/json?all=true HTTP/1.0\r\nHost: d\r\n\r\n";

/// The pods in its answer, with the container that is in each.
pub(super) fn pods(answer: &[u8]) -> Option<Pods> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Listed {
        id: String,
        #[serde(default)]
        pod: String,
        #[serde(default)]
        pod_name: String,
    }
    let all: Vec<Listed> = serde_json::from_slice(body(answer)?).ok()?;
    let pod = |one: Listed| {
        let name = Some(one.pod_name).filter(|name| !name.is_empty());
        let pod = Pod { name, uid: Some(one.pod), ..Pod::default() };
        (one.id, pod)
    };
    Some(all.into_iter().filter(|one| !one.pod.is_empty()).map(pod).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_podman_are_told_by_container() {
        // As podman 4.3.1 gave it, shortened.
        let body = r#"[{"Id":"a1","Names":["3f-infra"],"IsInfra":true,"Pod":"3f","PodName":"mypod"},{"Id":"b2","Names":["x"],"Pod":"","PodName":""}]"#;
        let answer = format!("HTTP/1.0 200 OK\r\nLibpod-Api-Version: 4.3.1\r\n\r\n{body}");
        let found = pods(answer.as_bytes()).unwrap();
        let [(id, pod)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((id.as_str(), pod.name.as_deref()), ("a1", Some("mypod")));
        assert_eq!((pod.uid.as_deref(), &pod.namespace), (Some("3f"), &None));
        for damaged in ["", "HTTP/1.0 404 Not Found\r\n\r\n[]", "HTTP/1.0 200 OK\r\n\r\n{"] {
            assert!(pods(damaged.as_bytes()).is_none(), "{damaged}");
        }
    }
}
