//! The program of the guest: sets the machine up at boot, then obeys the harness.

fn main() -> anyhow::Result<()> {
    dyno_vm_tests::guest::main()
}
