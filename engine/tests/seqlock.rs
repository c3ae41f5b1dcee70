//! The sequence lock under the interleavings of writers and a reader, and all values that the memory model lets a load
//! return, by `loom`. The words are loom's atomics, loaded and stored `Relaxed` as `enough_engine::words` does.
//!
//! A model may prove nothing because it explores nothing, so each test also says what must have been seen, and each
//! fence and ordering is left out in turn: without it the model finds a mixture of two states.

use enough_engine::seqlock::{SeqLock, Version};
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicU64, Ordering, Ordering::Relaxed, fence};
use loom::thread;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::Arc;

/// What a broken variant of the protocol does instead.
trait Fault: 'static {
    /// The ordering of a load, given the right one.
    fn load(right: Ordering) -> Ordering {
        right
    }
    /// The ordering of a store, given the right one.
    fn store(right: Ordering) -> Ordering {
        right
    }
    /// Whether that fence is left out.
    fn omits(_fence: Ordering) -> bool {
        false
    }
}

/// The protocol as it is.
struct Right;
impl Fault for Right {}

/// Loom's version, with a fault.
struct Model<F>(AtomicU64, PhantomData<fn() -> F>);

impl<F: Fault> Version for Model<F> {
    fn load(&self, ordering: Ordering) -> u64 {
        self.0.load(F::load(ordering))
    }

    fn store(&self, value: u64, ordering: Ordering) {
        self.0.store(value, F::store(ordering));
    }

    fn fence(ordering: Ordering) {
        if !F::omits(ordering) {
            fence(ordering);
        }
    }
}

/// A partition of two words. A writer gives both the same value, so a mixture of two states shows.
struct Partition<F> {
    lock: Mutex<()>,
    version: SeqLock<Model<F>>,
    words: [AtomicU64; 2],
    /// Every thread stores here first: where a thread begins with a load, loom 0.7 doesn't explore what the others could
    /// have done before it (its issue 392).
    begun: AtomicU64,
}

impl<F: Fault> Partition<F> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            lock: Mutex::new(()),
            version: SeqLock::new(Model(AtomicU64::new(0), PhantomData)),
            words: [AtomicU64::new(0), AtomicU64::new(0)],
            begun: AtomicU64::new(0),
        })
    }

    /// A thread that works on the partition.
    fn spawn<R: 'static>(self: &Arc<Self>, work: impl FnOnce(&Self) -> R + 'static) -> thread::JoinHandle<R> {
        let partition = self.clone();
        thread::spawn(move || {
            partition.begun.store(1, Relaxed);
            work(&partition)
        })
    }

    /// An exclusive section, as `Partition::exclusive` of the extension: torn words are formatted, here to 0. With
    /// `killed_after`, the process dies after so many stores. Returns whether the words were torn.
    fn write(&self, value: u64, killed_after: Option<usize>) -> bool {
        let _lock = self.lock.lock().unwrap();
        let torn = self.version.begin_write();
        if torn {
            self.words.iter().for_each(|word| word.store(0, Relaxed));
        }
        for word in &self.words[..killed_after.unwrap_or(2)] {
            word.store(value, Relaxed);
        }
        if killed_after.is_none() {
            self.version.end_write();
        }
        torn
    }

    /// A read without the lock: the value of both words.
    fn read(&self) -> Option<u64> {
        let read = || Some((self.words[0].load(Relaxed), self.words[1].load(Relaxed)));
        let (first, second) = self.version.read_optimistic(read)?;
        assert!(first == second, "a mixture of two states");
        Some(first)
    }
}

/// What the executions of a model have seen.
struct Seen<T: 'static>(&'static std::sync::Mutex<BTreeSet<T>>);

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Seen<T> {}

impl<T: Ord> Seen<T> {
    fn new() -> Self {
        Self(Box::leak(Box::default()))
    }

    fn add(self, what: T) {
        self.0.lock().unwrap().insert(what);
    }

