//! `linux.seccomp` of a config: several ABIs.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use dyno_tests::bundle::Bundle;
use serde_json::{Value, json};

/// A static x86_64 program that makes one call of the 32-bit ABI, `int 0x80`, and
/// exits with its errno.
fn calling_i386(number: u8) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    let mut code = vec![0xb8, number, 0, 0, 0, 0xcd, 0x80]; // mov eax, number; int 0x80
    code.extend([0x89, 0xc7, 0xf7, 0xdf]); // mov edi, eax; neg edi
    code.extend([0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // exit
    let size = 120 + code.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + 120, 64, 0] {
        out.extend(word.to_le_bytes());
    }
    out.extend([
        0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0,
    ]);
    for word in [0, BASE, BASE, size, size, 0x1000] {
        out.extend(word.to_le_bytes());
    }
    out.extend(code);
    out
}

#[test]
fn the_architectures_that_are_listed_are_open_and_filtered() {
    let inside = |seccomp: Option<Value>| {
        let mut bundle = Bundle::script("/getuid; echo $?; /mkdir; echo $?");
        for (name, number) in [("getuid", 24), ("mkdir", 39)] {
            let path = bundle.path().join("layer").join(name);
            let mut file = File::create(&path).unwrap();
            file.write_all(&calling_i386(number)).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        if let Some(seccomp) = seccomp {
            bundle.config["linux"]["seccomp"] = seccomp;
        }
        bundle.run().stdout
    };
    let profile = |archs: &[&str]| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": archs,
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
        })
    };
    let control = inside(None);
    if control.starts_with("139") {
        dyno_tests::skip("the kernel has no 32-bit emulation");
        return;
    }
    assert_eq!(
        control, "0\n14\n",
        "EFAULT: without a filter the kernel looks at the path"
    );
    let three = profile(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    assert_eq!(inside(Some(three)), "0\n28\n");
    // 128 + SIGSYS
    assert_eq!(inside(Some(profile(&["SCMP_ARCH_X86_64"]))), "159\n159\n");
}
