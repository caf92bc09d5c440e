//! Policy and program against the kernel's v1 controller, told in other words.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::program::{DEV_BLOCK, DEV_CHAR};
use super::*;

/// `security/device_cgroup.c`, as far as one group goes: a list of exceptions that is
/// searched from end to end, and never an error.
#[derive(Clone, Debug, Default)]
struct Controller {
    allows: bool,
    exceptions: Vec<(Nodes, u8)>,
}

impl Controller {
    /// `devcgroup_update_access()`
    fn write(&mut self, rule: &Rule) {
        let Some(nodes) = rule.nodes else {
            self.allows = rule.allow;
            self.exceptions.clear();
            return;
        };
        let known = self.exceptions.iter().position(|(same, _)| *same == nodes);
        match (rule.allow == self.allows, known) {
            (true, Some(at)) => {
                self.exceptions[at].1 &= !rule.access.0;
                self.exceptions.retain(|(_, access)| *access != 0);
            }
            (true, None) => {}
            (false, Some(at)) => self.exceptions[at].1 |= rule.access.0,
            (false, None) => self.exceptions.push((nodes, rule.access.0)),
        }
    }

    /// `devcgroup_legacy_check_permission()`
    fn decides(&self, kind: i32, access: u8, major: u32, minor: u32) -> bool {
        let same = |nodes: &Nodes| {
            (nodes.kind == Kind::Block) == (kind == DEV_BLOCK)
                && nodes.major.is_none_or(|number| number == major)
                && nodes.minor.is_none_or(|number| number == minor)
        };
        let mut matching = self.exceptions.iter().filter(|(nodes, _)| same(nodes));
        if self.allows {
            !matching.any(|(_, denied)| access & denied != 0)
        } else {
            matching.any(|(_, allowed)| access & !allowed == 0)
        }
    }
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

fn of_config(devices: Value) -> Result<Policy, Error> {
    let devices: Vec<LinuxDeviceCgroup> = serde_json::from_value(devices).unwrap();
    policy(&devices)
}

fn rule() -> impl Strategy<Value = Rule> {
    let kind = prop_oneof![Just(Kind::Block), Just(Kind::Char)];
    let number = || prop::option::of(0_u32..3);
    let nodes =
        (kind, number(), number()).prop_map(|(kind, major, minor)| Nodes { major, minor, kind });
    let nodes = prop::option::weighted(0.85, nodes);
    (any::<bool>(), nodes, 1_u8..8).prop_map(|(allow, nodes, access)| Rule {
        allow,
        nodes,
        access: Access(access),
    })
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(rule(), 0..8)
}

/// Leaves out the rules that are refused, as nothing says what they would mean.
fn both(rules: &[Rule]) -> (Policy, Controller) {
    let (mut policy, mut controller) = (Policy::default(), Controller::default());
    for rule in rules {
        let before = policy.clone();
        match policy.apply(rule) {
            Ok(()) => controller.write(rule),
            Err(_) => policy = before,
        }
    }
    (policy, controller)
}

/// `devices.list` of a group.
fn list(controller: &Controller) -> String {
    if controller.allows {
        return "a *:* rwm".into();
    }
    let lines = controller.exceptions.iter().map(|(nodes, access)| {
        let rule = Rule {
            allow: true,
            nodes: Some(*nodes),
            access: Access(*access),
        };
        rule.line()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn requests() -> impl Iterator<Item = (i32, u8, u32, u32)> {
    let numbers = || (0..3).flat_map(|major| (0..3).map(move |minor| (major, minor)));
    let accesses = (1..3).flat_map(|kind| (1..8).map(move |access| (kind, access)));
    accesses.flat_map(move |(kind, access)| {
        numbers().map(move |(major, minor)| (kind, access, major, minor))
    })
}

proptest! {
    #[test]
    fn the_program_decides_as_the_v1_controller_would(rules in rules()) {
        let (policy, controller) = both(&rules);
        let program = compile(&policy);
        for (kind, access, major, minor) in requests() {
            prop_assert_eq!(
                run(&program, kind, access, major, minor),
                controller.decides(kind, access, major, minor),
                "kind {} access {} {}:{} by {:?}", kind, access, major, minor, policy
            );
        }
    }

    #[test]
    fn a_group_is_led_from_any_policy_to_any_other(from in rules(), to in rules()) {
        let (old, mut group) = both(&from);
        let (target, wanted) = both(&to);
        let gradual = !old.allow_by_default && !target.allow_by_default;
        for step in Policy::from_list(&list(&group)).unwrap().transition(&target) {
            group.write(&step);
            for (nodes, access) in old.exceptions.iter().filter(|_| gradual) {
                let kept = target.exceptions.get(nodes).map_or(0, |new| new.0 & access.0);
                let now = group.exceptions.iter().find(|(same, _)| same == nodes);
                let now = now.map_or(0, |(_, access)| *access);
                prop_assert_eq!(now & kept, kept, "{:?} is allowed all the time", nodes);
            }
        }
        for (kind, access, major, minor) in requests() {
            prop_assert_eq!(
                group.decides(kind, access, major, minor),
                wanted.decides(kind, access, major, minor)
            );
        }
    }
}

#[test]
fn without_rules_only_the_default_devices_can_be_opened() {
    let program = compile(&of_config(json!([])).unwrap());
    assert!(run(&program, DEV_CHAR, 7, 1, 3), "null");
    assert!(run(&program, DEV_CHAR, 6, 136, 12), "a terminal");
    assert!(!run(&program, DEV_CHAR, 2, 1, 1), "mem");
    assert!(
        !run(&program, DEV_BLOCK, 2, 1, 3),
        "a block device with null's numbers"
    );
    assert!(run(&program, DEV_BLOCK, 1, 8, 0), "but made, as in runc");
    assert!(!run(&program, DEV_BLOCK, 3, 8, 0), "and not opened with it");
}

#[test]
fn rules_of_a_config_are_understood() {
    let policy = of_config(json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" },
        { "allow": true, "type": "b", "major": 7, "minor": -1, "access": "r" },
    ]));
    let program = compile(&policy.unwrap());
    assert!(run(&program, DEV_CHAR, 6, 10, 229));
    assert!(
        !run(&program, DEV_CHAR, 7, 10, 229),
        "m was not granted with rw"
    );
    assert!(run(&program, DEV_BLOCK, 2, 7, 9));
    assert!(!run(&program, DEV_BLOCK, 4, 7, 9));
}

/// What runc, crun and the v1 controller make of these.
#[test]
fn a_rule_for_everything_forgets_all_before_it() {
    let allow_all = json!({ "allow": true, "access": "rwm" });
    let deny_all = json!({ "allow": false, "access": "rwm" });
    let kmsg = json!({ "allow": true, "type": "c", "major": 1, "minor": 11 });
    let privileged = of_config(json!([deny_all, allow_all])).unwrap();
    assert!(privileged.allows_everything());
    assert!(run(&compile(&privileged), DEV_CHAR, 7, 1, 1));

    let forgotten = compile(&of_config(json!([kmsg, deny_all])).unwrap());
    assert!(!run(&forgotten, DEV_CHAR, 2, 1, 11));
    let numbered = json!({ "allow": true, "type": "a", "major": 1, "minor": 3, "access": "r" });
    assert!(
        of_config(json!([numbered])).unwrap().allows_everything(),
        "numbers beside `a`"
    );

    let but = json!({ "allow": false, "type": "c", "major": 1, "minor": 11, "access": "r" });
    let but_kmsg = compile(&of_config(json!([allow_all, but])).unwrap());
    assert!(
        run(&but_kmsg, DEV_CHAR, 4, 1, 11),
        "writing is still allowed"
    );
    assert!(
        !run(&but_kmsg, DEV_CHAR, 6, 1, 11),
        "reading with it is not"
    );
}

#[test]
fn a_hole_in_a_wildcard_is_refused() {
    let error = of_config(json!([
        { "allow": true, "type": "c", "major": 10, "access": "rw" },
        { "allow": false, "type": "c", "major": 10, "minor": 229, "access": "w" },
    ]));
    let message = error.unwrap_err().to_string();
    assert!(message.contains("c 10:229 w"), "{message}");
    assert!(message.contains("c 10:* rw"), "{message}");
    let whole = of_config(json!([
        { "allow": true, "type": "c", "major": 10, "access": "rw" },
        { "allow": false, "type": "c", "major": 10, "access": "w" },
    ]));
    let program = compile(&whole.unwrap());
    assert!(run(&program, DEV_CHAR, 2, 10, 229));
    assert!(!run(&program, DEV_CHAR, 4, 10, 229));
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
        (
            json!([{ "allow": true, "type": "u" }]),
            "rule 0: type \"u\" is unknown",
        ),
    ];
    for (devices, message) in cases {
        assert_eq!(of_config(devices).unwrap_err().to_string(), message);
    }
    assert!(Policy::from_list("c 1:3").is_err());
    assert!(Policy::from_list("x 1:3 r").is_err());
}

#[test]
fn a_v1_group_gets_only_what_differs() {
    let target = of_config(json!([{ "allow": true, "type": "b", "major": 7, "access": "r" }]));
    let target = target.unwrap();
    let fresh = Policy::from_list("a *:* rwm").unwrap().transition(&target);
    assert_eq!(
        (fresh[0].v1_file(), fresh[0].line().as_str()),
        ("devices.deny", "a")
    );
    assert!(
        fresh[1..]
            .iter()
            .all(|rule| rule.v1_file() == "devices.allow")
    );

    let lines = target.exceptions.iter().map(|(nodes, access)| Rule {
        allow: true,
        nodes: Some(*nodes),
        access: *access,
    });
    let mut lines: Vec<String> = lines.map(|rule| rule.line()).collect();
    let now = Policy::from_list(&lines.join("\n")).unwrap();
    assert_eq!(now.transition(&target), []);
    lines.retain(|line| line != "b 7:* r");
    lines.push("c 10:229 rw".into());
    let now = Policy::from_list(&lines.join("\n")).unwrap();
    let steps = now.transition(&target);
    let steps = steps.iter().map(|rule| (rule.v1_file(), rule.line()));
    let expected = [
        ("devices.deny", "c 10:229 rw".to_owned()),
        ("devices.allow", "b 7:* r".to_owned()),
    ];
    assert_eq!(steps.collect::<Vec<_>>(), expected);
}
