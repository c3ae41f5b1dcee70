//! A message as the index knows it.

/// The physical place of a row: a hint, checked against the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tid {
    /// Block of the table.
    pub block: u32,
    /// Line pointer in the block, from 1 on.
    pub offset: u16,
}

impl Tid {
    pub(super) fn pack(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }

    #[allow(clippy::cast_possible_truncation, reason = "the fields' own widths")]
    pub(super) fn unpack(word: u64) -> Self {
        Tid { block: (word >> 16) as u32, offset: word as u16 }
    }
}

/// What tells a row from another one that has, or had, the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tag {
    /// Of when it was sent.
    pub(super) sent: u16,
    /// Of the transaction that inserted it; 0 where that isn't known.
    pub(super) writer: u16,
}

impl Tag {
    /// The tag of a row that was sent at `enqueued_at` and inserted by the transaction `writer`; `None` where an UPDATE has
    /// written the version that is known.
    #[allow(clippy::cast_possible_truncation, reason = "the lower bits differ most")]
    pub fn new(enqueued_at: i64, writer: Option<u32>) -> Self {
        Tag { sent: enqueued_at as u16, writer: writer.map_or(0, |writer| (writer as u16).max(1)) }
    }

    /// Whether both may be of one row.
    #[inline]
    pub fn matches(self, other: Tag) -> bool {
        self.sent == other.sent && (self.writer == other.writer || self.writer == 0 || other.writer == 0)
    }

    /// Whether a row that was sent at `enqueued_at` may be the one that this tag was made of.
    pub fn was_sent_at(self, enqueued_at: i64) -> bool {
        self.sent == Tag::new(enqueued_at, None).sent
    }
}

/// A message as a sender or a scan of the table knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub msg_id: i64,
    /// Where its row is.
    pub tid: Tid,
    /// 0 to 9.
    pub priority: u8,
    /// Failed deliveries that the row knows of.
    pub attempts: u32,
    /// The delivery time in the row, in microseconds; a row without one is ready at once.
    pub deliver_at: Option<i64>,
    /// The hash of its group's key; 0 where it has none.
    pub group: u64,
    /// What tells its row from others of the number.
    pub tag: Tag,
}

/// What became of a row that a refill's scan has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It is in the index now.
    Brought,
    /// It was in the index, or is behind the head of its group, which is.
    Known,
    /// There is no room: the scan should stop before it.
    NoRoom,
    /// The index has learnt the number from another row. Which one is there now, the caller's snapshot can't know: it looks
    /// again, and lets the row that it finds [take its place](Partition::insert_or_leave_out).
    Other,
}
