//! The map that the linker (lld) writes of a program.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};

/// The input sections with code, by address.
#[derive(Debug)]
pub(super) struct Map(Vec<Section>);

#[derive(Debug)]
struct Section {
    addresses: Range<u64>,
    /// The object file it came from, in an archive or not.
    file: String,
    name: String,
}

impl Map {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(Self::parse(&text))
    }

    /// Lines of an input section hold its address twice, its size, its alignment, and
    /// `file:(section)`.
    fn parse(text: &str) -> Self {
        let section = |line: &str| {
            let mut fields = line.split_ascii_whitespace();
            let mut number = || u64::from_str_radix(fields.next()?, 16).ok();
            let (start, _, size) = (number()?, number()?, number()?);
            fields.next()?;
            let (file, name) = fields.next()?.rsplit_once(":(")?;
            let name = name.strip_suffix(')')?;
            name.starts_with(".text").then(|| Section {
                addresses: start..start + size,
                file: file.to_owned(),
                name: name.to_owned(),
            })
        };
        let mut sections: Vec<Section> = text.lines().filter_map(section).collect();
        sections.sort_by_key(|section| section.addresses.start);
        Self(sections)
    }

    /// From the first instruction to the last.
    pub(super) fn bounds(&self) -> Option<Range<u64>> {
        Some(self.0.first()?.addresses.start..self.0.last()?.addresses.end)
    }

    /// Patterns of a linker script for the sections of these instructions, in the
    /// order in which each is met first.
    pub(super) fn patterns(&self, addresses: &[u64]) -> Vec<String> {
        let mut patterns = Vec::new();
        for address in addresses {
            let after = self
                .0
                .partition_point(|section| section.addresses.start <= *address);
            let section = after.checked_sub(1).and_then(|index| self.0.get(index));
            let pattern = section
                .filter(|section| section.addresses.contains(address))
                .map(Section::pattern);
            if let Some(pattern) = pattern
                && !patterns.contains(&pattern)
            {
                patterns.push(pattern);
            }
        }
        patterns
    }
}

impl Section {
    fn pattern(&self) -> String {
        let file = self.file.rsplit('/').next().unwrap_or_default();
        match file.strip_suffix(')').and_then(|file| file.split_once('(')) {
            // Each of the C library's functions has an object of its own.
            Some((archive, member)) if !self.name.contains("._R") => {
                format!("*{archive}:{member}({})", self.name)
            }
            None if self.name == ".text" => format!("*{file}(.text)"),
            _ => format!("*({})", without_hashes(&self.name)),
        }
    }
}

/// A mangled name (RFC 2603) as a pattern: hashes of crates are base-62 numbers
/// behind `Cs`, and references back, behind `B`, count letters, theirs among them.
/// Behind `Xs` and `Ms` implementations are numbered, by what features a crate has.
/// LLVM numbers what it has split.
fn without_hashes(name: &str) -> String {
    let mut pattern = String::new();
    let mut rest = name;
    while let Some(at) = rest.find(['C', 'B', 'X', 'M', '.']) {
        let (before, tail) = rest.split_at(at);
        pattern.push_str(before);
        let number = |text: &str, most: usize| {
            let length = text.find(|c: char| !c.is_ascii_alphanumeric())?;
            (text[length..].starts_with('_') && length <= most).then_some(length + 1)
        };
        let (kept, skipped) = if let Some(hash) = tail.strip_prefix("Cs") {
            ("Cs*_", number(hash, 13).map(|length| 2 + length))
        } else if let Some(implementation) = tail.strip_prefix("Xs") {
            ("Xs*_", number(implementation, 2).map(|length| 2 + length))
        } else if let Some(implementation) = tail.strip_prefix("Ms") {
            ("Ms*_", number(implementation, 2).map(|length| 2 + length))
        } else if let Some(back) = tail.strip_prefix('B') {
            ("B*_", number(back, 2).map(|length| 1 + length))
        } else if tail.starts_with(".llvm.") {
            (".llvm.*", Some(tail.len()))
        } else {
            ("", None)
        };
        match skipped {
            Some(length) => {
                pattern.push_str(kept);
                rest = &tail[length..];
            }
            None => {
                pattern.push_str(&tail[..1]);
                rest = &tail[1..];
            }
        }
    }
    pattern.push_str(rest);
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
             VMA              LMA     Size Align Out     In      Symbol
          200270           200270       20     4 .note.ABI-tag
          2f4fc0           2f4fc0       d8    16         /x/deps/dyno_runtime-1.o:(.text._RNvCs9cS1uFBEeFw_4main)
          2f4fc0           2f4fc0       d8     1                 main
          2f50a0           2f50a0       10    16         /usr/lib/x86_64-linux-gnu/libc.a(malloc.o):(.text)
          2f50b0           2f50b0       10    16         /usr/lib/crt1.o:(.text)
          2f5100           2f5100       10    16         /x/deps/dyno_runtime-1.o:(.rodata.x)
";

    #[test]
    fn sections_are_found_in_the_order_of_what_is_executed() {
        let map = Map::parse(MAP);
        assert_eq!(map.bounds(), Some(0x2f_4fc0..0x2f_50c0));
        let executed = [0x2f_50a4, 0x2f_4fc1, 0x2f_50a0, 0x2f_5098, 0x2f_50b0];
        let expected = [
            "*libc.a:malloc.o(.text)",
            "*(.text._RNvCs*_4main)",
            "*crt1.o(.text)",
        ];
        assert_eq!(map.patterns(&executed), expected);
    }

    #[test]
    fn a_name_is_a_pattern_without_its_hashes() {
        for (name, expected) in [
            (
                ".text._RNvNtCs9cS1uFBEeFw_12dyno_runtime7command4main",
                ".text._RNvNtCs*_12dyno_runtime7command4main",
            ),
            (
                ".text._RINvNtCsaaaa_4core3ptr13drop_in_placeNtB2_5CargoEB4_",
                ".text._RINvNtCs*_4core3ptr13drop_in_placeNtB*_5CargoEB*_",
            ),
            (
                ".text._RINvXs7_NtCsaaaa_10serde_json3serNtB6_8Compound",
                ".text._RINvXs*_NtCs*_10serde_json3serNtB*_8Compound",
            ),
            (".text._RNvC4main.llvm.123456", ".text._RNvC4main.llvm.*"),
            (".text.memcpy", ".text.memcpy"),
            (".text.B_", ".text.B*_"),
        ] {
            assert_eq!(without_hashes(name), expected, "{name}");
        }
    }
}
