//! Makes a program of the Rust in `docs/drivers/rust.md`, which `tests/drivers` runs: a function for each section.

#[path = "src/markdown.rs"]
#[allow(dead_code)]
mod markdown;

use markdown::{MARK, blocks, sections};
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const PAGE: &str = "../docs/drivers/rust.md";
    println!("cargo::rerun-if-changed={PAGE}");
    println!("cargo::rerun-if-changed=src/markdown.rs");
    let text = fs::read_to_string(PAGE)?;
    let (mut functions, mut arms) = (String::new(), String::new());
    for (number, (title, section)) in sections(&text).into_iter().enumerate() {
        writeln!(functions, "async fn section_{number}() -> anyhow::Result<()> {{")?;
        for (_, code) in blocks(section).iter().filter(|(language, _)| *language == "rust") {
            writeln!(functions, "println!({MARK:?});\n{code}")?;
        }
        writeln!(functions, "Ok(())\n}}")?;
        writeln!(arms, "{title:?} => section_{number}().await,")?;
    }
    let run = format!(
        "/// Runs the blocks of the section with that heading.\n\
         pub async fn run(section: &str) -> anyhow::Result<()> {{\n\
         match section {{\n{arms}_ => anyhow::bail!(\"no section {{section}}\"),\n}}\n}}\n"
    );
    fs::write(Path::new(&env::var("OUT_DIR")?).join("rust_page.rs"), functions + &run)?;
    Ok(())
}
