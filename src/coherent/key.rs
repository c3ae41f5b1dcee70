//! Keys, as the cache knows them.

use enough_engine::hash::KeyHash;

/// What a key is known by, and its text where entries keep it ([`super::settings::keep_keys`]).
#[derive(Debug, Clone, Copy)]
pub struct Key<'k> {
    /// See [`Key`].
    pub hash: KeyHash,
    /// In the database's encoding.
    pub name: Option<&'k [u8]>,
}

impl From<KeyHash> for Key<'_> {
    /// Of a key that gets no value.
    fn from(hash: KeyHash) -> Self {
        Key { hash, name: None }
    }
}
