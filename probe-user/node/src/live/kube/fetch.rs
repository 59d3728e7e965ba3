//! One request, or one paged list, for each wish.

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Bytes;
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::{ApiFailure, failure, first_line};
use super::config::ContextConfig;
use super::parse;
use whereis_port_model::parse_error::told;
use whereis_port_model::{Gap, KubeObjects, KubeWish, NameApi, ObjectName, Read};

/// The most that is read of one answer, in bytes: 500 objects of the largest that there are.
const LARGEST: usize = 32 << 20;
/// How many objects are asked for at once.
const PAGE: usize = 500;
/// How many pages are read: half a million objects.
const PAGES: usize = 1000;

/// Asks one thing.
pub(super) async fn fetch(
    client: &Client,
    entry: &ContextConfig,
    wish: &KubeWish,
) -> Result<Read<KubeObjects>, ApiFailure> {
    let mut read = Read::whole(KubeObjects { answered: true, ..KubeObjects::default() });
    let said = &mut read.value;
    match wish {
        KubeWish::Services => {
            let make = parse::Service::into_model;
            let (all, gap) = everywhere(client, entry, "services", "", make).await?;
            said.services = all;
            read.gaps.extend(gap);
        }
        KubeWish::Service(name) => {
            let path = format!(
                "/api/v1/namespaces/{}/services/{}",
                part(&name.namespace),
                part(&name.name)
            );
            let kind = format!("services in namespace {}", name.namespace);
            let service: Option<parse::Service> = one(client, &path, &kind).await?;
            said.services = service.into_iter().map(parse::Service::into_model).collect();
        }
        KubeWish::Endpoints(name) => said.endpoints = endpoints(client, name).await?,
        KubeWish::Pod(name) => {
            let path =
                format!("/api/v1/namespaces/{}/pods/{}", part(&name.namespace), part(&name.name));
            let kind = format!("pods in namespace {}", name.namespace);
            let pod: Option<parse::Pod> = one(client, &path, &kind).await?;
            said.pods = pod.into_iter().map(parse::Pod::into_model).collect();
        }
        KubeWish::PodsAt(address) => {
            let filter = format!("fieldSelector=status.podIP%3D{}", part(&address.to_string()));
            let make = parse::Pod::into_model;
            let (all, gap) = everywhere(client, entry, "pods", &filter, make).await?;
            said.pods = all;
            read.gaps.extend(gap);
        }
        KubeWish::PodsOn(node) => {
            let filter = format!("fieldSelector=spec.nodeName%3D{}", part(node));
            let make = parse::Pod::into_model;
            let (all, gap) = everywhere(client, entry, "pods", &filter, make).await?;
            said.pods = all;
            read.gaps.extend(gap);
        }
        KubeWish::PodsWith { namespace, labels } => {
            let terms: Vec<String> =
                labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let filter = format!("labelSelector={}", part(&terms.join(",")));
            let path = format!("/api/v1/namespaces/{}/pods", part(namespace));
            let kind = format!("pods in namespace {namespace}");
            said.pods = list(client, &path, &filter, &kind, parse::Pod::into_model).await?;
        }
        KubeWish::Nodes => {
            let make = parse::Node::into_model;
            said.nodes = list(client, "/api/v1/nodes", "", "nodes", make).await?;
        }
        KubeWish::Node(name) => {
            let path = format!("/api/v1/nodes/{}", part(name));
            let node: Option<parse::Node> = one(client, &path, "nodes").await?;
            said.nodes = node.into_iter().map(parse::Node::into_model).collect();
        }
        KubeWish::ByName(api) => by_name(client, entry, *api, &mut read).await?,
    }
    Ok(read)
}

