//! What the server says to a request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::objects::Object;
use super::{Access, Shared, Slices, TOKEN, lock};

/// An answer's body: some bytes, and perhaps more without end, or what is told later.
pub(super) struct Said {
    rest: Option<Bytes>,
    endless: bool,
    events: Option<UnboundedReceiver<Bytes>>,
}

impl Body for Said {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let rest = self.rest.take().filter(|bytes| !bytes.is_empty());
        if let (None, Some(events)) = (&rest, &mut self.events) {
            return events.poll_recv(context).map(|next| next.map(|bytes| Ok(Frame::data(bytes))));
        }
        let next = match rest {
            None if self.endless => Some(Bytes::from(vec![b' '; 1 << 20])),
            rest => rest,
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// What a path asks for.
struct Asked<'a> {
    access: Access<'a>,
    /// The API's version.
    version: &'a str,
    name: Option<&'a str>,
}

pub(super) async fn reply(
    request: Request<Incoming>,
    shared: Arc<Mutex<Shared>>,
) -> Result<Response<Said>, Infallible> {
    let weather = {
        let mut shared = lock(&shared);
        shared.asked.push(request.uri().to_string());
        shared.weather.clone()
    };
    if weather.hang {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(weather.delay).await;
    let mut events = None;
    let token = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let (status, body) = if token == Some(&format!("Bearer {TOKEN}")) {
        let mut shared = lock(&shared);
        let answer = answer(&request, &mut shared);
        if answer.0 == StatusCode::OK && is_watch(&request) {
            events = shared.watch(request.uri().path());
        }
        answer
    } else {
        error(StatusCode::UNAUTHORIZED, "Unauthorized")
    };
    let mut response = Response::new(Said {
        rest: Some(Bytes::from(body)),
        endless: weather.endless && status == StatusCode::OK,
        events,
    });
    *response.status_mut() = status;
    Ok(response)
}

fn is_watch(request: &Request<Incoming>) -> bool {
    query(request.uri().query().unwrap_or_default()).contains_key("watch")
}

fn error(status: StatusCode, message: &str) -> (StatusCode, String) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message,
        "code": status.as_u16(),
    });
    (status, body.to_string())
}

fn answer(request: &Request<Incoming>, shared: &mut Shared) -> (StatusCode, String) {
    let unknown =
        || error(StatusCode::NOT_FOUND, "the server could not find the requested resource");
    if request.uri().path() == "/version" {
        return (StatusCode::OK, json!({"gitVersion": "v1.33.0"}).to_string());
    }
    if let Some(said) = discovery(request.uri().path()) {
        return (StatusCode::OK, said.to_string());
    }
    let Some(mut asked) = understood(request.uri().path()) else { return unknown() };
    if is_watch(request) {
        asked.access.verb = "watch";
    }
    let mut kind = asked.access.kind.to_owned();
    if kind == "endpointslices" {
        match (shared.weather.slices, asked.version) {
            (Slices::V1, "v1") => {}
            (Slices::V1Beta1, "v1beta1") => kind.push_str(".v1beta1"),
            _ => return unknown(),
        }
    }
    let Access { verb, kind: what, namespace } = asked.access;
    if !(shared.allows)(asked.access) {
        let message =
            format!("{what} is forbidden: User \"ann\" cannot {verb} resource \"{what}\"");
        return error(StatusCode::FORBIDDEN, &message);
    }
    let query = query(request.uri().query().unwrap_or_default());
    if query.contains_key("continue") && shared.weather.gone > 0 {
        shared.weather.gone -= 1;
        return error(StatusCode::GONE, "The provided continue parameter is too old");
    }
    if verb == "watch" {
        if shared.weather.expired == 0 {
            return (StatusCode::OK, String::new());
        }
        shared.weather.expired -= 1;
        let (_, status) = error(StatusCode::GONE, "too old resource version");
        return (StatusCode::OK, format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n"));
    }
    let Some(objects) = shared.stored.of(&kind) else { return unknown() };
    let objects = objects.iter().filter(|o| namespace.is_none_or(|wanted| o.namespace == wanted));
    if let Some(name) = asked.name {
        let found = objects.into_iter().find(|object| object.name == name);
        return match found {
            Some(object) => (StatusCode::OK, object.json.clone()),
            None => error(StatusCode::NOT_FOUND, &format!("{what} \"{name}\" not found")),
        };
    }
    let body = list(&objects.collect::<Vec<_>>(), &query);
    if shared.weather.truncated {
        let half: String = body.chars().take(body.len() / 2).collect();
        return (StatusCode::OK, half);
    }
    (StatusCode::OK, body)
}

/// What there is, as kubectl asks before it asks for anything else.
fn discovery(path: &str) -> Option<Value> {
    let resource = |name: &str, kind: &str, namespaced: bool, short: &[&str]| {
        json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind,
               "verbs": ["get", "list"], "shortNames": short})
    };
    let discovery = json!({"groupVersion": "discovery.k8s.io/v1", "version": "v1"});
    match path {
        "/api" => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [{
            "name": "discovery.k8s.io", "versions": [discovery], "preferredVersion": discovery,
        }]})),
        "/api/v1" => Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [
                resource("services", "Service", true, &["svc"]),
                resource("pods", "Pod", true, &["po"]),
                resource("nodes", "Node", false, &["no"]),
            ],
        })),
        "/apis/discovery.k8s.io/v1" => Some(json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "discovery.k8s.io/v1",
            "resources": [resource("endpointslices", "EndpointSlice", true, &[])],
        })),
        _ => None,
    }
}

/// `/api/v1/pods`, `/apis/GROUP/VERSION/namespaces/NAMESPACE/KIND/NAME`.
fn understood(path: &str) -> Option<Asked<'_>> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] | ["apis", _, version, rest @ ..] => (*version, rest),
        _ => return None,
    };
    let (namespace, kind, name) = match rest {
        ["namespaces", namespace, kind] => (Some(*namespace), *kind, None),
        ["namespaces", namespace, kind, name] => (Some(*namespace), *kind, Some(*name)),
        [kind] => (None, *kind, None),
        [kind, name] => (None, *kind, Some(*name)),
        _ => return None,
    };
    let verb = if name.is_some() { "get" } else { "list" };
    Some(Asked { access: Access { verb, kind, namespace }, version, name })
}

/// One page of what passes the filters.
fn list(objects: &[&Object], query: &BTreeMap<String, String>) -> String {
    let mut wanted = Vec::new();
    for selector in ["fieldSelector", "labelSelector"] {
        let terms = query.get(selector).into_iter().flat_map(|terms| terms.split(','));
        wanted.extend(terms.filter_map(|term| term.split_once('=')));
    }
    let passes = |o: &&&Object| {
        wanted.iter().all(|(key, value)| o.keys.get(*key).is_some_and(|has| has == value))
    };
    let number = |key: &str| query.get(key).and_then(|text| text.parse::<usize>().ok());
    let from = number("continue").unwrap_or_default();
    let limit = number("limit").unwrap_or(usize::MAX);
    let mut left = objects.iter().filter(passes).skip(from);
    let page: Vec<&str> = left.by_ref().take(limit).map(|o| o.json.as_str()).collect();
    let next = if left.next().is_some() { (from + limit).to_string() } else { String::new() };
    format!(
        r#"{{"kind":"List","apiVersion":"v1","metadata":{{"resourceVersion":"7","continue":"{next}"}},"items":[{}]}}"#,
        page.join(",")
    )
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decoded(key), decoded(value))).collect()
}

/// Text without percent signs.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, code) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
