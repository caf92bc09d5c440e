//! Which scope each operation belongs to, and what asking for a dyno asks for besides.
//!
//! The table names every route and method; what it does not name is refused, whoever asks.
//! A test compares it with the OpenAPI document.

use std::collections::BTreeSet;

use axum::http::Method;
use dyno_api::dyno::{DynoSpec, Mount, NetMode};
use dyno_api::token::Scope::{self, Host, Logs, Read, Run, Secrets};

/// One operation of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation {
    method: &'static str,
    /// As the router has it.
    path: &'static str,
    /// What whoever asks for it has to have.
    pub(super) scope: Scope,
    /// What it is called where somebody is told of it.
    pub(super) name: &'static str,
}

impl Operation {
    /// Whether the audit log says who asked for it: where it needs more than to see what there
    /// is, which every change does (a test below), and so does what tells secrets.
    pub(super) fn leaves_a_trace(&self) -> bool {
        !matches!(self.scope, Read | Logs)
    }

    /// Whether it goes on when its answer has begun.
    pub(super) fn is_stream(&self) -> bool {
        let verbs = ["attach", "exec", "pull", "load", "import", "archive"];
        self.path
            .rsplit('/')
            .next()
            .is_some_and(|verb| verbs.contains(&verb))
    }

    /// Whether it is done even where that leaves no trace: it frees what the log lacks, or
    /// saves the machine, or only looks.
    pub(super) fn is_urgent(&self) -> bool {
        let looks = self.method == "GET" && self.scope == Host;
        looks || self.method == "DELETE" || ["dyno.stop", "dyno.kill"].contains(&self.name)
    }
}

const fn at(
    method: &'static str,
    path: &'static str,
    scope: Scope,
    name: &'static str,
) -> Operation {
    Operation {
        method,
        path,
        scope,
        name,
    }
}

