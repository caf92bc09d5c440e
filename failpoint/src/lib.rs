//! Named places where a test kills a program, as `kill -9` does at that moment.
//!
//! A crash matters where one step is done and the next is not. Between steps there is a
//! [`failpoint`]; a test finds all of them in the source, so that a step that is added
//! is tried with the others.
//!
//! They are compiled with debug assertions only, as tests' programs are: a release build
//! has neither the calls nor the names, and `cargo xtask dist` refuses one that has.
//! A feature of cargo would do the same with a second build of everything.

/// The variable with the path of a file whose content is the name of one place. Whoever
/// comes there first removes the file and is killed.
#[cfg(debug_assertions)]
const VARIABLE: &str = "DYNO_FAILPOINT";

/// The variable and its value, for a program that is started with no other variables.
/// None in a release.
pub fn variable() -> Option<(&'static str, std::ffi::OsString)> {
    #[cfg(debug_assertions)]
    return std::env::var_os(VARIABLE).map(|value| (VARIABLE, value));
    #[cfg(not(debug_assertions))]
    return None;
}

/// A place between two steps: `operation.step`, the step that is done.
#[inline(always)]
#[expect(clippy::inline_always, reason = "nothing of it is left in a release")]
pub fn failpoint(name: &'static str) {
    #[cfg(debug_assertions)]
    armed::pass(name);
    #[cfg(not(debug_assertions))]
    let _: &str = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    use rustix::process::{Signal, getpid, kill_process};

    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();

    pub(super) fn pass(name: &str) {
        let file = FILE.get_or_init(|| std::env::var_os(super::VARIABLE).map(PathBuf::from));
        let Some(file) = file else {
            return;
        };
        let is_meant = std::fs::read_to_string(file).is_ok_and(|meant| meant == name);
        // Of several that are there at the same time, one has removed it.
        if is_meant && std::fs::remove_file(file).is_ok() {
            // Nothing is there to be told that it failed.
            kill_process(getpid(), Signal::KILL).ok();
            loop {
                std::thread::park();
            }
        }
    }
}
