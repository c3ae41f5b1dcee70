//! Sessions and what they are told.

use anyhow::Result;
use postgres::{Client, Config, NoTls};
use std::sync::{Arc, Mutex, PoisonError};

/// What the server has told a session besides its answers.
pub(crate) struct Notices(Arc<Mutex<Vec<String>>>);

impl Notices {
    /// What was told since the last look.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Connects, and keeps what is told.
pub(crate) fn noticing(config: &mut Config) -> Result<(Client, Notices)> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&kept);
    config.notice_callback(move |notice| {
        told.lock().unwrap_or_else(PoisonError::into_inner).push(notice.message().to_owned());
    });
    Ok((config.connect(NoTls)?, Notices(kept)))
}
