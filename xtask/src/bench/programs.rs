//! Programs in C, which do one thing and nothing besides.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::stage::done;

/// A program's name, and its source.
pub(super) type Source = (&'static str, &'static [u8]);

/// The floor: asks the kernel for a container and for nothing else. No runtime can be
/// faster than its calls are.
pub(super) const FLOOR: Source = ("floor", include_bytes!("floor.c"));

/// Writes lines at a given pace.
pub(super) const FLOOD: Source = ("flood", include_bytes!("flood.c"));

/// Builds it in this folder.
pub(super) fn build(folder: &Path, (name, text): Source) -> Result<PathBuf> {
    let source = folder.join(name).with_extension("c");
    File::create(&source)
        .and_then(|mut file| file.write_all(text))
        .with_context(|| format!("cannot write {}", source.display()))?;
    let program = folder.join(name);
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-static", "-Wall", "-Werror", "-o"]);
    done(compile.arg(&program).arg(&source))?;
    Ok(program)
}
