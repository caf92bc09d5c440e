//! The program against a plain reading of the rules.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The rules by definition: of each access asked for, the last rule that mentions it
/// decides.
fn by_definition(rules: &[Rule], kind: i32, access: u8, major: u32, minor: u32) -> bool {
    let matches = |rule: &&Rule| {
        let same_kind = match rule.kind {
            Kind::All => true,
            Kind::Block => kind == DEV_BLOCK,
            Kind::Char => kind == DEV_CHAR,
        };
        same_kind
            && rule.major.is_none_or(|number| number == major)
            && rule.minor.is_none_or(|number| number == minor)
    };
    [Access::MKNOD, Access::READ, Access::WRITE]
        .iter()
        .filter(|one| access & one.0 != 0)
        .all(|one| {
            let mut deciding = rules
                .iter()
                .filter(matches)
                .filter(|r| r.access.0 & one.0 != 0);
            deciding.next_back().is_some_and(|rule| rule.allow)
        })
}

/// What the kernel would do with the program.
fn run(program: &[Insn], kind: i32, access: u8, major: u32, minor: u32) -> bool {
    let context = [kind.cast_unsigned() | u32::from(access) << 16, major, minor];
    let mut registers = [0_u32; 11];
    let mut at = 0;
    loop {
        let (code, dst, src, offset, immediate) = program[at].parts();
        at += 1;
        let value = immediate.cast_unsigned();
        match code {
            0x61 => registers[dst] = context[usize::try_from(offset / 4).unwrap()],
            0xbf => registers[dst] = registers[src],
            0xb7 => registers[dst] = value,
            0x54 => registers[dst] &= value,
            0x74 => registers[dst] >>= value,
            0x16 if registers[dst] == value => at += usize::try_from(offset).unwrap(),
            0x56 if registers[dst] != value => at += usize::try_from(offset).unwrap(),
            0x16 | 0x56 => {}
            0x95 => return registers[0] == 1,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn parse_all(devices: Value) -> Result<Vec<Rule>, Error> {
    let devices: Vec<LinuxDeviceCgroup> = serde_json::from_value(devices).unwrap();
    rules(&devices)
}

fn rule() -> impl Strategy<Value = Rule> {
    let kind = prop_oneof![Just(Kind::All), Just(Kind::Block), Just(Kind::Char)];
    let number = || prop::option::of(0_u32..3);
    (any::<bool>(), kind, number(), number(), 1_u8..8).prop_map(
        |(allow, kind, major, minor, access)| Rule {
            allow,
            kind,
            major,
            minor,
            access: Access(access),
        },
    )
}

proptest! {
    #[test]
    fn the_program_decides_as_the_rules_read(
        rules in prop::collection::vec(rule(), 0..8),
        kind in 1_i32..3,
        access in 1_u8..8,
        major in 0_u32..3,
        minor in 0_u32..3,
    ) {
        let expected = by_definition(&rules, kind, access, major, minor);
        prop_assert_eq!(run(&compile(&rules), kind, access, major, minor), expected);
    }
}

#[test]
fn without_rules_only_the_default_devices_are_there() {
    let program = compile(&parse_all(json!([])).unwrap());
    assert!(run(&program, DEV_CHAR, 7, 1, 3), "null");
    assert!(run(&program, DEV_CHAR, 6, 136, 12), "a terminal");
    assert!(!run(&program, DEV_CHAR, 2, 1, 1), "mem");
    assert!(
        !run(&program, DEV_BLOCK, 2, 1, 3),
        "a block device with null's numbers"
    );
}

#[test]
fn rules_of_a_config_are_understood() {
    let rules = parse_all(json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
        { "allow": true, "type": "b", "major": 7, "minor": -1, "access": "m" },
    ]));
    let program = compile(&rules.unwrap());
    assert!(run(&program, DEV_CHAR, 6, 10, 229));
    assert!(!run(&program, DEV_CHAR, 7, 10, 229), "m was not granted");
    assert!(run(&program, DEV_BLOCK, 1, 7, 9));
    assert!(!run(&program, DEV_BLOCK, 2, 7, 9));
}

#[test]
fn what_is_no_rule_is_refused_with_its_place() {
    let cases = [
        (
            json!([{ "allow": true, "access": "rx" }]),
            "rule 0: access \"rx\" is unknown",
        ),
        (
            json!([{ "allow": true, "major": -2 }]),
            "rule 0: major \"-2\" is unknown",
        ),
        (
            json!([{ "allow": true, "minor": 1_i64 << 33 }]),
            "rule 0: minor \"8589934592\" is unknown",
        ),
        (
            json!([{ "allow": true, "type": "p" }]),
            "rule 0: type \"p\" is unknown",
        ),
    ];
    for (devices, message) in cases {
        assert_eq!(parse_all(devices).unwrap_err().to_string(), message);
    }
}

#[test]
fn the_v1_controller_gets_the_same_rules_in_order() {
    let rules = parse_all(json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "major": 7, "access": "r" },
    ]));
    let writes = v1_writes(&rules.unwrap());
    let expected = [
        ("devices.deny", "a"),
        ("devices.deny", "a"),
        ("devices.allow", "b 7:* r"),
        ("devices.allow", "c 7:* r"),
        ("devices.allow", "c 1:3 rwm"),
    ];
    let expected = expected.map(|(file, value)| (file, value.to_owned()));
    assert_eq!(writes[..5], expected);
}
