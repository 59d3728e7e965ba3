//! Watches one API: each kind of object is listed, and then what changes is told.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::cache::SharedStore;
use super::client::{ApiFailure, first_line};
use super::config::ContextConfig;
use super::fetch::{self, NO_SUCH_KIND, part, understood};
use super::parse::{self, Object};
use super::store::{ListState, ObjectCache, Store};

/// How long logging in and a whole list may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the beginning of a watch may take.
const BEGINNING: Duration = Duration::from_secs(15);
/// For how long the API is asked to tell of changes, in seconds; then it is asked again.
const TURN: u64 = 240;
/// After what was refused nothing else is expected soon.
const REFUSED: Duration = Duration::from_secs(300);
/// What has worked for so long begins anew without a pause to speak of.
const WELL: Duration = Duration::from_secs(30);
/// The most that is kept of one kind. With more the API is asked for what is needed.
const MOST: usize = 20_000;
/// The same for pods, the largest of them.
const MOST_PODS: usize = 5_000;
/// The longest that one object may be, in bytes. The API's own limit is less.
const LONGEST: usize = 8 << 20;

/// A kind of object that is watched, and how it is listed.
struct WatchedKind<O: Object> {
    name: &'static str,
    /// Where it is; of several that an API may have, the newest first.
    paths: &'static [&'static str],
    most: usize,
    of: fn(&mut Store) -> &mut ObjectCache<O::Model>,
}

/// Watches an API until the runtime ends.
pub(super) async fn watch(entry: ContextConfig, shared: SharedStore) {
    let mut pause = Pause::default();
    loop {
        let begun = Instant::now();
        let failure = match super::connect(&entry, std::time::Instant::now() + PATIENCE).await {
            Ok(client) => kinds(&client, &shared).await,
            Err(failure) => failure,
        };
        let why = failure.explained(&entry).gap(&entry.context).reason;
        shared.change(|store| {
            store.fail(&why);
            true
        });
        sleep(pause.after(begun.elapsed())).await;
    }
}

/// Watches every kind, until something fails that would fail for all of them.
async fn kinds(client: &kube::Client, shared: &SharedStore) -> ApiFailure {
    let services = WatchedKind::<parse::Service> {
        name: "services",
        paths: &["/api/v1/services"],
        most: MOST,
        of: |store| &mut store.services,
    };
    let slices = WatchedKind::<parse::Slice> {
        name: "endpointslices",
        paths: &[
            "/apis/discovery.k8s.io/v1/endpointslices",
            "/apis/discovery.k8s.io/v1beta1/endpointslices",
        ],
        most: MOST,
        of: |store| &mut store.slices,
    };
    let pods = WatchedKind::<parse::Pod> {
        name: "pods",
        paths: &["/api/v1/pods"],
        most: MOST_PODS,
        of: |store| &mut store.pods,
    };
    let nodes = WatchedKind::<parse::Node> {
        name: "nodes",
        paths: &["/api/v1/nodes"],
        most: MOST,
        of: |store| &mut store.nodes,
    };
    tokio::select! {
        failure = services.keep(client, shared) => failure,
        failure = slices.keep(client, shared) => failure,
        failure = pods.keep(client, shared) => failure,
        failure = nodes.keep(client, shared) => failure,
    }
}

impl<O: Object> WatchedKind<O> {
    /// Keeps one kind, until something fails that concerns others, too.
    async fn keep(&self, client: &kube::Client, shared: &SharedStore) -> ApiFailure {
        let mut pause = Pause::default();
        loop {
            let begun = Instant::now();
            let mut wait = None;
            let state = match self.once(client, shared).await {
                Ok(()) => ListState::Reading,
                Err(failure) if failure.is_lasting() => return failure,
                Err(failure) => {
                    let refused = matches!(failure, ApiFailure::Forbidden(..) | ApiFailure::TooBig);
                    wait = refused.then_some(REFUSED);
                    ListState::Asked(self.told(&failure))
                }
            };
            shared.change(|store| {
                (self.of)(store).forget(state);
                true
            });
            sleep(wait.unwrap_or_else(|| pause.after(begun.elapsed()))).await;
        }
    }

