//! References of images, as far as a client needs to understand them: which
//! registry one names, and how hostd lists it (distribution/reference).

/// Where images without a registry come from.
pub(crate) const DOCKER_HUB: &str = "docker.io";

/// Host and port of the registry that a reference names: a first part with a
/// dot, a colon, or `localhost`.
pub(crate) fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DOCKER_HUB,
    }
}

/// The reference with everything that may be left out.
pub(crate) fn full(reference: &str) -> String {
    let registry = registry(reference);
    let rest = reference
        .strip_prefix(registry)
        .and_then(|rest| rest.strip_prefix('/'));
    let rest = rest.unwrap_or(reference);
    let library = if registry == DOCKER_HUB && !rest.contains('/') {
        "library/"
    } else {
        ""
    };
    let tag = if rest.contains(['@', ':']) {
        ""
    } else {
        ":latest"
    };
    format!("{registry}/{library}{rest}{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_dockers_own_where_unsaid() {
        for reference in [
            "debian",
            "debian:12",
            "library/debian",
            "docker.io/library/debian",
        ] {
            assert_eq!(registry(reference), "docker.io", "{reference}");
        }
        assert_eq!(registry("localhost/x"), "localhost");
        assert_eq!(registry("127.0.0.1:5000/x:1"), "127.0.0.1:5000");
        assert_eq!(
            registry("registry.example/a/b@sha256:0"),
            "registry.example"
        );
    }

    #[test]
    fn what_may_be_left_out_is_filled_in() {
        for (short, long) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("ada/app", "docker.io/ada/app:latest"),
            ("docker.io/debian", "docker.io/library/debian:latest"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
            ("a.example/x@sha256:0", "a.example/x@sha256:0"),
        ] {
            assert_eq!(full(short), long);
            assert_eq!(full(long), long);
        }
    }
}
