//! Running other programs: as root where that is needed, quietly with the output kept, and with errors that say
//! which command failed and how it ended.

use crate::paths;
use anyhow::{Context, Result, bail};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

/// How much of a failed command's output is shown.
const SHOWN_LINES: usize = 40;

/// Prints a line that says what the task is about to do.
pub fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    // Output that nobody reads any more is no reason to stop working.
    let _ = writeln!(out, "==> {what}").and_then(|()| out.flush());
}

/// Says what `work` is about to do, and how long that took.
pub fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(what);
    let began = Instant::now();
    let outcome = work()?;
    println!("    {:.0} s", began.elapsed().as_secs_f64());
    Ok(outcome)
}

/// The command as one would type it, but for the text of inline scripts.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| word.to_string_lossy());
    words.map(|word| if word.contains('\n') { "…".into() } else { word }).collect::<Vec<_>>().join(" ")
}

/// Runs `command` with its output shown.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("can't start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Runs `command` and returns what it wrote to its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't start `{}`", line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}\n{}", line(command), output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` with its output going to a log below the target directory. The end of the log is part of the error.
pub fn quiet(name: &str, command: &mut Command) -> Result<()> {
    filtered(name, command, |_| false)
}

/// Like [`quiet`], but the lines of its standard error that `shown` chooses are shown as well.
pub fn filtered(name: &str, command: &mut Command, shown: impl Fn(&str) -> bool) -> Result<()> {
    let dir = paths::target().join("xtask");
    fs::create_dir_all(&dir).with_context(|| format!("can't create {}", dir.display()))?;
    let path = dir.join(format!("{name}.log"));
    // Both streams append, so that neither overwrites the other.
    fs::write(&path, "").with_context(|| format!("can't write {}", path.display()))?;
    let mut log = OpenOptions::new().append(true).open(&path)?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("can't start `{}`", line(command)))?;
    let stream = child.stderr.take().context("no pipe to the command")?;
    for bytes in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let text = String::from_utf8_lossy(&bytes);
        writeln!(log, "{text}").with_context(|| format!("can't write {}", path.display()))?;
        if shown(&text) {
            eprintln!("{text}");
        }
    }
    let status = child.wait().with_context(|| format!("lost `{}`", line(command)))?;
    if !status.success() {
        let text = fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|line| !shown(line)).collect();
        let end = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        bail!("`{}` failed: {status}\n{end}\n(all of it: {})", line(command), path.display());
    }
    Ok(())
}

/// Whether `command` can be run and succeeds. Its output isn't shown.
pub fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether `program` is found on the path.
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file())
}

/// A command that runs `program` as root: directly where the own user is root, by `sudo` otherwise.
///
/// `purpose` completes the error message "root is needed to …".
pub fn as_root(program: &str, purpose: &str) -> Result<Command> {
    if nix::unistd::geteuid().is_root() {
        return Ok(Command::new(program));
    }
    if !have("sudo") {
        bail!("root is needed to {purpose}, and there is no sudo here: run this once as root, or do that by hand");
    }
    let allowed = Command::new("sudo").arg("-v").status().is_ok_and(|status| status.success());
    if !allowed {
        bail!("root is needed to {purpose}, and sudo refused: run this once as root, or do that by hand");
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    Ok(command)
}
