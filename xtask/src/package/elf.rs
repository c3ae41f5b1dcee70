//! What a shared library asks of the system that loads it.

use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;
use xtask::shell;

/// The newest version of the C library whose symbols `library` needs, as `2.34`. A system with an older one can't load it.
pub(super) fn needed_libc(library: &Path) -> Result<String> {
    let symbols = shell::output(Command::new("objdump").arg("-T").arg(library))?;
    newest(&symbols).with_context(|| format!("{} needs nothing of the C library", library.display()))
}

/// The newest `GLIBC_….…` in a table of symbols.
fn newest(symbols: &str) -> Option<String> {
    let versions = symbols.split("GLIBC_").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let mut numbers = rest[..end].split('.').map(|number| number.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??))
    });
    versions.max().map(|(major, minor)| format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_counts_by_its_numbers() {
        let table = "0000 DF *UND* 0000 (GLIBC_2.2.5) memcpy\n0000 w DF *UND* (GLIBC_2.34) x\n0000 (GLIBC_2.9) y\n";
        assert_eq!(newest(table), Some("2.34".to_owned()));
        assert_eq!(newest("no symbols\n"), None);
        assert_eq!(newest("GLIBC_PRIVATE"), None);
    }
}