/// What routes by name, of one group. What the API does not know of is none.
async fn by_name(
    client: &Client,
    entry: &ContextConfig,
    api: NameApi,
    read: &mut Read<KubeObjects>,
) -> Result<(), ApiFailure> {
    use parse::names::{Class, Gateway, HttpRoute, Ingress};
    use parse::names::{IngressRoute, IstioGateway, VirtualService};
    let in_group = |versions, what| OptionalKind { versions, api, what };
    let said = &mut read.value;
    match api {
        NameApi::Ingress => {
            let group =
                in_group(&["networking.k8s.io/v1", "networking.k8s.io/v1beta1"], "ingresses");
            let (all, gap) = group.list(client, entry, Ingress::into_model).await?;
            said.names = all;
            read.gaps.extend(gap);
            let classes = OptionalKind { what: "ingressclasses", ..group };
            let (all, gap) = classes.list(client, entry, Class::of_ingress).await?;
            said.classes = all;
            read.gaps.extend(gap);
        }
        NameApi::Gateway => {
            let group = in_group(
                &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"],
                "httproutes",
            );
            let (all, gap) = group.list(client, entry, HttpRoute::into_model).await?;
            said.names = all;
            read.gaps.extend(gap);
            let gateways = OptionalKind { what: "gateways", ..group };
            let (all, gap) = gateways.list(client, entry, Gateway::into_model).await?;
            said.gateways = all;
            read.gaps.extend(gap);
            let classes = OptionalKind { what: "gatewayclasses", ..group };
            let (all, gap) = classes.list(client, entry, Class::of_gateway).await?;
            said.classes = all;
            read.gaps.extend(gap);
        }
        NameApi::Traefik => {
            let group =
                in_group(&["traefik.io/v1alpha1", "traefik.containo.us/v1alpha1"], "ingressroutes");
            let (all, gap) = group.list(client, entry, IngressRoute::into_model).await?;
            said.names = all;
            read.gaps.extend(gap);
        }
        NameApi::Istio => {
            let group = in_group(
                &["networking.istio.io/v1", "networking.istio.io/v1beta1"],
                "virtualservices",
            );
            let (all, gap) = group.list(client, entry, VirtualService::into_model).await?;
            said.names = all;
            read.gaps.extend(gap);
            let gateways = OptionalKind { what: "gateways", ..group };
            let (all, gap) = gateways.list(client, entry, IstioGateway::into_model).await?;
            said.gateways = all;
            read.gaps.extend(gap);
        }
    }
    Ok(())
}

/// A kind of object of a group that an API may lack.
#[derive(Clone, Copy)]
struct OptionalKind {
    /// Group and version, the newest first.
    versions: &'static [&'static str],
    api: NameApi,
    what: &'static str,
}

impl OptionalKind {
    /// How many objects are read: with more, what is missing would be most of it.
    const MOST: usize = 10_000;

    /// Every object of all namespaces, or of the context's where that is refused; then a gap
    /// says which rule would allow it.
    async fn list<T: DeserializeOwned, M>(
        &self,
        client: &Client,
        entry: &ContextConfig,
        make: fn(T) -> Option<M>,
    ) -> Result<(Vec<M>, Option<Gap>), ApiFailure> {
        for version in self.versions {
            let path = format!("/apis/{version}/{}", self.what);
            let all = list_at(client, &path, "", self.what, make, Self::MOST).await;
            let failure = match all {
                Ok((all, _)) => return Ok((all.into_iter().flatten().collect(), None)),
                Err(ApiFailure::Garbage(what)) if what == NO_SUCH_KIND => continue,
                Err(failure @ ApiFailure::Forbidden(..)) => failure,
                Err(failure) => return Err(failure),
            };
            let mut gap = failure.gap(&entry.context);
            gap.remedy = Some(self.remedy());
            let namespace = entry.context.namespace.as_deref().unwrap_or("default");
            let path = format!("/apis/{version}/namespaces/{}/{}", part(namespace), self.what);
            // Of classes, which are in no namespace, it knows no such kind.
            let some = list_at(client, &path, "", self.what, make, Self::MOST).await;
            let some = some.map(|(some, _)| some.into_iter().flatten().collect());
            if some.is_ok() {
                gap.reason.push_str(&format!(" of all namespaces: only {namespace} was seen"));
            }
            return Ok((some.unwrap_or_default(), Some(gap)));
        }
        Ok((Vec::new(), None))
    }

