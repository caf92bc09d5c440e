//! The OpenAPI document, generated from the types of this crate.
//!
//! One documented operation per route, grouped as the paths are. hostd's
//! tests walk its routes and compare them with this document, in both
//! directions.

mod checkpoints;
mod drains;
mod dynos;
mod host;
mod images;
mod secrets;
mod tokens;
mod volumes;

use utoipa::OpenApi;

/// The media type of a stream of JSON values, one per line.
pub const JSON_LINES: &str = "application/jsonl";

/// The media type of a tar archive.
pub const TAR: &str = "application/x-tar";

/// The protocol that attach and exec upgrade to; [`crate::frame`] describes it.
pub const FRAMES: &str = "dyno-frames";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "dyno host API",
        description = "One host: dynos, images, events. Spoken over a unix socket, and \
                       with a token over TLS where hostd is told to listen. \
                       Unknown fields and parameters are refused. Every failure has the \
                       body `ApiError`. Every answer has an `X-Request-Id`: that of its \
                       request, where it is 1 to 64 letters, digits, `-`, `_` and `.`."
    ),
    tags(
        (name = "host", description = "The host itself"),
        (name = "dynos", description = "Supervised containers"),
        (name = "drains", description = "Where output is sent"),
        (name = "images", description = "What dynos run on"),
        (name = "secrets", description = "What only dynos are told"),
        (name = "tokens", description = "Who may ask from elsewhere"),
        (name = "volumes", description = "Data that outlives dynos")
    ),
    paths(
        host::version,
        host::info,
        host::health,
        host::doctor,
        host::document,
        host::events,
        host::audit,
        host::metrics,
        host::healthz,
        host::readyz,
        dynos::create,
        dynos::list,
        dynos::inspect,
        dynos::remove,
        dynos::start,
        dynos::stop,
        dynos::restart,
        dynos::kill,
        dynos::limit,
        dynos::pause,
        dynos::resume,
        checkpoints::list,
        checkpoints::make,
        checkpoints::remove,
        checkpoints::restore,
        dynos::wait,
        dynos::logs,
        dynos::stats,
        dynos::why,
        dynos::attach,
        dynos::exec,
        dynos::pack,
        dynos::place,
        dynos::changes,
        drains::list,
        drains::add,
        drains::remove,
        images::list,
        images::pull,
        images::load,
        images::import,
        images::remove,
        secrets::list,
        secrets::inspect,
        secrets::set,
        secrets::remove,
        secrets::rotate,
        tokens::list,
        tokens::create,
        tokens::certify,
        tokens::remove,
        volumes::list,
        volumes::create,
        volumes::inspect,
        volumes::set,
        volumes::remove,
        volumes::snapshots,
        volumes::snapshot,
        volumes::remove_snapshot,
        volumes::rollback,
        volumes::export,
        volumes::import,
    )
)]
struct Document;

/// The document itself.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Every operation of the document as (method, path), upper-case method,
/// path with `{parameters}`, in order.
pub fn operations() -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (path, item) in document().paths.paths {
        let methods = [
            ("GET", item.get.is_some()),
            ("POST", item.post.is_some()),
            ("PUT", item.put.is_some()),
            ("PATCH", item.patch.is_some()),
            ("DELETE", item.delete.is_some()),
        ];
        found.extend(
            methods
                .iter()
                .filter(|(_, is)| *is)
                .map(|(method, _)| (*method, path.clone())),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_document_resolves() {
        let document = serde_json::to_value(document()).unwrap();
        let mut pending = vec![&document];
        let mut seen = 0;
        while let Some(value) = pending.pop() {
            if let Some(reference) = value.get("$ref").and_then(|r| r.as_str()) {
                let pointer = reference.strip_prefix('#').expect("a local reference");
                assert!(
                    document.pointer(pointer).is_some(),
                    "{reference} leads nowhere"
                );
                seen += 1;
            }
            match value {
                serde_json::Value::Array(items) => pending.extend(items),
                serde_json::Value::Object(fields) => pending.extend(fields.values()),
                _ => {}
            }
        }
        assert!(seen > 20, "only {seen} references: the walk is broken");
    }

    /// Two of one name would be one in the document.
    #[test]
    fn every_type_has_a_name_of_its_own() {
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut names = std::collections::BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let derives = text.split("ToSchema)]\n").skip(1);
                for item in derives {
                    let mut words = item.split([' ', '\n', '(', '<', '{']);
                    let name = words
                        .by_ref()
                        .find(|word| ["struct", "enum"].contains(word));
                    let name = name.and_then(|_| words.next()).unwrap();
                    assert!(
                        names.insert(name.to_owned()),
                        "{name} of {}",
                        path.display()
                    );
                }
            }
        }
        assert!(names.len() > 20, "{names:?}");
    }

    #[test]
    fn every_operation_documents_its_failure() {
        let document = serde_json::to_value(document()).unwrap();
        for (method, path) in operations() {
            let responses = &document["paths"][&path][method.to_lowercase()]["responses"];
            assert!(responses.get("default").is_some(), "{method} {path}");
        }
    }

    #[test]
    fn every_type_refuses_unknown_fields() {
        let document = serde_json::to_value(document()).unwrap();
        for name in [
            "DynoSpec",
            "ExecRequest",
            "AttachRequest",
            "PullRequest",
            "Limits",
        ] {
            let schema = &document["components"]["schemas"][name];
            assert_eq!(schema["additionalProperties"], false, "{name}: {schema}");
        }
    }
}
