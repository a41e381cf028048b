//! The description of the API (`OpenAPI` 3.1), made of the types that are served and of what stands beside the handlers.
//!
//! It is more than documentation: [`Table`] is made from it, and a path that is not described is not served. What every
//! path can answer, whoever handles it, is added here and not repeated at each of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use http::Method;
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;

use super::{Door, admin, body, chain, nodes, read, reject, requests, sign, watch};

/// What is described.
#[derive(OpenApi)]
#[openapi(
    info(title = "Mycelium sidecar", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    paths(
        admin::healthz,
        admin::readyz,
        admin::metrics,
        admin::openapi,
        read::status,
        read::metagraph,
        read::validators,
        read::verify,
        nodes::list,
        nodes::one,
        watch::watch,
        chain::weights,
        chain::bonds,
        chain::hyperparameters,
        chain::identities,
        chain::balance,
        requests::sign,
        requests::verify,
        sign::sign,
        sign::signer,
        sign::acknowledge,
        sign::weights,
        sign::axon,
        sign::commitment,
    ),
    components(schemas(
        sidecar_util::http::ProblemBody,
        sidecar_util::http::WatchSnapshot,
        sidecar_util::http::WatchChange,
        sidecar_util::http::WatchBlock,
    )),
    tags(
        (name = "subnet", description = "What is known of the subnet and its nodes"),
        (name = "chain", description = "Read from the chain for each request"),
        (name = "pod", description = "For the containers of the pod, on the unix socket only"),
        (name = "process", description = "For the kubelet, Prometheus and tools"),
    )
)]
struct Description;

/// The description as it is served and committed.
pub(crate) static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let mut text = serde_json::to_string_pretty(&document()).expect("a JSON value always serializes");
    text.push('\n');
    text
});

/// Problems that any path can answer with.
const EVERYWHERE: [&str; 5] =
    ["uri-too-long", "headers-too-large", "too-many-connections-of-address", "too-many-connections", "internal"];

fn document() -> Value {
    let mut document = serde_json::to_value(Description::openapi()).expect("a description always serializes");
    let kinds = reject::every_kind();
    document["info"]["description"] = description(&kinds).into();
    let everywhere: Vec<_> = kinds.iter().filter(|(_, name, _)| EVERYWHERE.contains(name)).collect();
    let paths = document["paths"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut);
    for operation in paths.flat_map(|path| path.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut)) {
        let pod_only = operation["tags"].as_array().is_some_and(|tags| tags.iter().any(|tag| tag == POD));
        let Some(responses) = operation["responses"].as_object_mut() else { continue };
        if pod_only {
            let line = format!("`{}socket-only`: asked over the network", reject::URN);
            let response = responses.entry("403").or_insert_with(|| json!({"description": ""}));
            let said = response["description"].as_str().unwrap_or_default();
            response["description"] = if said.is_empty() { line } else { format!("{said}\n\n{line}") }.into();
        }
        for (status, name, title) in &everywhere {
            let line = format!("`{}{name}`: {title}", reject::URN);
            let response = responses.entry(status.as_str()).or_insert_with(|| json!({"description": ""}));
            let said = response["description"].as_str().unwrap_or_default();
            let whole = if said.is_empty() { line } else { format!("{said}\n\n{line}") };
            response["description"] = whole.into();
        }
        for (status, response) in responses {
            if status.starts_with(['4', '5']) {
                let schema = json!({"$ref": "#/components/schemas/ProblemBody"});
                response["content"] = json!({ reject::PROBLEM_JSON: { "schema": schema } });
            }
        }
    }
    document
}

fn description(kinds: &[(http::StatusCode, &str, &str)]) -> String {
    let mut text = "What a sidecar knows of its subnet, its node and its group.\n\n\
        Errors are problem details (RFC 9457). Their `type` is stable and one of these:\n"
        .to_owned();
    for (status, name, title) in kinds {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n- `{}{name}` ({}): {title}", reject::URN, status.as_u16());
    }
    text
}

/// Operations with this tag are served on the unix socket only.
const POD: &str = "pod";

/// One path that is served.
#[derive(Debug)]
pub(crate) struct Path {
    /// As it is described, with its parameters in braces.
    pub(crate) template: &'static str,
    /// Methods, without those that are made of others, and whether they are for the pod only.
    methods: Vec<(Method, bool)>,
}

/// Whether a method is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    Yes,
    No,
    OnSocketOnly,
}

impl Path {
    pub(crate) fn serves(&self, method: &Method, door: Door) -> Serves {
        match self.methods.iter().find(|(served, _)| served == method) {
            None => Serves::No,
            Some((_, true)) if door == Door::Tcp => Serves::OnSocketOnly,
            Some(_) => Serves::Yes,
        }
    }

    /// Largest body that is taken.
    pub(crate) fn body_bytes_max(&self) -> usize {
        if self.template.starts_with("/v1/requests/") { requests::BODY_BYTES_MAX } else { body::BYTES_MAX }
    }

