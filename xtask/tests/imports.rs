//! Dependencies point one way: what a file names by `crate::`, `super::` and `self::` paths, anywhere in its text, is
//! compared with the order of the rooms below. Nothing names a room above its own, no capability another one, and the
//! files of a crate form no circle.
//!
//! Names that a `mod.rs` re-exports count as those of the file that defines them, so a facade makes no circle.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The rooms of a crate from the top to the bottom: a room may name those in later rows and itself, never one beside it
/// or above. A file that no prefix names belongs to the first row.
struct Order {
    source: &'static str,
    rows: &'static [&'static [&'static str]],
}

const ORDERS: [Order; 3] = [
    Order {
        source: "engine/src",
        // A queue's `max_rate` has the limiter's bounds, and both count in windows.
        rows: &[
            &["cache", "queue", "semaphore", "topic"],
            &["limiter"],
            &["window"],
            &["hash", "seqlock"],
            &["words", "fingerprint"],
        ],
    },
    Order {
        source: "src",
        rows: &[
            &["maintenance"],
            &["cache", "kv", "queue", "rate_limit", "semaphore"],
            &["coherent"],
            &["cron"],
            &["shmem"],
            &["capability"],
            &["pg"],
            &["guc"],
            &["error"],
        ],
    },
    Order { source: "bench/src", rows: &[] },
];

/// A file's text without comments, string literals and tests.
fn code(text: &str) -> String {
    let text = text.find("#[cfg(test)]\nmod tests {").map_or(text, |tests| &text[..tests]);
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if next == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            0
        };
        if skipped == 0 {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skipped..];
        }
    }
    code
}

/// Identifiers, `::`, and single characters.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let len = if word > 0 {
            word
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        tokens.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    tokens
}

/// A path from the crate's root.
type Names = Vec<String>;

/// The paths that begin at `at`, with the braces of an import opened out, and whether it is a re-export.
fn paths(tokens: &[&str], at: usize, prefix: &[String], found: &mut Vec<Names>) -> usize {
    let mut names = prefix.to_vec();
    let mut at = at;
    loop {
        match tokens.get(at) {
            Some(&"{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    at = if tokens[at] == "," { at + 1 } else { paths(tokens, at, &names, found) };
                }
                return at + 1;
            }
            Some(&"*") => {
                found.push(names);
                return at + 1;
            }
            Some(name) if name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                if *name != "self" {
                    names.push((*name).to_owned());
                }
                at += 1;
            }
            _ => {
                found.push(names);
                return at + 1;
            }
        }
        match tokens.get(at) {
            Some(&"::") => at += 1,
            Some(&"as") => {
                found.push(names);
                return at + 2;
            }
            _ => {
                found.push(names);
                return at;
            }
        }
    }
}

/// What one file says: the paths that it names, and those that it re-exports.
#[derive(Default)]
struct Said {
    named: Vec<Names>,
    reexported: Vec<Names>,
}