    fn all(self) -> BTreeSet<T> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// What one reader sees, over all executions, beside one writer that writes the states 1 to `states`.
fn reads_beside_writes<F: Fault>(states: u64) -> BTreeSet<Option<u64>> {
    let seen = Seen::new();
    loom::model(move || {
        let partition = Partition::<F>::new();
        let writer = partition.spawn(move |partition| {
            for value in 1..=states {
                assert!(!partition.write(value, None));
            }
        });
        let reader = partition.spawn(move |partition| seen.add(partition.read()));
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(partition.read(), Some(states), "nothing disturbs a read after the writer's end");
    });
    seen.all()
}

#[test]
fn a_read_beside_writes_is_one_state_or_refused() {
    assert_eq!(reads_beside_writes::<Right>(1), BTreeSet::from([None, Some(0), Some(1)]));
    assert_eq!(reads_beside_writes::<Right>(2), BTreeSet::from([None, Some(0), Some(1), Some(2)]));
}

#[test]
fn a_reader_sees_no_older_state_after_a_newer_one() {
    let seen = Seen::new();
    loom::model(move || {
        let partition = Partition::<Right>::new();
        let writer = partition.spawn(|partition| partition.write(1, None));
        let reader = partition.spawn(move |partition| seen.add((partition.read(), partition.read())));
        writer.join().unwrap();
        reader.join().unwrap();
    });
    let seen = seen.all();
    assert!(!seen.contains(&(Some(1), Some(0))), "{seen:?}");
    for possible in [(Some(0), Some(1)), (Some(0), Some(0)), (Some(1), Some(1)), (None, Some(1)), (Some(0), None)] {
        assert!(seen.contains(&possible), "{possible:?} was never reached: {seen:?}");
    }
}

#[test]
fn what_a_killed_writer_left_is_never_accepted_and_the_next_writer_learns_of_it() {
    for stores in 0..=2 {
        let seen = Seen::new();
        loom::model(move || {
            let partition = Partition::<Right>::new();
            let killed = partition.spawn(move |partition| assert!(!partition.write(1, Some(stores))));
            let reader = partition.spawn(move |partition| seen.add(("beside the killed one", partition.read())));
            killed.join().unwrap();
            reader.join().unwrap();
            assert!(partition.version.is_torn());
            assert_eq!(partition.read(), None);
        });
        loom::model(move || {
            let partition = Partition::<Right>::new();
            assert!(!partition.write(1, Some(stores)));
            let next = partition.spawn(|partition| assert!(partition.write(2, None), "the words were torn"));
            let reader = partition.spawn(move |partition| seen.add(("beside the next one", partition.read())));
            next.join().unwrap();
            reader.join().unwrap();
            assert!(!partition.version.is_torn());
            assert_eq!(partition.read(), Some(2));
        });
        let (killed, next) = ("beside the killed one", "beside the next one");
        assert_eq!(seen.all(), BTreeSet::from([(killed, None), (killed, Some(0)), (next, None), (next, Some(2))]));
    }
}

#[test]
#[should_panic(expected = "a mixture of two states")]
fn the_writer_needs_its_fence() {
    struct Omitted;
    impl Fault for Omitted {
        fn omits(fence: Ordering) -> bool {
            fence == Ordering::Release
        }
    }
    reads_beside_writes::<Omitted>(1);
}

#[test]
#[should_panic(expected = "a mixture of two states")]
fn the_reader_needs_its_fence() {
    struct Omitted;
    impl Fault for Omitted {
        fn omits(fence: Ordering) -> bool {
            fence == Ordering::Acquire
        }
    }
    reads_beside_writes::<Omitted>(1);
}

#[test]
#[should_panic(expected = "a mixture of two states")]
fn the_writer_ends_with_a_release() {
    struct Weakened;
    impl Fault for Weakened {
        fn store(_: Ordering) -> Ordering {
            Relaxed
        }
    }
    reads_beside_writes::<Weakened>(1);
}

#[test]
#[should_panic(expected = "a mixture of two states")]
fn the_reader_begins_with_an_acquire() {
    struct Weakened;
    impl Fault for Weakened {
        fn load(_: Ordering) -> Ordering {
            Relaxed
        }
    }
    reads_beside_writes::<Weakened>(1);
}
