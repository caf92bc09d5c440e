//! The floor: a program in C that asks the kernel for a container and for
//! nothing else. No runtime can be faster than its calls are.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::stage::done;

/// Builds it in this folder.
pub(super) fn build(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("floor.c");
    let text = include_bytes!("floor.c");
    File::create(&source)
        .and_then(|mut file| file.write_all(text))
        .with_context(|| format!("cannot write {}", source.display()))?;
    let program = folder.join("floor");
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-static", "-Wall", "-Werror", "-o"]);
    done(compile.arg(&program).arg(&source))?;
    Ok(program)
}