/// `module` is the path of the file's own module, whose children `children` are.
fn said(text: &str, module: &[String], children: &BTreeSet<String>) -> Said {
    let code = code(text);
    let tokens = tokens(&code);
    let mut said = Said::default();
    let mut at = 0;
    // Modules inside of the file are children that have no file: how deep in braces each begins.
    let (mut depth, mut inline) = (0_usize, Vec::new());
    while at < tokens.len() {
        match tokens[at] {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inline.pop_if(|begins| *begins == depth);
            }
            "mod" if tokens.get(at + 2) == Some(&"{") => inline.push(depth),
            _ => {}
        }
        let own: Names = module.iter().cloned().chain(inline.iter().map(|_| String::from("{}"))).collect();
        let begins = at == 0 || tokens[at - 1] != "::";
        let followed = tokens.get(at + 1) == Some(&"::");
        let mut base = None;
        if begins && followed {
            match tokens[at] {
                "crate" => base = Some((Vec::new(), at + 2)),
                "self" => base = Some((own.clone(), at + 2)),
                "super" => {
                    let mut up = own.len().saturating_sub(1);
                    let mut next = at + 2;
                    while tokens.get(next) == Some(&"super") && tokens.get(next + 1) == Some(&"::") {
                        up = up.saturating_sub(1);
                        next += 2;
                    }
                    base = Some((own[..up].to_vec(), next));
                }
                child if children.contains(child) => base = Some((module.to_vec(), at)),
                _ => {}
            }
        }
        let Some((prefix, from)) = base else {
            at += 1;
            continue;
        };
        // `pub use …;` and `pub(crate) use …;` pass names on.
        let before = &tokens[at.saturating_sub(5)..at];
        let reexport = before.last() == Some(&"use")
            && (before.iter().rev().nth(1) == Some(&"pub") || before.iter().rev().nth(1) == Some(&")"));
        let restricted = before.len() >= 2 && before[before.len() - 2..] == ["(", "in"]
            || before.last() == Some(&"(") && before.iter().rev().nth(1) == Some(&"pub");
        let mut found = Vec::new();
        at = paths(&tokens, from, &prefix, &mut found).max(at + 1);
        if !restricted {
            if reexport { &mut said.reexported } else { &mut said.named }.append(&mut found);
        }
    }
    said
}

/// The files of a crate: the module path of each, and its text.
fn files(root: &Path) -> Result<BTreeMap<Names, (String, String)>> {
    fn walk(dir: &Path, root: &Path, found: &mut BTreeMap<Names, (String, String)>) -> Result<()> {
        for entry in fs::read_dir(dir).with_context(|| format!("can't read {}", dir.display()))? {
            let path = entry?.path();
            let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "tests" {
                    walk(&path, root, found)?;
                }
            } else if let Some(stem) = name.strip_suffix(".rs").filter(|stem| *stem != "tests") {
                let file = path.strip_prefix(root)?.to_string_lossy().into_owned();
                let mut module: Names = path
                    .parent()
                    .context("a folder")?
                    .strip_prefix(root)?
                    .iter()
                    .map(|part| part.to_string_lossy().into_owned())
                    .collect();
                if !["mod", "lib", "main"].contains(&stem) {
                    module.push(stem.to_owned());
                }
                // `main.rs` beside `lib.rs` is a crate of its own that names nothing of the other by `crate::`.
                if stem == "main" && found.contains_key(&module) {
                    continue;
                }
                found.insert(module, (file, fs::read_to_string(&path)?));
            }
        }
        Ok(())
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut found)?;
    Ok(found)
}

/// Which file names which, by re-exports to where a name comes from.
fn edges(files: &BTreeMap<Names, (String, String)>) -> BTreeMap<&str, BTreeSet<&str>> {
    let said: BTreeMap<&Names, Said> = files
        .iter()
        .map(|(module, (_, text))| {
            let children = files.keys().filter(|other| other.len() == module.len() + 1 && other.starts_with(module));
            (module, said(text, module, &children.filter_map(|child| child.last().cloned()).collect()))
        })
        .collect();
    // Macros that are exported stand at the crate's root, wherever they are written.
    let macros: BTreeMap<&str, &Names> = files
        .iter()
        .flat_map(|(module, (_, text))| {
            let exported = text.split("#[macro_export]\nmacro_rules! ").skip(1);
            exported.filter_map(move |rest| Some((rest.split(' ').next()?, module)))
        })
        .collect();
    let resolve = |path: &Names| -> Option<&Names> {
        if let [name] = &path[..]
            && let Some(module) = macros.get(name.as_str())
            && !files.contains_key(path)
        {
            return Some(module);
        }
        let mut path = path.clone();
        for _ in 0..8 {
            let module =
                (0..=path.len()).rev().find_map(|len| files.get_key_value(&path[..len]).map(|(key, _)| key))?;
            let item = path.get(module.len());
            let passed_on = item.and_then(|item| said[module].reexported.iter().find(|name| name.last() == Some(item)));
            match passed_on {
                Some(origin) if *origin != path => path.clone_from(origin),
                _ => return Some(module),
            }
        }
        None
    };
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, said) in &said {
        let from = files[*module].0.as_str();
        edges.entry(from).or_default();
        for to in said.named.iter().filter_map(&resolve).filter(|to| to != module) {
            edges.entry(from).or_default().insert(files[to].0.as_str());
        }
    }
    edges
}

