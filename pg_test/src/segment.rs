//! The shared memory of a server, seen from outside: the file of a dynamic segment, and what its header says.
//!
//! Offsets follow `src/shmem/layout.rs` of the extension; a test that finds another layout version there fails and has
//! to be brought up to date with it.

use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// How every segment of the extension begins.
const MAGIC: &[u8; 8] = b"enough\x1b\x01";
/// The layout that the offsets below belong to.
const LAYOUT: u64 = 3;
/// Bytes before a partition's words: its lock, and its marks.
const PARTITION_HEAD: u64 = 128;

/// Words of the header, by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Field {
    /// What kind of segment this is.
    Magic = 0,
    /// The layout version.
    Layout = 1,
    /// Which of them it is.
    Nonce = 2,
}

/// Consecutive words of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The number of the region: 0 the queues, 1 the cache, 2 the rate limits, 3 the semaphores.
    pub region: usize,
    /// In bytes from the start of the file.
    pub offset: u64,
    /// In bytes.
    pub len: u64,
}

/// The file of a dynamic segment.
#[derive(Debug)]
pub struct SegmentFile {
    file: File,
    /// Where it is.
    pub path: PathBuf,
}

impl SegmentFile {
    /// The segment that the server process `pid` uses; `None` where it has none that is dynamic.
    pub fn of_process(pid: u32) -> Result<Option<Self>> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).context("can't see the server's memory")?;
        let mut paths: Vec<PathBuf> = maps
            .lines()
            .filter_map(|line| Some(PathBuf::from(line.get(line.find("/dev/shm/PostgreSQL.")?..)?)))
            .collect();
        paths.dedup();
        for path in paths {
            let file = OpenOptions::new().read(true).write(true).open(&path);
            let file = file.with_context(|| format!("can't open {}", path.display()))?;
            let segment = Self { file, path };
            if segment.read(0, 8)? == MAGIC {
                ensure!(segment.word(Field::Layout)? == LAYOUT, "the segment has another layout by now");
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset).with_context(|| format!("can't read {}", self.path.display()))?;
        Ok(bytes)
    }

    /// Its first bytes.
    pub fn head(&self, len: usize) -> Result<Vec<u8>> {
        self.read(0, len)
    }

    /// The number of the user that it belongs to.
    pub fn owner(&self) -> Result<u32> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.file.metadata()?.uid())
    }

    /// Overwrites bytes.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).with_context(|| format!("can't write {}", self.path.display()))
    }

    fn number(&self, word: u64) -> Result<u64> {
        let bytes = self.read(word * 8, 8)?;
        Ok(u64::from_ne_bytes(bytes.try_into().map_err(|_| anyhow::anyhow!("a short read"))?))
    }

    /// A word of the header.
    pub fn word(&self, field: Field) -> Result<u64> {
        self.number(field as u64)
    }

    /// Overwrites a word of the header.
    pub fn set_word(&self, field: Field, value: u64) -> Result<()> {
        self.write(field as u64 * 8, &value.to_ne_bytes())
    }

    /// The words of all partitions.
    pub fn parts(&self) -> Result<Vec<Part>> {
        /// The number of the header's word where the regions are described, by four words each.
        const REGIONS: u64 = 23;
        let mut parts = Vec::new();
        for region in 0..4 {
            let at = REGIONS + 4 * region;
            let (offset, partitions, words) = (self.number(at)?, self.number(at + 1)?, self.number(at + 2)?);
            let len = words * 8;
            for partition in 0..partitions {
                let offset = offset + partition * (PARTITION_HEAD + len) + PARTITION_HEAD;
                parts.push(Part { region: usize::try_from(region)?, offset, len });
            }
        }
        let end = parts.iter().map(|part| part.offset + part.len).max().unwrap_or(0);
        if parts.len() < 4 || end > self.file.metadata()?.len() {
            bail!("the header describes more than the file holds");
        }
        Ok(parts)
    }
}