    /// Why it is asked for instead.
    fn told(&self, failure: &ApiFailure) -> String {
        match failure {
            ApiFailure::Forbidden(verb, what) => format!("it refuses to {verb} {what}"),
            ApiFailure::TooBig => format!("more than {} {} are not kept", self.most, self.name),
            ApiFailure::Garbage(what) => format!("{}: {what}", self.name),
            _ => format!("{} could not be watched", self.name),
        }
    }

    /// Lists, and follows what changes until the API does not remember from where.
    async fn once(&self, client: &kube::Client, shared: &SharedStore) -> Result<(), ApiFailure> {
        let (path, mut version) = self.list(client, shared).await?;
        loop {
            let begun = Instant::now();
            if !self.follow(client, shared, path, &mut version).await? {
                return Ok(());
            }
            if begun.elapsed() < Pause::SHORTEST {
                sleep(Pause::SHORTEST).await;
            }
        }
    }

    /// Lists all, and gives where that was and its version.
    async fn list(
        &self,
        client: &kube::Client,
        shared: &SharedStore,
    ) -> Result<(&'static str, String), ApiFailure> {
        let make = |object: O| {
            let name = object.name();
            object.model().map(|model| (name, model))
        };
        for path in self.paths {
            let list = fetch::list_at(client, path, "", self.name, make, self.most);
            match timeout(PATIENCE, list).await.unwrap_or(Err(ApiFailure::Timeout)) {
                Ok((all, version)) => {
                    shared.change(|store| {
                        (self.of)(store).replace(all.into_iter().flatten().collect())
                    });
                    return Ok((path, version));
                }
                Err(ApiFailure::Garbage(what)) if what == NO_SUCH_KIND => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(ApiFailure::Garbage(NO_SUCH_KIND.to_owned()))
    }

    /// Follows what changes from a version on. Whether it can go on from the last one that was
    /// told.
    async fn follow(
        &self,
        client: &kube::Client,
        shared: &SharedStore,
        path: &str,
        version: &mut String,
    ) -> Result<bool, ApiFailure> {
        let address = format!(
            "{path}?watch=1&allowWatchBookmarks=true&timeoutSeconds={TURN}&resourceVersion={}",
            part(version)
        );
        let answer = timeout(BEGINNING, fetch::send(client, &address)).await;
        let response = answer.unwrap_or(Err(ApiFailure::Timeout))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::GONE => return Ok(false),
            _ => {
                let read = timeout(BEGINNING, fetch::read(response)).await;
                let (status, body) = read.unwrap_or(Err(ApiFailure::Timeout))?;
                return Err(fetch::refused(status, &body, "watch", self.name));
            }
        }
        shared.change(|store| {
            let kept = (self.of)(store);
            std::mem::replace(&mut kept.state, ListState::Watched) != ListState::Watched
        });
        let until = Instant::now() + Duration::from_secs(TURN) + BEGINNING;
        let mut body = response.into_body();
        let mut lines = Lines::default();
        loop {
            // However a turn ends: whether the API is still there shows at the next one.
            let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await else {
                return Ok(true);
            };
            let Ok(data) = frame.into_data() else { continue };
            lines.push(&data)?;
            while let Some(line) = lines.next() {
                match event::<O>(&line)? {
                    WatchEvent::Object { object, gone } => {
                        object.version().clone_into(version);
                        let name = object.name();
                        let model = if gone { None } else { object.model() };
                        shared.change(|store| (self.of)(store).put(name, model));
                    }
                    WatchEvent::Version(newer) => *version = newer,
                    WatchEvent::Expired => return Ok(false),
                }
            }
            if (self.of)(&mut shared.store()).len() > self.most {
                return Err(ApiFailure::TooBig);
            }
        }
    }
}

/// The times between one try and the next: longer each time, until something has worked.
#[derive(Debug, Default)]
struct Pause(Duration);

impl Pause {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(30);

    /// The pause after something that has lasted so long.
    fn after(&mut self, lasted: Duration) -> Duration {
        let next = if lasted > WELL { Self::SHORTEST } else { self.0 * 2 };
        self.0 = next.clamp(Self::SHORTEST, Self::LONGEST);
        self.0
    }
}

/// The lines of a stream that comes in pieces.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    /// Where no end of a line is before.
    from: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) -> Result<(), ApiFailure> {
        self.bytes.extend_from_slice(piece);
        // Whole lines are taken out before more comes.
        if self.bytes.len() > LONGEST + piece.len() {
            return Err(ApiFailure::Garbage("an object is larger than is read".to_owned()));
        }
        Ok(())
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let rest = self.bytes.get(self.from..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            self.from = self.bytes.len();
            return None;
        };
        let line = self.bytes.drain(..=self.from + end).collect();
        self.from = 0;
        Some(line)
    }
}