/// The row of the room that a file belongs to, and its name there.
fn room<'a>(order: &Order, file: &'a str) -> (usize, &'a str) {
    let name = file.split(['/', '.']).next().unwrap_or(file);
    let row = order.rows.iter().position(|row| row.contains(&name));
    row.map_or((0, name), |row| (row + 1, name))
}

/// The circles: sets of files each of which leads to each other one.
fn circles<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<Vec<&'a str>> {
    let reach = |from: &'a str| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from];
        while let Some(file) = next.pop() {
            for to in edges.get(file).into_iter().flatten() {
                if seen.insert(*to) {
                    next.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = edges.keys().map(|file| (*file, reach(file))).collect();
    let circle = |file: &&'a str| -> Option<Vec<&'a str>> {
        let own = reached.get(file)?;
        let circle: Vec<&str> =
            own.iter().copied().filter(|other| reached.get(other).is_some_and(|back| back.contains(*file))).collect();
        (!circle.is_empty()).then_some(circle)
    };
    edges.keys().filter_map(circle).collect()
}

#[test]
fn dependencies_point_one_way() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut problems = Vec::new();
    for order in &ORDERS {
        let files = files(&workspace.join(order.source))?;
        let edges = edges(&files);
        ensure!(
            files.len() > 10 && edges.values().map(BTreeSet::len).sum::<usize>() > files.len(),
            "{}: hardly anything was read",
            order.source
        );
        let mut against = BTreeSet::new();
        for (from, targets) in &edges {
            for to in targets {
                let ((row, name), (other_row, other)) = (room(order, from), room(order, to));
                if name != other && other_row <= row && !order.rows.is_empty() {
                    against.insert(format!("{from} -> {other}"));
                }
            }
        }
        problems.extend(against.iter().map(|name| format!("{}: {name} is against the order", order.source)));
        problems.extend(circles(&edges).iter().map(|circle| format!("{}: a circle: {circle:?}", order.source)));
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

#[test]
fn a_step_up_a_neighbour_and_a_circle_are_found() {
    let file = |module: &[&str], name: &str, text: &str| {
        (module.iter().map(|part| (*part).to_owned()).collect::<Names>(), (name.to_owned(), text.to_owned()))
    };
    let files = BTreeMap::from([
        file(&[], "lib.rs", "mod low; mod high; mod plain;"),
        file(
            &["low"],
            "low/mod.rs",
            "//! Not crate::plain.\nmod part;\npub use part::{Part, made};\nfn f() { crate::high::f() }",
        ),
        file(
            &["low", "part"],
            "low/part.rs",
            "const TEXT: &str = \"crate::plain\"; mod inner { use super::super::g; }",
        ),
        file(&["high"], "high.rs", "use crate::{low::{self, Part}, plain as other};"),
        file(&["plain"], "plain.rs", "#[cfg(test)]\nmod tests {\n    use crate::high;\n}"),
    ]);
    let edges = edges(&files);
    let of = |name: &str| edges[name].iter().copied().collect::<Vec<_>>();
    assert_eq!(of("low/mod.rs"), ["high.rs"], "neither comments nor re-exports count");
    assert_eq!(of("low/part.rs"), ["low/mod.rs"], "neither strings nor the nested module's own parent count");
    assert_eq!(of("high.rs"), ["low/mod.rs", "low/part.rs", "plain.rs"]);
    assert!(edges["plain.rs"].is_empty(), "tests don't count");
    assert_eq!(circles(&edges), BTreeSet::from([vec!["high.rs", "low/mod.rs", "low/part.rs"]]));
    let order = Order { source: "", rows: &[&["high", "plain"], &["low"]] };
    assert!(
        room(&order, "low/mod.rs").0 > room(&order, "high.rs").0
            && room(&order, "high.rs").0 == room(&order, "plain.rs").0
    );
}
