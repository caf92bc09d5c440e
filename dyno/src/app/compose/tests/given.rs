//! What an app brings along: secrets, configuration files, variables.

use super::*;

#[test]
fn secrets_and_configs_are_brought_along_or_there() {
    let beside = Beside::new(&[("db.txt", "s3cret"), ("app.conf", "port 80")]);
    let app = beside.app(
        "name: shop\nsecrets:\n  db: {file: ./db.txt}\n  own: {environment: OWN}\n  far: {external: true, name: tls.key}\n\
         configs: {app: {file: app.conf}, text: {content: \"for $OWN\"}, var: {environment: OWN}}\n\
         services:\n  web:\n    image: host\n    secrets: [db, {source: far, target: /etc/key, mode: 0440, uid: \"5\", gid: 6}, own]\n    \
         configs: [app, {source: text, target: /etc/t, mode: 0o400}, var]\n",
    );
    let own: Vec<_> = app
        .secrets
        .iter()
        .map(|s| (s.name.as_str(), s.value.as_slice()))
        .collect();
    assert_eq!(own, [("shop-db", &b"s3cret"[..]), ("shop-own", b"mine")]);
    assert!(
        !format!("{app:?}").contains(&format!("{:?}", b"s3cret")),
        "{app:?}"
    );
    let made = app.wanted().remove(0).spec;
    let files: Vec<_> = made
        .secrets
        .iter()
        .map(|s| (s.name.as_str(), s.path(), s.mode, s.uid, s.gid))
        .collect();
    let expected = [
        (
            "shop-db",
            "/run/secrets/db".to_owned(),
            Some(0o444),
            None,
            None,
        ),
        (
            "tls.key",
            "/etc/key".to_owned(),
            Some(0o440),
            Some(5),
            Some(6),
        ),
        (
            "shop-own",
            "/run/secrets/own".to_owned(),
            Some(0o444),
            None,
            None,
        ),
    ];
    assert_eq!(files, expected);
    let files: Vec<_> = made
        .config_files
        .iter()
        .map(|c| (&*c.target, c.content.as_deref().unwrap(), c.mode))
        .collect();
    assert_eq!(
        files,
        [
            ("/app", "port 80", None),
            ("/etc/t", "for mine", Some(0o400)),
            ("/var", "mine", None)
        ]
    );
}

#[test]
fn what_is_not_there_cannot_be_given() {
    for (text, expected) in [
        ("secrets: {a: {file: none}}", "secrets.a: cannot read "),
        (
            "secrets: {a: {environment: NONE}}",
            "secrets.a.environment: the variable NONE is not set",
        ),
        (
            "secrets: {a: {}}",
            "secrets.a: one of file and environment is expected",
        ),
        (
            "secrets: {a: {external: true, file: x}}",
            "secrets.a.file: not supported",
        ),
        (
            "configs: {a: {external: true}}",
            "configs.a.external: not supported",
        ),
        (
            "services: {w: {image: host, secrets: [x]}}",
            "secrets[0]: there is no \"x\" below the app's secrets",
        ),
        (
            "configs: {a: {content: x}}\nservices: {w: {image: host, configs: [{source: a, target: b}]}}",
            "configs[0]: \"b\" is not an absolute path",
        ),
        (
            "services: {w: {image: host, configs: [x]}}",
            "configs[0]: there is no \"x\" below the app's configs",
        ),
        (
            "secrets: {a: {environment: OWN}}\nservices: {w: {image: host, secrets: [{source: a, mode: 440}]}}",
            "\"440\" is no mode",
        ),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn variables_are_of_files_then_of_the_service_and_may_be_the_callers() {
    let beside = Beside::new(&[
        (".env", "DOT=dot\nBOTH=file\nTWICE=$BOTH$DOT\n"),
        ("a.env", "A=1\nB=${DOT}\nC=3\n"),
        ("b.env", "C='$DOT'\nOWN\n"),
        ("raw.env", "R='$DOT'\n"),
    ]);
    let env = |keys: &str| {
        let env = beside.spec(keys).env;
        let pairs: Vec<_> = env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join(" ")
    };
    let files = "env_file: [a.env, b.env, {path: none.env, required: false}, {path: raw.env, format: raw}]\n";
    assert_eq!(env(files), "A=1 B=dot C=$DOT OWN=mine R='$DOT'");
    let list = format!("{files}environment:\n- A=2\n- DOT\n- NONE\n- E=\n- T=$TWICE ${{BOTH}}\n");
    assert_eq!(
        env(&list),
        "A=2 B=dot C=$DOT DOT=dot E= OWN=mine R='$DOT' T=environmentdot environment"
    );
    assert_eq!(
        env(
            "env_file: a.env\nenvironment: {A: 007, B: true, C: , DOT: , NONE: , E: '', P: $COMPOSE_PROJECT_NAME}"
        ),
        "A=007 B=true DOT=dot E= P=shop"
    );
    let error = told(
        &beside
            .read("services: {web: {image: host, env_file: none.env}}")
            .unwrap_err(),
    );
    assert!(
        error.contains("none.env: No such file") && error.contains("(compose.yaml:1:"),
        "{error}"
    );
    let beside = Beside::new(&[(".env", "\nA='x\n")]);
    let error = told(&beside.read("services: {}").unwrap_err());
    assert!(
        error.contains(".env, line 2: a quotation mark is not closed"),
        "{error}"
    );
}

#[test]
fn values_are_completed_and_keys_are_not() {
    let read = Beside::new(&[(".env", "N=3\nNAME=shop\n")]).read(
        "name: ${NAME:-x}\nx-ignored: ${NONE:?}\nx-env: &env {A: \"${OWN}\"}\nservices:\n  web:\n    image: ${IMAGE:-host}\n    \
         scale: ${N}\n    mem_limit: ${M:-64m}\n    environment: {<<: *env, $$K: $NONE}\n    read_only: ${RO-true}\n",
    );
    let read = read.unwrap();
    assert_eq!(read.unset, ["NONE"]);
    let wanted = read.app.wanted();
    assert_eq!((wanted.len(), wanted[0].name.as_str()), (3, "shop-web-1"));
    let made = &wanted[0].spec;
    assert_eq!(
        (&*made.image, &*made.env["A"], &*made.env["$$K"]),
        ("host", "mine", "")
    );
    assert_eq!(
        (made.limits.memory_bytes, made.read_only),
        (Some(64 << 20), true)
    );
    let error = service_refused("user: ${WHO:?name somebody}\nhostname: a$\n");
    for line in [
        "services.web.user: the variable WHO is required: name somebody (compose.yaml:5:11)",
        "services.web.hostname: no variable follows `$`; write $$ for a `$` (compose.yaml:6:15)",
    ] {
        assert!(error.contains(line), "{line}\n{error}");
    }
}

#[test]
fn a_file_that_many_take_is_not_copied_without_end() {
    let beside = Beside::new(&[(
        "a.env",
        &format!("A={}\n", "x".repeat(1 << 20).split_at(1000).1),
    )]);
    for keys in ["a.env", "{path: a.env, format: raw}"] {
        let services: String = (0..200)
            .map(|number| format!("  w{number}: {{image: host, env_file: {keys}}}\n"))
            .collect();
        let error = told(&beside.read(&format!("services:\n{services}")).unwrap_err());
        assert!(
            error.contains("bytes of variables and files are put in"),
            "{error}"
        );
    }
}