/// What a watch tells.
enum WatchEvent<O> {
    /// An object is new, has changed, or is gone.
    Object { object: O, gone: bool },
    /// Everything up to this version was told.
    Version(String),
    /// What came after the version that was asked for is not known any more.
    Expired,
}

fn event<O: Object>(line: &[u8]) -> Result<WatchEvent<O>, ApiFailure> {
    #[derive(Deserialize)]
    struct Head {
        r#type: String,
    }
    #[derive(Deserialize)]
    struct Rest<T> {
        object: T,
    }
    #[derive(Deserialize)]
    struct Marked {
        metadata: Bookmark,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Bookmark {
        resource_version: String,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct WatchStatus {
        code: u16,
        message: String,
    }
    let head: Head = understood(line)?;
    match head.r#type.as_str() {
        kind @ ("ADDED" | "MODIFIED" | "DELETED") => {
            let rest: Rest<O> = understood(line)?;
            Ok(WatchEvent::Object { object: rest.object, gone: kind == "DELETED" })
        }
        "BOOKMARK" => {
            let rest: Rest<Marked> = understood(line)?;
            Ok(WatchEvent::Version(rest.object.metadata.resource_version))
        }
        "ERROR" => {
            let Rest { object: WatchStatus { code, message } } = understood(line)?;
            if code == StatusCode::GONE.as_u16() {
                return Ok(WatchEvent::Expired);
            }
            Err(ApiFailure::Garbage(first_line(&format!("{code} {message}"))))
        }
        other => Err(ApiFailure::Garbage(first_line(&format!("an event {other:?}")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart() {
        let service = r#""object":{"metadata":{"name":"shop","namespace":"web",
            "resourceVersion":"12"},"spec":{"ports":[{"port":80,"nodePort":30080}]}}}"#;
        for (kind, is_gone) in [("ADDED", false), ("MODIFIED", false), ("DELETED", true)] {
            let line = format!(r#"{{"type":"{kind}",{service}"#);
            let Ok(WatchEvent::Object { object, gone }) = event::<parse::Service>(line.as_bytes())
            else {
                panic!("{line}")
            };
            assert_eq!((object.version(), gone), ("12", is_gone));
            assert_eq!(object.name().to_string(), "web/shop");
        }
        let event = |text: &str| event::<parse::Pod>(text.as_bytes());
        let mark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"99"}}}"#;
        assert!(matches!(event(mark), Ok(WatchEvent::Version(version)) if version == "99"));
        let old = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        assert!(matches!(event(old), Ok(WatchEvent::Expired)));
        for bad in [r#"{"type":"ERROR","object":{"code":500}}"#, r#"{"type":"X"}"#, "x", "{}"] {
            assert!(matches!(event(bad), Err(ApiFailure::Garbage(_))), "{bad}");
        }
    }

    #[test]
    fn lines_come_in_any_pieces() {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        for piece in ["{\"a\"", ":1}", "\n{\"b\":2}\n{", "\"c\":3}\n"] {
            lines.push(piece.as_bytes()).unwrap();
            while let Some(line) = lines.next() {
                got.push(String::from_utf8(line).unwrap().trim().to_owned());
            }
        }
        assert_eq!(got, [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]);
        let piece = vec![b'x'; 1 << 20];
        let pushed = (0..32).try_for_each(|_| lines.push(&piece));
        assert!(matches!(pushed, Err(ApiFailure::Garbage(_))), "a line without end is given up");
        assert!(lines.bytes.len() < 2 * LONGEST);
    }

    #[test]
    fn pauses_grow_until_something_works() {
        let mut pause = Pause::default();
        let short = Duration::from_millis(3);
        let pauses: Vec<u64> = (0..7).map(|_| pause.after(short).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pause.after(Duration::from_secs(60)).as_secs(), 1);
        assert_eq!(pause.after(short).as_secs(), 2);
    }
}