#[rustfmt::skip]
const OPERATIONS: &[Operation] = &[
    at("GET", "/v1/version", Read, "host.version"),
    at("GET", "/v1/info", Read, "host.info"),
    at("GET", "/v1/health", Read, "host.health"),
    at("GET", "/v1/doctor", Read, "host.doctor"),
    at("GET", "/v1/openapi.json", Read, "host.document"),
    at("GET", "/v1/events", Read, "host.events"),
    at("GET", "/v1/audit", Host, "audit.list"),
    at("GET", "/metrics", Read, "host.metrics"),
    at("GET", "/healthz", Read, "host.healthz"),
    at("GET", "/readyz", Read, "host.readyz"),
    at("GET", "/v1/dynos", Read, "dyno.list"),
    at("POST", "/v1/dynos", Run, "dyno.create"),
    at("GET", "/v1/dynos/{dyno}", Read, "dyno.inspect"),
    at("DELETE", "/v1/dynos/{dyno}", Run, "dyno.remove"),
    at("POST", "/v1/dynos/{dyno}/start", Run, "dyno.start"),
    at("POST", "/v1/dynos/{dyno}/stop", Run, "dyno.stop"),
    at("POST", "/v1/dynos/{dyno}/restart", Run, "dyno.restart"),
    at("POST", "/v1/dynos/{dyno}/kill", Run, "dyno.kill"),
    at("POST", "/v1/dynos/{dyno}/limit", Run, "dyno.limit"),
    at("POST", "/v1/dynos/{dyno}/pause", Run, "dyno.pause"),
    at("POST", "/v1/dynos/{dyno}/resume", Run, "dyno.resume"),
    at("GET", "/v1/dynos/{dyno}/checkpoints", Read, "dyno.checkpoints"),
    at("POST", "/v1/dynos/{dyno}/checkpoints", Run, "dyno.checkpoint"),
    at("DELETE", "/v1/dynos/{dyno}/checkpoints/{checkpoint}", Run, "dyno.remove_checkpoint"),
    at("POST", "/v1/dynos/{dyno}/restore", Run, "dyno.restore"),
    at("GET", "/v1/dynos/{dyno}/wait", Read, "dyno.wait"),
    at("GET", "/v1/dynos/{dyno}/logs", Logs, "dyno.logs"),
    at("GET", "/v1/dynos/{dyno}/stats", Read, "dyno.stats"),
    // It has the last lines of the output in it.
    at("GET", "/v1/dynos/{dyno}/why", Logs, "dyno.why"),
    at("POST", "/v1/dynos/{dyno}/attach", Run, "dyno.attach"),
    at("POST", "/v1/dynos/{dyno}/exec", Run, "dyno.exec"),
    // What can read a dyno's files can read what it was given as files.
    at("GET", "/v1/dynos/{dyno}/archive", Run, "dyno.read_files"),
    at("PUT", "/v1/dynos/{dyno}/archive", Run, "dyno.write_files"),
    at("GET", "/v1/dynos/{dyno}/changes", Read, "dyno.changes"),
    at("GET", "/v1/drains", Read, "drain.list"),
    // hostd connects from the host itself, wherever it is told to.
    at("POST", "/v1/drains", Host, "drain.add"),
    at("DELETE", "/v1/drains/{drain}", Host, "drain.remove"),
    at("GET", "/v1/images", Read, "image.list"),
    at("POST", "/v1/images/pull", Run, "image.pull"),
    at("POST", "/v1/images/load", Run, "image.load"),
    at("POST", "/v1/images/import", Run, "image.import"),
    at("DELETE", "/v1/images/{*reference}", Run, "image.remove"),
    at("GET", "/v1/secrets", Read, "secret.list"),
    at("GET", "/v1/secrets/{secret}", Read, "secret.inspect"),
    at("PUT", "/v1/secrets/{secret}", Secrets, "secret.set"),
    at("DELETE", "/v1/secrets/{secret}", Secrets, "secret.remove"),
    at("POST", "/v1/secret-key/rotate", Host, "secret_key.rotate"),
    at("GET", "/v1/tokens", Host, "token.list"),
    at("POST", "/v1/tokens", Host, "token.create"),
    at("DELETE", "/v1/tokens/{token}", Host, "token.remove"),
    at("POST", "/v1/certificates", Host, "token.certify"),
    at("GET", "/v1/volumes", Read, "volume.list"),
    at("POST", "/v1/volumes", Run, "volume.create"),
    at("GET", "/v1/volumes/{volume}", Read, "volume.inspect"),
    at("PATCH", "/v1/volumes/{volume}", Run, "volume.set"),
    at("DELETE", "/v1/volumes/{volume}", Run, "volume.remove"),
    at("GET", "/v1/volumes/{volume}/snapshots", Read, "volume.snapshots"),
    at("POST", "/v1/volumes/{volume}/snapshots", Run, "volume.snapshot"),
    at("DELETE", "/v1/volumes/{volume}/snapshots/{snapshot}", Run, "volume.remove_snapshot"),
    at("POST", "/v1/volumes/{volume}/rollback", Run, "volume.rollback"),
    at("GET", "/v1/volumes/{volume}/archive", Run, "volume.export"),
    at("PUT", "/v1/volumes/{volume}/archive", Run, "volume.import"),
];

/// The operation of this method on this route of the router, if there is one. `HEAD` is
/// `GET` without a body (RFC 9110 section 9.3.2).
pub(super) fn operation(method: &Method, route: &str) -> Option<&'static Operation> {
    let method = match method {
        &Method::HEAD => "GET",
        other => other.as_str(),
    };
    OPERATIONS
        .iter()
        .find(|operation| operation.method == method && operation.path == route)
}

/// The methods of this route of the router.
pub(super) fn methods(route: &str) -> Vec<&'static str> {
    let of_route = OPERATIONS.iter().filter(|one| one.path == route);
    let mut methods: Vec<_> = of_route.map(|one| one.method).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods
}

/// What whoever creates this dyno, or goes into it, has to have besides [`Scope::Run`].
/// A dyno with a part of the host, or with more than the safe defaults, is as good as
/// root of the host to whoever chooses what runs in it; one that is given secrets tells
/// them.
pub(super) fn asked_by(spec: &DynoSpec) -> BTreeSet<Scope> {
    let mut scopes = BTreeSet::new();
    let binds = spec
        .mounts
        .iter()
        .any(|mount| matches!(mount, Mount::Bind { .. }));
    let more = !spec.security.cap_add.is_empty() || spec.security.allow_new_privileges;
    if binds || more || spec.net == NetMode::Host || !spec.devices.is_empty() {
        scopes.insert(Host);
    }
    if !spec.secrets.is_empty() || !spec.secret_env.is_empty() {
        scopes.insert(Secrets);
    }
    scopes
}