    /// Value of the header `allow`. What is for the pod only is known at the other door as well, and refused there.
    pub(crate) fn allow(&self) -> String {
        let mut allow: Vec<&str> = self.methods.iter().map(|(method, _)| method.as_str()).collect();
        if allow.contains(&"GET") {
            allow.push("HEAD");
        }
        allow.push("OPTIONS");
        allow.join(", ")
    }
}

/// Every path that is described.
#[derive(Debug)]
pub(crate) struct Table {
    paths: Vec<Path>,
    /// Paths without parameters.
    exact: BTreeMap<&'static str, usize>,
    /// Segments of the others; `None` for a parameter.
    patterns: Vec<(Vec<Option<&'static str>>, usize)>,
}

/// The one table of the process.
pub(crate) static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

impl Table {
    fn new() -> Self {
        let mut table = Self { paths: vec![], exact: BTreeMap::new(), patterns: vec![] };
        for (template, item) in Description::openapi().paths.paths {
            // Labels of metrics and branches of the router live as long as the process.
            let template: &'static str = Box::leak(template.into_boxed_str());
            let pod_only = |operation: &Operation| operation.tags.iter().flatten().any(|tag| tag == POD);
            let methods = [
                (Method::GET, item.get),
                (Method::POST, item.post),
                (Method::PUT, item.put),
                (Method::DELETE, item.delete),
            ];
            let served = methods.into_iter().filter_map(|(method, operation)| Some((method, pod_only(&operation?))));
            let methods = served.collect();
            let index = table.paths.len();
            if template.contains('{') {
                let segments = template.split('/').map(|one| (!one.starts_with('{')).then_some(one)).collect();
                table.patterns.push((segments, index));
            } else {
                table.exact.insert(template, index);
            }
            table.paths.push(Path { template, methods });
        }
        table
    }

    /// All of them.
    pub(crate) fn paths(&self) -> &[Path] {
        &self.paths
    }

    /// The index of the path that serves this one.
    pub(crate) fn find(&self, path: &str) -> Option<usize> {
        let by_pattern = || {
            let fits = |segments: &[Option<&str>]| {
                let mut found = path.split('/');
                let same = |known: Option<&str>| {
                    found.next().is_some_and(|found| known.map_or(!found.is_empty(), |known| known == found))
                };
                segments.iter().copied().all(same) && found.next().is_none()
            };
            self.patterns.iter().find(|(segments, _)| fits(segments)).map(|(_, index)| *index)
        };
        self.exact.get(path).copied().or_else(by_pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_by_their_segments() {
        let find = |path: &str| TABLE.find(path).map(|index| TABLE.paths()[index].template);
        assert_eq!(find("/v1/status"), Some("/v1/status"));
        assert_eq!(find("/v1/validators/5Grw/verify"), Some("/v1/validators/{hotkey}/verify"));
        assert_eq!(find("/v1/nodes/7"), Some("/v1/nodes/{id}"));
        for path in ["", "/", "/v1", "/v1/", "/v1/status/", "//v1/status", "/v1/validators//verify", "/v1/nodes/7/x"] {
            assert_eq!(find(path), None, "{path}");
        }
    }

    #[test]
    fn the_committed_description_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &*DOCUMENT).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == *DOCUMENT, "{path} is not current: run this test with UPDATE_GOLDEN=1");
    }

    #[test]
    fn every_refusal_that_is_described_names_its_problem_and_every_problem_is_described() {
        let kinds = reject::every_kind();
        let document = document();
        let mut described: Vec<&str> = vec![];
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = format!("{method} {path}");
                assert!(operation["summary"].is_string(), "{name} has no summary");
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    assert!(parameter["description"].is_string(), "{name}: {parameter}");
                    assert!(parameter["schema"].is_object(), "{name}: {parameter}");
                }
                for (status, response) in operation["responses"].as_object().unwrap() {
                    if !status.starts_with(['4', '5']) {
                        continue;
                    }
                    let text = response["description"].as_str().unwrap();
                    let urns: Vec<&str> = text.split('`').filter_map(|word| word.strip_prefix(reject::URN)).collect();
                    assert!(!urns.is_empty(), "{name} {status}: {text}");
                    for urn in urns {
                        let kind = kinds.iter().find(|(_, name, _)| *name == urn);
                        let kind = kind.unwrap_or_else(|| panic!("{name}: no problem is called {urn}"));
                        assert_eq!(kind.0.as_str(), status, "{name}: {urn}");
                        described.push(kind.1);
                    }
                }
            }
        }
        // Those that no path of its own has: they stand in the general description.
        let general = [
            "not-found",
            "method-not-allowed",
            "body-timeout",
            "body-too-large",
            "unsupported-media-type",
            "invalid-body",
        ];
        for (_, name, _) in kinds {
            assert!(described.contains(&name) || general.contains(&name), "{name} is described nowhere");
        }
    }
}