    /// The rule that would allow to read the whole group.
    fn remedy(&self) -> String {
        let resources = match self.api {
            NameApi::Ingress => "ingresses, ingressclasses",
            NameApi::Gateway => "httproutes, gateways, gatewayclasses",
            NameApi::Traefik => "ingressroutes",
            NameApi::Istio => "virtualservices, gateways",
        };
        let group = self.versions.first().and_then(|version| version.split('/').next());
        format!(
            "add to this user's ClusterRole: apiGroups [{}], resources [{resources}], verbs [list]",
            group.unwrap_or_default()
        )
    }
}

/// Everything of a kind; where that is refused, what is in the context's namespace.
async fn everywhere<T: DeserializeOwned, M>(
    client: &Client,
    entry: &ContextConfig,
    kind: &str,
    filter: &str,
    make: fn(T) -> M,
) -> Result<(Vec<M>, Option<Gap>), ApiFailure> {
    match list(client, &format!("/api/v1/{kind}"), filter, kind, make).await {
        Err(ApiFailure::Forbidden(verb, what)) => {
            let namespace = entry.context.namespace.as_deref().unwrap_or("default");
            let path = format!("/api/v1/namespaces/{}/{kind}", part(namespace));
            let Ok(some) = list(client, &path, filter, kind, make).await else {
                return Err(ApiFailure::Forbidden(verb, what));
            };
            let mut gap = ApiFailure::Forbidden(verb, format!("{kind} of all namespaces"))
                .gap(&entry.context);
            gap.reason.push_str(&format!(": only namespace {namespace} was seen"));
            Ok((some, Some(gap)))
        }
        all => Ok((all?, None)),
    }
}

/// The EndpointSlices of a Service; of an API that has none (before 1.17) its Endpoints.
async fn endpoints(
    client: &Client,
    name: &ObjectName,
) -> Result<Vec<whereis_port_model::KubeEndpoints>, ApiFailure> {
    let filter = format!("labelSelector=kubernetes.io%2Fservice-name%3D{}", part(&name.name));
    for version in ["v1", "v1beta1"] {
        let path = format!(
            "/apis/discovery.k8s.io/{version}/namespaces/{}/endpointslices",
            part(&name.namespace)
        );
        let kind = format!("endpointslices in namespace {}", name.namespace);
        match list(client, &path, &filter, &kind, |slice: parse::Slice| slice.into_model(name))
            .await
        {
            Ok(slices) => return Ok(slices),
            Err(ApiFailure::Garbage(what)) if what == NO_SUCH_KIND => {}
            Err(failure) => return Err(failure),
        }
    }
    let path =
        format!("/api/v1/namespaces/{}/endpoints/{}", part(&name.namespace), part(&name.name));
    let kind = format!("endpoints in namespace {}", name.namespace);
    let endpoints: Option<parse::Endpoints> = one(client, &path, &kind).await?;
    Ok(endpoints.map(|e| e.into_model(name)).unwrap_or_default())
}

/// What an API says that does not know a kind.
pub(super) const NO_SUCH_KIND: &str = "it does not know this kind of object";

/// A page of a list of the API.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct ListPage<T> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize, Default)]
struct PageMeta {
    #[serde(rename = "continue", default)]
    next: Option<String>,
    #[serde(rename = "resourceVersion", default)]
    resource_version: String,
}

/// A list, page by page. A list that expires meanwhile is begun again, once.
async fn list<T: DeserializeOwned, M>(
    client: &Client,
    path: &str,
    filter: &str,
    kind: &str,
    make: impl Fn(T) -> M,
) -> Result<Vec<M>, ApiFailure> {
    let (all, _) = list_at(client, path, filter, kind, make, PAGE * PAGES).await?;
    Ok(all)
}

