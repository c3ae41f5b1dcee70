//! Topics and the patterns that match them, as AMQP 0-9-1 has them: words separated by dots; in a pattern `*` stands for
//! one word and `#` for any number of words, also for none.

/// The longest topic or pattern, in bytes.
pub const LONGEST: usize = 255;

type Words<'t> = std::slice::Split<'t, u8, fn(&u8) -> bool>;

fn words(text: &[u8]) -> Words<'_> {
    text.split(|&byte| byte == b'.')
}

fn is_word(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Whether a text is a topic.
pub fn is_topic(text: &[u8]) -> bool {
    text.len() <= LONGEST && words(text).all(is_word)
}

/// Whether a text is a pattern.
pub fn is_pattern(text: &[u8]) -> bool {
    text.len() <= LONGEST && words(text).all(|word| matches!(word, b"*" | b"#") || is_word(word))
}

/// Whether a pattern matches a topic. Takes at most as many steps as the product of their numbers of words, however many
/// wildcards there are: only the last `#` that was met is ever tried with another number of words, because all before it
/// fit already with as few as possible.
pub fn matches(pattern: &[u8], topic: &[u8]) -> bool {
    let (mut pattern, mut topic) = (words(pattern), words(topic));
    // What follows the last `#`, and where in the topic that was last tried.
    let mut last: Option<(Words<'_>, Words<'_>)> = None;
    loop {
        let mut rest = pattern.clone();
        let wanted = rest.next();
        if wanted == Some(b"#") {
            pattern = rest.clone();
            last = Some((rest, topic.clone()));
            continue;
        }
        let mut left = topic.clone();
        match (wanted, left.next()) {
            (None, None) => return true,
            // A `#` that took more would leave even less.
            (Some(_), None) => return false,
            (Some(wanted), Some(word)) if wanted == b"*" || wanted == word => (pattern, topic) = (rest, left),
            (_, Some(_)) => {
                let Some((after, from)) = &mut last else { return false };
                from.next();
                (pattern, topic) = (after.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, is_pattern, is_topic, matches};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    /// What the words of a pattern mean, read off their definition.
    fn naive(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            ([], topic) => topic.is_empty(),
            (["#", rest @ ..], topic) => (0..=topic.len()).any(|taken| naive(rest, &topic[taken..])),
            (["*", rest @ ..], [_, left @ ..]) => naive(rest, left),
            ([word, rest @ ..], [first, left @ ..]) => word == first && naive(rest, left),
            (_, []) => false,
        }
    }

    #[test]
    fn wildcards_are_those_of_amqp() {
        let all = [
            // The examples of RabbitMQ's tutorial and of its test suite.
            ("*.orange.*", "quick.orange.rabbit", true),
            ("*.orange.*", "quick.orange.male.rabbit", false),
            ("*.*.rabbit", "lazy.orange.rabbit", true),
            ("lazy.#", "lazy.orange.new.rabbit", true),
            ("lazy.#", "lazy", true),
            ("lazy.#", "lazybones", false),
            ("#", "any.thing", true),
            ("*", "a", true),
            ("*", "a.b", false),
            ("#.*", "a", true),
            ("*.#", "a", true),
            ("*.#.*", "a", false),
            ("#.b", "b", true),
            ("#.b", "a.b.a.b", true),
            ("a.#.b", "a.b", true),
            ("a.#.b", "a.x.y.b", true),
            ("a.#.b", "a.b.c", false),
            ("#.a.#.b.#", "x.b.a.y", false),
            ("#.#", "a", true),
            ("a.b", "A.b", false),
            ("a.b", "a", false),
            ("a", "a.b", false),
        ];
        for (pattern, topic, expected) in all {
            assert_eq!(matches(pattern.as_bytes(), topic.as_bytes()), expected, "{pattern} {topic}");
        }
    }

    #[test]
    fn only_whole_words_are_taken() {
        let long = "a".repeat(LONGEST);
        for good in ["a", "a.b-c.D_9", "1", "-", long.as_str()] {
            assert!(is_topic(good.as_bytes()) && is_pattern(good.as_bytes()), "{good}");
        }
        let longer = "a".repeat(LONGEST + 1);
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a/b", "a>", "ä", "a\n", "a.b*", "#a", "**", "a.#b", &longer] {
            assert!(!is_topic(bad.as_bytes()) && !is_pattern(bad.as_bytes()), "{bad}");
        }
        for pattern in ["*", "#", "a.*.#", "#.#"] {
            assert!(is_pattern(pattern.as_bytes()) && !is_topic(pattern.as_bytes()), "{pattern}");
        }
    }

    /// Tried with every number of words for each `#`, this would never end.
    #[test]
    fn many_wildcards_take_no_longer() {
        let topic = ["a"; 128].join(".");
        for tail in ["b", "*.b", "#.b"] {
            let pattern = [["#.a"; 60].join(".").as_str(), tail].join(".");
            assert!(is_pattern(pattern.as_bytes()) && !matches(pattern.as_bytes(), topic.as_bytes()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn random_patterns_match_what_they_mean(
            pattern in vec(select(vec!["a", "b", "*", "#", "#"]), 1..7),
            topic in vec(select(vec!["a", "b", "c"]), 1..8),
        ) {
            let (joined, of) = (pattern.join("."), topic.join("."));
            prop_assert_eq!(matches(joined.as_bytes(), of.as_bytes()), naive(&pattern, &topic), "{} {}", joined, of);
        }
    }
}
