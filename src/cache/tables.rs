//! Tables whose changes end entries: what the triggers do that `cache_tag_table` makes.
//!
//! A tag that names columns, `user:{id}`, is a template. A change of a row ends what carries the tags that are made of the
//! row as it was and as it is now. The template's own text stands for the whole table: it ends with every change.

use super::arguments;
use crate::coherent::log::Removed;
use crate::coherent::pending;
use crate::error::Error;
use crate::pg::fmgr::{Call, Value};
use crate::pg::reads::Reads;
use crate::pg::trigger::Trigger;
use crate::shmem::{Segment, segment};
use enough_engine::cache::Tags;

/// A part of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'t> {
    Text(&'t [u8]),
    Column(&'t [u8]),
}

/// The parts of a tag. `{{` and `}}` stand for braces. What isn't well formed is text; `cache_tag_table` takes no such
/// tag.
struct Pieces<'t>(&'t [u8]);

impl<'t> Iterator for Pieces<'t> {
    type Item = Piece<'t>;

    fn next(&mut self) -> Option<Piece<'t>> {
        let rest = self.0;
        let first = *rest.first()?;
        let (piece, taken) = match first {
            b'{' | b'}' if rest.get(1) == Some(&first) => (Piece::Text(&rest[..1]), 2),
            b'{' => match rest.iter().position(|&byte| byte == b'}') {
                Some(end) => (Piece::Column(&rest[1..end]), end + 1),
                None => (Piece::Text(rest), rest.len()),
            },
            b'}' => (Piece::Text(&rest[..1]), 1),
            _ => {
                let end = rest.iter().position(|byte| matches!(byte, b'{' | b'}')).unwrap_or(rest.len());
                (Piece::Text(&rest[..end]), end)
            }
        };
        self.0 = &rest[taken..];
        Some(piece)
    }
}

/// A tag as it is put together.
struct Tag {
    bytes: [u8; arguments::LONGEST_TAG],
    len: usize,
}

impl Tag {
    /// The tag that a template is with the texts that `column` gives for the columns that it names; `None` where it is longer
    /// than a tag may be: no entry can have it. `Err` where a column isn't there.
    fn of<'r>(template: &[u8], column: impl Fn(&[u8]) -> Option<&'r [u8]>) -> Result<Option<Self>, ()> {
        let mut tag = Tag { bytes: [0; arguments::LONGEST_TAG], len: 0 };
        for piece in Pieces(template) {
            let text = match piece {
                Piece::Text(text) => text,
                Piece::Column(name) => column(name).ok_or(())?,
            };
            let end = tag.len + text.len();
            let Some(place) = tag.bytes.get_mut(tag.len..end) else { return Ok(None) };
            place.copy_from_slice(text);
            tag.len = end;
        }
        Ok(Some(tag))
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The tag by which all that was made of a table is known, whichever rows: the template's own text, or the tag itself.
fn of_whole_table(template: &[u8]) -> Option<Tag> {
    let named = Pieces(template).any(|piece| matches!(piece, Piece::Column(_)));
    if !named {
        return Tag::of(template, |_| None).ok().flatten();
    }
    let mut tag = Tag { bytes: [0; arguments::LONGEST_TAG], len: template.len() };
    tag.bytes.get_mut(..template.len())?.copy_from_slice(template);
    Some(tag)
}

fn invalidate(tag: Option<Tag>) -> Result<(), Error> {
    match tag {
        Some(tag) => pending::end(Removed::Tag(arguments::hashed_tag(segment()?, tag.bytes())?)),
        None => Ok(()),
    }
}

/// The tags with those by which all that was made of the tables is known that were read; `None` where they are more than an
/// entry can have.
pub fn with_those_of(segment: &Segment, mut tags: Tags, reads: &Reads) -> Result<Option<Tags>, Error> {
    let mut outcome = Ok(true);
    reads.first_arguments(c"cache_invalidate_by_trigger", |template| {
        let Some(tag) = of_whole_table(template) else { return };
        match arguments::hashed_tag(segment, tag.bytes()) {
            Ok(hash) if tags.hashes().contains(&hash) => {}
            Ok(hash) if tags.push(hash) => {}
            Ok(_) => outcome = outcome.clone().map(|_| false),
            Err(error) => outcome = Err(error),
        }
    });
    Ok(outcome?.then_some(tags))
}

/// `cache_invalidate_by_trigger`
pub(super) fn invalidate_by_trigger(call: &mut Call<'_>) -> Result<Value<'static>, Error> {
    let Some((trigger, template)) = call.trigger().and_then(|trigger| trigger.argument(0).map(|tag| (trigger, tag)))
    else {
        return Err(Error::NotReady {
            problem: "cache_invalidate_by_trigger() was not called by a trigger with a tag as its argument".into(),
            hint: "Make the trigger with enough.cache_tag_table().".into(),
        });
    };
    invalidate(of_whole_table(template))?;
    if Pieces(template).any(|piece| matches!(piece, Piece::Column(_))) {
        invalidate_rows(&trigger, template)?;
    }
    Ok(Value::VOID)
}

fn invalidate_rows(trigger: &Trigger<'_>, template: &[u8]) -> Result<(), Error> {
    // TRUNCATE doesn't tell of which rows, and a column may have another name by now: then what carries any tag goes.
    let Some(rows) = trigger.rows() else { return pending::end(Removed::Tagged) };
    for row in rows.into_iter().flatten() {
        match Tag::of(template, |name| row.text(name)) {
            Ok(tag) => invalidate(tag)?,
            Err(()) => return pending::end(Removed::Tagged),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Piece, Pieces, of_whole_table};

    fn pieces(tag: &str) -> Vec<String> {
        let piece = |piece: Piece<'_>| match piece {
            Piece::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Piece::Column(name) => format!("<{}>", String::from_utf8_lossy(name)),
        };
        Pieces(tag.as_bytes()).map(piece).collect()
    }

    #[test]
    fn a_tag_is_taken_apart() {
        assert_eq!(pieces("plain"), ["plain"]);
        assert_eq!(pieces("user:{id}"), ["user:", "<id>"]);
        assert_eq!(pieces("{a}{b c}!"), ["<a>", "<b c>", "!"]);
        assert_eq!(pieces("{{a}}{b}{{{c}}}"), ["{", "a", "}", "<b>", "{", "<c>", "}"]);
        assert_eq!(pieces("{"), ["{"]);
        assert_eq!(pieces("a}"), ["a", "}"]);
        assert!(pieces("").is_empty());
    }

    #[test]
    fn the_whole_table_is_known_by_the_template() {
        let whole =
            |tag: &str| of_whole_table(tag.as_bytes()).map(|tag| String::from_utf8_lossy(tag.bytes()).into_owned());
        assert_eq!(whole("user:{id}").as_deref(), Some("user:{id}"));
        assert_eq!(whole("{{plain}}").as_deref(), Some("{plain}"));
        assert_eq!(whole(&"x".repeat(128)), Some("x".repeat(128)));
        assert_eq!(whole(&"x".repeat(129)), None);
    }
}