/// The same with the version that was listed, and no more than about `most` objects.
pub(super) async fn list_at<T: DeserializeOwned, M>(
    client: &Client,
    path: &str,
    filter: &str,
    kind: &str,
    make: impl Fn(T) -> M,
    most: usize,
) -> Result<(Vec<M>, String), ApiFailure> {
    'again: for _ in 0..2 {
        let mut all = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..most.div_ceil(PAGE) {
            let from = next.map_or_else(String::new, |next| format!("&continue={}", part(&next)));
            let and = if filter.is_empty() { String::new() } else { format!("&{filter}") };
            let address = format!("{path}?limit={PAGE}{and}{from}");
            match get(client, &address).await? {
                (StatusCode::OK, body) => {
                    let page: ListPage<T> = understood(&body)?;
                    // Each page by itself: only what is kept of it adds up.
                    all.extend(page.items.into_iter().map(&make));
                    next = page.metadata.next.filter(|next| !next.is_empty());
                    if next.is_none() {
                        return Ok((all, page.metadata.resource_version));
                    }
                }
                (StatusCode::GONE, _) => continue 'again,
                (StatusCode::NOT_FOUND, _) => {
                    return Err(ApiFailure::Garbage(NO_SUCH_KIND.to_owned()));
                }
                (status, body) => return Err(refused(status, &body, "list", kind)),
            }
        }
        return Err(ApiFailure::TooBig);
    }
    Err(ApiFailure::Changing)
}

/// One object; `None` when there is none of this name.
async fn one<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    kind: &str,
) -> Result<Option<T>, ApiFailure> {
    match get(client, path).await? {
        (StatusCode::OK, body) => understood(&body).map(Some),
        (StatusCode::NOT_FOUND, _) => Ok(None),
        (status, body) => Err(refused(status, &body, "get", kind)),
    }
}

/// The version of an API.
pub(super) async fn version(client: &Client) -> Result<String, ApiFailure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct VersionInfo {
        git_version: String,
    }
    match get(client, "/version").await? {
        (StatusCode::OK, body) => Ok(first_line(&understood::<VersionInfo>(&body)?.git_version)),
        (status, body) => Err(refused(status, &body, "get", "/version")),
    }
}

async fn get(client: &Client, path: &str) -> Result<(StatusCode, Bytes), ApiFailure> {
    read(send(client, path).await?).await
}

/// The beginning of an answer.
pub(super) async fn send(client: &Client, path: &str) -> Result<Response<Body>, ApiFailure> {
    let request = Request::get(path)
        .header("Accept", "application/json")
        .body(Body::empty())
        .map_err(|error| ApiFailure::Garbage(first_line(&error.to_string())))?;
    client.send(request).await.map_err(|error| failure(&error))
}

/// The rest of it.
pub(super) async fn read(response: Response<Body>) -> Result<(StatusCode, Bytes), ApiFailure> {
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            ApiFailure::TooBig
        } else {
            ApiFailure::Garbage(format!("it ended early: {}", first_line(&error.to_string())))
        }
    })?;
    Ok((status, body.to_bytes()))
}

pub(super) fn understood<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiFailure> {
    serde_json::from_slice(body).map_err(|error| ApiFailure::Garbage(told(&error)))
}

pub(super) fn refused(
    status: StatusCode,
    body: &[u8],
    verb: &'static str,
    kind: &str,
) -> ApiFailure {
    match status {
        StatusCode::UNAUTHORIZED => ApiFailure::Unauthorized(None),
        StatusCode::FORBIDDEN => ApiFailure::Forbidden(verb, kind.to_owned()),
        _ => {
            let said: Option<serde_json::Value> = serde_json::from_slice(body).ok();
            let message =
                said.as_ref().and_then(|said| said["message"].as_str()).unwrap_or_default();
            ApiFailure::Garbage(first_line(&format!("{status} {message}")))
        }
    }
}

/// A name as a part of a path or query: nothing in it can mean anything there.
pub(super) fn part(text: &str) -> String {
    let mut coded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            coded.push(char::from(byte));
        } else {
            coded.push_str(&format!("%{byte:02X}"));
        }
    }
    // A path of dots would lead elsewhere.
    if coded.chars().all(|c| c == '.') { coded.replace('.', "%2E") } else { coded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leaves_its_place_in_a_path() {
        assert_eq!(part("web-1.x"), "web-1.x");
        assert_eq!(part("../nodes?x=1&y"), "..%2Fnodes%3Fx%3D1%26y");
        assert_eq!(part(".."), "%2E%2E");
        assert_eq!(part("fd00::1"), "fd00%3A%3A1");
    }
}