#[cfg(test)]
mod tests {
    use dyno_api::dyno::{Device, Security};

    use super::*;

    #[test]
    fn every_operation_of_the_document_has_a_scope_and_nothing_else_has() {
        let mut named: Vec<(&str, String)> = OPERATIONS
            .iter()
            .map(|operation| (operation.method, operation.path.replace("{*", "{")))
            .collect();
        let mut documented = dyno_api::openapi::operations();
        named.sort();
        documented.sort();
        assert_eq!(named, documented);
    }

    #[test]
    fn a_table_of_the_routers_own_paths_finds_them() {
        for operation in OPERATIONS {
            let method = operation.method.parse().unwrap();
            assert_eq!(super::operation(&method, operation.path), Some(operation));
            assert!(
                super::super::routes()
                    .iter()
                    .any(|(path, _)| *path == operation.path),
                "{}",
                operation.path
            );
        }
        assert_eq!(operation(&Method::PATCH, "/v1/dynos"), None);
        assert_eq!(operation(&Method::GET, "/v1/nosuch"), None);
        assert_eq!(methods("/v1/dynos"), ["GET", "POST", "HEAD"]);
        assert_eq!(methods("/v1/dynos/{dyno}/stop"), ["POST"]);
        let head = operation(&Method::HEAD, "/v1/dynos").unwrap();
        assert_eq!(head.name, "dyno.list");
    }

    #[test]
    fn what_changes_anything_needs_more_than_to_read() {
        for operation in OPERATIONS {
            let changes = operation.method != "GET";
            let weak = matches!(operation.scope, Read | Logs);
            assert!(!(changes && weak), "{operation:?}");
        }
    }

    #[test]
    fn every_change_and_whatever_tells_secrets_leaves_a_trace() {
        let without: Vec<_> = OPERATIONS
            .iter()
            .filter(|operation| !operation.leaves_a_trace())
            .collect();
        assert!(without.iter().all(|operation| operation.method == "GET"));
        for told in [
            "dyno.read_files",
            "volume.export",
            "dyno.exec",
            "token.list",
        ] {
            assert!(without.iter().all(|operation| operation.name != told));
        }
    }

    #[test]
    fn without_a_trace_nothing_new_is_made_and_nobody_goes_in() {
        let urgent: Vec<_> = OPERATIONS
            .iter()
            .filter(|operation| operation.is_urgent())
            .map(|operation| operation.name)
            .collect();
        let expected = [
            "audit.list",
            "dyno.remove",
            "dyno.stop",
            "dyno.kill",
            "dyno.remove_checkpoint",
            "drain.remove",
            "image.remove",
            "secret.remove",
            "token.list",
            "token.remove",
            "volume.remove",
            "volume.remove_snapshot",
        ];
        assert_eq!(urgent, expected);
    }

    #[test]
    fn what_is_as_good_as_root_needs_the_strongest_scope() {
        let plain = DynoSpec {
            image: "host".to_owned(),
            ..DynoSpec::default()
        };
        assert_eq!(asked_by(&plain), BTreeSet::new());
        let bind = Mount::Bind {
            source: "/".to_owned(),
            target: "/host".to_owned(),
            read_only: true,
        };
        let device = Device {
            source: "/dev/null".to_owned(),
            target: None,
            access: None,
        };
        let more = [
            DynoSpec {
                mounts: vec![bind],
                ..plain.clone()
            },
            DynoSpec {
                net: NetMode::Host,
                ..plain.clone()
            },
            DynoSpec {
                devices: vec![device],
                ..plain.clone()
            },
            DynoSpec {
                security: Security {
                    cap_add: vec!["NET_ADMIN".to_owned()],
                    ..Security::default()
                },
                ..plain.clone()
            },
            DynoSpec {
                security: Security {
                    allow_new_privileges: true,
                    ..Security::default()
                },
                ..plain.clone()
            },
        ];
        for spec in more {
            assert_eq!(asked_by(&spec), BTreeSet::from([Host]), "{spec:?}");
        }
        let told = DynoSpec {
            secret_env: [("PASSWORD".to_owned(), "db".parse().unwrap())].into(),
            ..plain
        };
        assert_eq!(asked_by(&told), BTreeSet::from([Secrets]));
    }
}
