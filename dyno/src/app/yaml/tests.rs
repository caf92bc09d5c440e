use proptest::prelude::*;

use super::*;
use crate::app::document::Item;

/// A value as a line of text: `T"…"` is a text, `N…` a number.
fn shown(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => format!("N{number}"),
        Value::Text(text) => format!("T{text:?}"),
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(shown).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(entries) => {
            let entry = |entry: &Entry| format!("{}: {}", entry.key, shown(&entry.value));
            let entries: Vec<_> = entries.iter().map(entry).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

fn read(text: &str) -> Result<Node, String> {
    let problems = Problems::new("x.yaml".to_owned());
    let node = parse(text, &problems);
    let told = problems.or(()).map_err(|failure| {
        let mut told = Vec::new();
        failure.render(&mut told).unwrap();
        let told = String::from_utf8(told).unwrap();
        told.lines().next().unwrap().to_owned()
    });
    told.map(|()| node.unwrap())
}

#[track_caller]
fn is(text: &str, expected: &str) {
    assert_eq!(shown(&read(text).unwrap()), expected, "{text}");
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let told = read(text).unwrap_err();
    assert_eq!(told.trim_start_matches("error: "), expected, "{text}");
}

#[test]
fn scalars_are_what_the_core_schema_says() {
    is("", "null");
    is(
        "[null, ~, Null, '', \"null\"]",
        r#"[null, null, null, T"", T"null"]"#,
    );
    is(
        "[true, False, yes, no, on, 'true']",
        r#"[true, false, T"yes", T"no", T"on", T"true"]"#,
    );
    is(
        "[0, -1, +2, 007, 0o7, 0xaF, 1.5, .5, 1., 1e3, .inf, .nan]",
        "[N0, N-1, N+2, N007, N0o7, N0xaF, N1.5, N.5, N1., N1e3, N.inf, N.nan]",
    );
    // Numbers of YAML 1.1, and a time of it.
    is(
        "[22:22, 1_000, 0b1, 0xg, 1e, '1', 1.2.3, -a, 2026-01-01]",
        r#"[T"22:22", T"1_000", T"0b1", T"0xg", T"1e", T"1", T"1.2.3", T"-a", T"2026-01-01"]"#,
    );
    is(
        "a: |\n  one\n  two\nb: >\n  one\n  two\nc: \"\\t\\u00e4\"",
        "{a: T\"one\\ntwo\\n\", b: T\"one two\\n\", c: T\"\\tä\"}",
    );
    is(
        "[!!str 1, !!str null, ! true, !!int 1, !!null null, !!seq [a]]",
        r#"[T"1", T"null", T"true", N1, null, [T"a"]]"#,
    );
}

#[test]
fn aliases_and_merge_keys_are_what_they_stand_for() {
    is(
        "a: &x [1, {b: c}]\nd: *x\ne: &y f\n*y : g",
        r#"{a: [N1, {b: T"c"}], d: [N1, {b: T"c"}], e: T"f", f: T"g"}"#,
    );
    // An anchor can be set anew.
    is("[&x 1, *x, &x 2, *x]", "[N1, N1, N2, N2]");
    is(
        "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 5\nd:\n  y: 6\n  <<: *b",
        "{a: {x: N1, y: N2}, b: {y: N3, z: N4}, c: {x: N5, y: N2, z: N4}, d: {y: N6, z: N4}}",
    );
    is(
        "a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b}",
        "{a: {x: N1}, b: {y: N2, x: N1}, c: {y: N2, x: N1}}",
    );
    is("'<<': 1", "{<<: N1}");
    // What was merged is told where it is written.
    let node = read("a: &a\n  x: 1\nb:\n  <<: *a").unwrap();
    let problems = Problems::new(String::new());
    let root = Item::root(&node, &problems);
    let merged = &root.entries()[1].1.entries()[0].1;
    assert_eq!(
        (merged.path.as_str(), merged.node.place),
        ("b.x", Place { line: 2, column: 6 })
    );
}

#[test]
fn places_are_lines_and_columns_of_characters() {
    let node = read("ä: {b: [1, ü, c]}\nd:\n  - e\n  - f: g\n").unwrap();
    let problems = Problems::new(String::new());
    let entries = Item::root(&node, &problems).entries();
    let items = entries[0].1.entries()[0].1.items();
    assert_eq!(
        items[2].node.place,
        Place {
            line: 1,
            column: 15
        }
    );
    let items = entries[1].1.items();
    assert_eq!(items[0].node.place, Place { line: 3, column: 5 });
    assert_eq!(
        items[1].entries()[0].1.node.place,
        Place { line: 4, column: 8 }
    );
}

#[test]
fn what_is_no_such_file_is_refused_with_its_place() {
    refused("a: 1\nb: 2\na: 3", r#"duplicate key "a" (x.yaml:3:1)"#);
    refused(
        "a: &a {x: 1}\nb: {<<: *a, <<: *a}",
        r#"duplicate key "<<" (x.yaml:2:13)"#,
    );
    refused(
        "a: 1\n---\nb: 2",
        "a second document; a file has one (x.yaml:2:1)",
    );
    refused(
        "? [a]\n: b",
        "a key is a text of at most 1024 bytes (x.yaml:1:3)",
    );
    refused(
        "a: {<<: 1}",
        "`<<` takes a table, or a list of tables (x.yaml:1:9)",
    );
    refused(
        "a: &a [1, *a]",
        "an alias within what it stands for (x.yaml:1:11)",
    );
    refused(
        "a: !reset b",
        "the tag !reset is not supported (x.yaml:1:4)",
    );
    refused(
        "a: !!int b",
        "the tag tag:yaml.org,2002:!int is not supported (x.yaml:1:4)",
    );
    for text in [
        "a: [",
        "a: 'b",
        "a: *b",
        "a:\n\tb: 1",
        "{a: 1",
        "a: b: c",
        "a: \0",
    ] {
        let told = read(text).unwrap_err();
        assert!(told.contains("(x.yaml:"), "{text:?}: {told}");
    }
}

#[test]
fn a_few_lines_do_not_become_a_billion() {
    let laughs = |first: &str, times: usize| {
        let mut text = format!("a0: &a0 {first}\n");
        for line in 1..30 {
            let above = vec![format!("*a{}", line - 1); times].join(", ");
            text.push_str(&format!("a{line}: &a{line} [{above}]\n"));
        }
        text
    };
    let large = "more than 100000 values, or 8388608 bytes, where aliases are replaced";
    let told = read(&laughs("lol", 10)).unwrap_err();
    assert!(told.contains(large), "{told}");
    let told = read(&laughs(&"lol".repeat(100_000), 2)).unwrap_err();
    assert!(told.contains(large), "{told}");
    let mut deep = "a0: &a0 []\n".to_owned();
    for line in 1..100 {
        deep.push_str(&format!("a{line}: &a{line} [*a{}]\n", line - 1));
    }
    let told = read(&deep).unwrap_err();
    assert!(told.contains("nested deeper than 64 levels"), "{told}");
    // Of each other's anchors, without a single alias.
    let anchors: String = (0..60).map(|level| format!("&a{level} [")).collect();
    let told = read(&format!("{anchors}{}", "x, ".repeat(90_000))).unwrap_err();
    assert!(told.contains("x.yaml:"), "{told}");
}

#[test]
fn what_is_nested_without_end_is_refused_soon() {
    let begun = std::time::Instant::now();
    for open in ["[", "{a: ", "{", "- ", "? ", "[{"] {
        let text = open.repeat((1 << 20) / open.len());
        read(&text).unwrap_err();
    }
    let stairs: String = (0..1000)
        .map(|level| format!("{}a:\n", " ".repeat(level)))
        .collect();
    refused(&stairs, "nested deeper than 64 levels (x.yaml:65:65)");
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
        read(&text).ok();
    }

    #[test]
    fn any_signs_are_read_or_refused(text in "[a0:\\-?\\[\\]{},&*!|>'\"%@`#<~\\\\. \n\t]{0,60}") {
        read(&text).ok();
    }

    #[test]
    fn what_is_written_comes_back(texts in prop::collection::vec("\\PC{0,12}", 0..6)) {
        let lines: Vec<String> = texts.iter().map(|text| format!("- '{}'\n", text.replace('\'', "''"))).collect();
        let node = read(&lines.concat()).unwrap();
        let expected: Vec<String> = texts.iter().map(|text| format!("T{text:?}")).collect();
        let expected = if texts.is_empty() { "null".to_owned() } else { format!("[{}]", expected.join(", ")) };
        prop_assert_eq!(shown(&node), expected);
    }
}
