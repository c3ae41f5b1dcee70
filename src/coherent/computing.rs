//! The values that this session is computing, one within the other, and the tags of what they are made of.
//!
//! A value that is made of other entries of the cache is out of date when they are, so it gets their tags: those of each
//! entry that is read while it is computed, and those that a value within it was given. Tables need no part in this: the
//! work within other work leaves them to it ([`Reads`](crate::pg::reads::Reads)).

use crate::error::Error;
use enough_engine::cache::Tags;
use enough_engine::hash::KeyHash;
use std::cell::{Cell, RefCell};

/// A value that is being computed.
struct Work {
    key: KeyHash,
    /// The caller's tags and those of the entries that were read.
    tags: Tags,
    /// Whether they were more than an entry can have.
    too_many: bool,
}

impl Work {
    fn add(&mut self, tags: &Tags) {
        for &tag in tags.hashes() {
            self.too_many |= !self.tags.hashes().contains(&tag) && !self.tags.push(tag);
        }
    }
}

thread_local! {
    /// The innermost last.
    static WORK: RefCell<Vec<Work>> = const { RefCell::new(Vec::new()) };
    /// Whether there is any: for what is asked with every read.
    static ANY: Cell<bool> = const { Cell::new(false) };
}

/// Whether a value is being computed.
#[inline(always)]
pub fn is_going_on() -> bool {
    ANY.get()
}

/// Notes the tags of an entry that was read: those of what is being computed, if anything is.
#[inline]
pub fn uses(tags: &Tags) {
    if is_going_on() {
        WORK.with_borrow_mut(|work| {
            if let Some(innermost) = work.last_mut() {
                innermost.add(tags);
            }
        });
    }
}

/// A value that is being computed until this is dropped, be it by an error that passes through. What it was made of, the value
/// around it is made of, too.
pub struct Computing(());

impl Computing {
    /// Begins a value that is to have `tags`. Fails where the same session is computing it already.
    pub fn begin(key: KeyHash, tags: Tags) -> Result<Self, Error> {
        WORK.with_borrow_mut(|work| {
            if work.iter().any(|around| around.key == key) {
                return Err(Error::invalid(
                    "query",
                    "it fetches its own key",
                    "a query that doesn't need its own value",
                ));
            }
            work.push(Work { key, tags, too_many: false });
            ANY.set(true);
            Ok(Computing(()))
        })
    }

    /// The tags so far; `None` where they are more than an entry can have. Of the innermost.
    #[allow(clippy::unused_self, reason = "only a session that is computing has tags to ask for")]
    pub fn tags(&self) -> Option<Tags> {
        WORK.with_borrow(|work| work.last().filter(|own| !own.too_many).map(|own| own.tags))
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        WORK.with_borrow_mut(|work| {
            if let (Some(own), Some(around)) = (work.pop(), work.last_mut()) {
                around.add(&own.tags);
                around.too_many |= own.too_many;
            }
            ANY.set(!work.is_empty());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Computing, is_going_on, uses};
    use enough_engine::cache::Tags;
    use enough_engine::hash::KeyHash;

    fn key(low: u64) -> KeyHash {
        KeyHash { high: 0, low }
    }

    fn tags(hashes: impl IntoIterator<Item = u64>) -> Tags {
        let mut tags = Tags::default();
        hashes.into_iter().for_each(|hash| assert!(tags.push(hash)));
        tags
    }

    #[test]
    fn a_value_has_the_tags_of_what_it_is_made_of() {
        uses(&tags([9]));
        assert!(!is_going_on());
        let outer = Computing::begin(key(1), tags([1])).unwrap();
        uses(&tags([2, 1]));
        {
            let inner = Computing::begin(key(2), tags([3])).unwrap();
            uses(&tags([4]));
            assert_eq!(inner.tags(), Some(tags([3, 4])));
            assert!(Computing::begin(key(1), Tags::default()).is_err());
        }
        assert_eq!(outer.tags(), Some(tags([1, 2, 3, 4])));
        uses(&tags([5, 6, 7, 8]));
        uses(&tags([8]));
        assert_eq!(outer.tags(), Some(tags(1..=8)));
        drop(outer);
        assert!(!is_going_on());
    }

    #[test]
    fn too_many_within_are_too_many_around() {
        let outer = Computing::begin(key(1), Tags::default()).unwrap();
        {
            let inner = Computing::begin(key(2), tags(1..=8)).unwrap();
            uses(&tags([9]));
            assert_eq!(inner.tags(), None);
        }
        assert_eq!(outer.tags(), None);
    }
}
