//! Examples in documents: the fenced blocks of a Markdown text, and whether what a program prints is what the text shows.
//!
//! The build script reads this file, too, so it needs nothing but the standard library.

/// What a program of several blocks prints before each of them, on a line of its own.
pub const MARK: &str = "=== the next example ===";

/// The fenced blocks of a Markdown text: their language and their content.
pub fn blocks(markdown: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, String)> = None;
    for line in markdown.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(language), None) => open = Some((language, String::new())),
            (None, Some((language, mut text))) => {
                text.push_str(line);
                text.push('\n');
                open = Some((language, text));
            }
            (None, None) => {}
        }
    }
    blocks
}

/// The sections of a Markdown text that begin with a heading of the second level: the heading, and what follows.
pub fn sections(markdown: &str) -> Vec<(&str, &str)> {
    let parts = markdown.split("\n## ").skip(1);
    parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).collect()
}

/// A block of code and the output that is shown behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The block.
    pub code: String,
    /// The block of `text` that follows; `None` where another block or nothing does.
    pub output: Option<String>,
}

/// The blocks in `language`, with the output behind each.
pub fn examples(markdown: &str, language: &str) -> Vec<Example> {
    let blocks = blocks(markdown);
    let code = blocks.iter().enumerate().filter(|(_, (found, _))| *found == language);
    code.map(|(place, (_, code))| {
        let output = blocks.get(place + 1).filter(|(language, _)| *language == "text");
        Example { code: code.clone(), output: output.map(|(_, output)| output.clone()) }
    })
    .collect()
}

/// Compares what a program printed, with [`MARK`] before each example, to what is shown. The error says what differs.
pub fn compare(examples: &[Example], printed: &str) -> Result<(), String> {
    let parts: Vec<&str> = printed.split(&format!("{MARK}\n")).skip(1).collect();
    for (Example { code, output }, part) in examples.iter().zip(&parts) {
        let shown = output.as_deref().unwrap_or_default();
        if !matches(shown, part) {
            return Err(format!("for\n{code}\nis shown\n{shown}\nbut printed\n{part}"));
        }
    }
    if parts.len() == examples.len() { Ok(()) } else { Err(format!("the program ended early:\n{printed}")) }
}

/// Whether `printed` is `shown`, line by line. White space at the ends of lines and empty lines at the end don't count,
/// and where a line shows `…`, anything may stand; then neither does it matter how wide a table's columns are.
pub fn matches(shown: &str, printed: &str) -> bool {
    let width = |text: &str| if shown.contains('…') { squeezed(text) } else { text.to_owned() };
    let (shown, printed) = (comparable(&width(shown)), comparable(&width(printed)));
    let line = |(shown, printed): (&str, &str)| match shown.split_once('…') {
        Some((start, end)) => {
            printed.len() >= start.len() + end.len() && printed.starts_with(start) && printed.ends_with(end)
        }
        None => shown == printed,
    };
    shown.lines().count() == printed.lines().count() && shown.lines().zip(printed.lines()).all(line)
}

/// A text with one space for several, and one dash.
fn squeezed(text: &str) -> String {
    let mut last = None;
    text.chars().filter(|&one| last.replace(one) != Some(one) || !matches!(one, ' ' | '-')).collect()
}

/// A text without white space at the ends of its lines, and without empty lines around it.
pub fn comparable(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_left_out_may_differ() {
        assert!(matches("a\nwait 59.… s", "a\nwait 59.98 s"));
        assert!(!matches("a\nwait 59.… s", "a\nwait 58.98 s"));
        assert!(!matches("a", "a\nERROR:  b"));
        assert!(!matches("a b", "a c"));
        assert!(matches("a \nb\n\n", "a\nb"));
        assert!(matches(" n |  time  \n---+--------\n 1 | …\n", " n | time \n---+------\n 1 | 1.25\n"));
        assert!(!matches(" n | time \n---+------\n 1 | …\n", " n | when \n---+------\n 1 | 1.25\n"));
    }

    #[test]
    fn a_section_has_its_blocks_and_their_output() {
        let text =
            "# T\n```sh\nx\n```\n## One\n```rust\na\n```\n```text\n1\n```\n## Two\n```rust\nb\n```\n```js\nc\n```\n";
        let sections = sections(text);
        assert_eq!(sections.iter().map(|(title, _)| *title).collect::<Vec<_>>(), ["One", "Two"]);
        let example = |code: &str, output: Option<&str>| Example { code: code.into(), output: output.map(Into::into) };
        assert_eq!(examples(sections[0].1, "rust"), [example("a\n", Some("1\n"))]);
        assert_eq!(examples(sections[1].1, "rust"), [example("b\n", None)]);
    }

    #[test]
    fn an_example_that_prints_something_else_or_is_never_reached_is_found() {
        let example = |code: &str, output: Option<&str>| Example { code: code.into(), output: output.map(Into::into) };
        let examples = [example("a", Some("1\n")), example("b", None)];
        assert_eq!(compare(&examples, &format!("{MARK}\n1\n{MARK}\n")), Ok(()));
        assert!(compare(&examples, &format!("{MARK}\n2\n{MARK}\n")).is_err_and(|error| error.contains("printed\n2")));
        assert!(compare(&examples, &format!("{MARK}\n1\n{MARK}\nmore\n")).is_err());
        assert!(compare(&examples, &format!("{MARK}\n1\nerror\n")).is_err());
        assert!(compare(&examples, &format!("{MARK}\n1\n")).is_err_and(|error| error.contains("ended early")));
    }
}
