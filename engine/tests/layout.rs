//! Every number of the engine is in the fingerprint of the layout, or known to be none of it. So a constant that is added
//! to a structure can't be left out of the fingerprint, which is what forces the layout version up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Numbers that say what is done, not what lies where: changing one leaves words that the old library understands.
const BEHAVIOUR: [(&str, &[&str]); 25] = [
    ("cache/arena.rs", &["RUNS_AT_ONCE"]),
    ("cache/evict.rs", &["ROUNDS"]),
    ("cache/barrier.rs", &["MOST_SESSIONS"]),
    ("cache/optimistic.rs", &["LOOKED_AT"]),
    ("cache/layout.rs", &["MAX_VALUE", "MIN_WORDS"]),
    ("cache/names.rs", &["MAX_NAME"]),
    ("cache/write.rs", &["WORK"]),
    ("limiter/evict.rs", &["LOOKS"]),
    ("limiter/limit.rs", &["MAX_PERIOD", "MAX_REQUESTS", "MIN_PERIOD"]),
    ("limiter/sliding_window.rs", &["EVEN"]),
    ("limiter/table.rs", &["MAX_RULES"]),
    ("queue/clock.rs", &["TOLERANCE"]),
    ("queue/durations.rs", &["LOOKS", "MANY"]),
    ("queue/notify.rs", &["NOTIFY_INTERVAL"]),
    ("queue/registry.rs", &["PART", "QUICK"]),
    ("queue/timers.rs", &["AHEAD"]),
    ("queue/lease.rs", &["PASSES"]),
    ("queue/numbered.rs", &["NEAR"]),
    ("queue/rates.rs", &["LOOKS", "AHEAD"]),
    ("queue/undecided.rs", &["AT_ONCE"]),
    ("queue/used_up.rs", &["BROUGHT"]),
    ("queue/wake.rs", &["MOST"]),
    ("queue/window.rs", &["RETRY", "KEPT", "REFILL", "SHARE", "SOON"]),
    ("topic.rs", &["LONGEST"]),
    // The keys' hash has no constants; its tests compare it with another implementation.
    ("hash.rs", &[]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of the integer constants in a source text.
fn integers(text: &str) -> BTreeSet<&str> {
    let declared = |line: &'_ str| -> Option<(usize, usize)> {
        let after = line.find("const ")? + "const ".len();
        let name = line[after..].find(": ")?;
        let kind = &line[after + name + 2..];
        ["usize =", "u8 =", "u16 =", "u32 =", "u64 =", "i64 =", "u128 ="]
            .iter()
            .any(|integer| kind.starts_with(integer))
            .then_some((after, after + name))
    };
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.filter_map(|line| declared(line).map(|(from, to)| &line[from..to])).collect()
}

/// The words inside the file's `fingerprint![…]`.
fn fingerprinted(text: &str) -> BTreeSet<&str> {
    let lists = text.split("fingerprint![").skip(1).filter_map(|rest| rest.split("];").next());
    lists.flat_map(|list| list.split(|c: char| !c.is_alphanumeric() && c != '_')).collect()
}

#[test]
fn every_number_is_in_the_fingerprint_or_known_to_be_behaviour() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let (mut in_layout, mut problems) = (0, Vec::new());
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let behaviour = BEHAVIOUR.iter().find(|(file, _)| *file == name).map_or(&[][..], |(_, names)| names);
        let (all, listed) = (integers(&text), fingerprinted(&text));
        for &number in all.iter().filter(|number| **number != "LAYOUT") {
            match (listed.contains(number), behaviour.contains(&number)) {
                (true, false) => in_layout += 1,
                (false, true) => {}
                (true, true) => {
                    problems.push(format!("{name}: {number} is in the fingerprint and listed as behaviour"));
                }
                (false, false) => {
                    problems.push(format!("{name}: {number} is neither in the fingerprint nor behaviour"));
                }
            }
        }
        for gone in behaviour.iter().filter(|number| !all.contains(**number)) {
            problems.push(format!("{name}: {gone} isn't there any more"));
        }
        if text.contains("const LAYOUT: u64") && name != "window.rs" && !name.ends_with("/mod.rs") {
            let (dir, stem) = name.trim_end_matches(".rs").split_once('/').unwrap();
            let whole = fs::read_to_string(root.join(dir).join("mod.rs")).unwrap();
            if !whole.contains(&format!("{stem}::LAYOUT")) {
                problems.push(format!("{name}: its LAYOUT isn't part of {dir}/mod.rs's"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(in_layout > 100, "only {in_layout} numbers were found");
}

#[test]
fn declarations_and_lists_are_read_as_they_are_written() {
    let text = "/// const DOC: usize = 1;\npub(super) const A: usize = 1;\n    const B: u64 = 2;\nconst C: &str = \"\";\n\
                pub(super) const LAYOUT: u64 = fingerprint![A, super::B];\n";
    assert_eq!(integers(text), BTreeSet::from(["A", "B", "LAYOUT"]));
    assert!(fingerprinted(text).is_superset(&BTreeSet::from(["A", "B"])));
    assert!(!fingerprinted(text).contains("C"));
}
