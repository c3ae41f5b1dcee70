//! Where a call belongs when there are several servers.

use anyhow::{Result, bail};

/// Where a call belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The server of its key or queue, which is this argument, counted from 0.
    One(usize),
    /// The server of the queue that is its first argument, or every one where that is NULL.
    OneOrAll,
    /// Every server, and what becomes of what they return.
    All(Together),
    /// For each element of its first argument the server of that; the others with an array are cut as the first is.
    Each(Together),
    /// Any server, because all say the same.
    Any,
    /// None: why there is no such function.
    Nowhere(&'static str),
}

/// What becomes of the results of several servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Together {
    /// All rows.
    Rows,
    /// The sum.
    Sum,
    /// Whether one of them is true.
    Either,
    /// Nothing is returned.
    Nothing,
}

const SEVERAL_QUEUES: &str = "it is about several queues, which may be on several servers";
const JOBS: &str = "a job is of the server that runs it: make it there";
const CATALOG: &str = "it is about roles or tables of the server itself: call it there";

/// The functions that don't simply belong where their key or queue is.
const EXCEPTIONS: [(&str, Place); 48] = [
    ("cache_mget", Place::Each(Together::Rows)),
    ("cache_mget_bytes", Place::Each(Together::Rows)),
    ("cache_mdelete", Place::Each(Together::Sum)),
    ("cache_mset_bytes", Place::Each(Together::Sum)),
    ("cache_mset", Place::Nowhere("an object can't be cut in parts: use cache_set(), or cache_mset_bytes()")),
    ("cache_fetch", Place::Nowhere("its query would run on the server of the key, which needn't have the tables")),
    ("cache_keys", Place::Nowhere("it goes on after a key, which is on one server: call it on each")),
    ("cache_invalidate", Place::All(Together::Nothing)),
    ("cache_delete_prefix", Place::All(Together::Sum)),
    ("cache_clear", Place::All(Together::Nothing)),
    ("cache_tag_table", Place::Nowhere(CATALOG)),
    ("cache_untag_table", Place::Nowhere(CATALOG)),
    ("cache_stats", Place::All(Together::Rows)),
    ("kv_create", Place::All(Together::Either)),
    ("kv_drop", Place::All(Together::Either)),
    ("kv_spaces", Place::Any),
    ("kv_mget", Place::Each(Together::Rows)),
    ("kv_mset", Place::Nowhere("an object can't be cut in parts: use kv_set()")),
    ("kv_keys", Place::Nowhere("it goes on after a key, which is on one server: call it on each")),
    ("kv_find", Place::Nowhere("it goes on after a key, which is on one server: call it on each")),
    ("kv_watch", Place::Nowhere("versions are each server's own: call it on each")),
    ("maintain", Place::All(Together::Rows)),
    ("maintenance_schedule", Place::Nowhere(JOBS)),
    ("maintenance_unschedule", Place::Nowhere(JOBS)),
    ("status", Place::All(Together::Rows)),
    ("queue_rename", Place::Nowhere("the new name may belong to another server, and the messages stay")),
    ("queue_list", Place::All(Together::Rows)),
    ("queue_read_any", Place::Nowhere(SEVERAL_QUEUES)),
    ("queue_import_pgmq", Place::Nowhere(CATALOG)),
    ("queue_read_own", Place::Nowhere("no transaction is longer than a call: it would find nothing")),
    ("queue_grant", Place::Nowhere(CATALOG)),
    ("queue_revoke", Place::Nowhere(CATALOG)),
    ("queue_schedule", Place::Nowhere(JOBS)),
    ("queue_unschedule", Place::Nowhere(JOBS)),
    ("queue_schedules", Place::Nowhere(JOBS)),
    ("queue_send_on", Place::Nowhere(CATALOG)),
    ("queue_send_off", Place::Nowhere(CATALOG)),
    ("queue_stats", Place::OneOrAll),
    ("rate_limit_all", Place::Nowhere("its keys are counted all or none, which several servers can't do")),
    ("rate_limit_stats", Place::All(Together::Rows)),
    ("rate_limit_policy_set", Place::All(Together::Nothing)),
    ("rate_limit_policy_add", Place::All(Together::Nothing)),
    ("rate_limit_policy_override", Place::All(Together::Nothing)),
    ("rate_limit_policy_override_drop", Place::All(Together::Either)),
    ("rate_limit_policy_drop", Place::All(Together::Either)),
    ("rate_limit_policies", Place::Any),
    ("semaphore_holders", Place::OneOrAll),
    ("semaphore_stats", Place::All(Together::Rows)),
];

/// The same for all functions whose names begin so.
const FAMILIES: [(&str, &str); 3] = [("topic_", SEVERAL_QUEUES), ("grant_to", CATALOG), ("revoke_from", CATALOG)];

/// What a key or queue is called where it is an argument.
const KEYS: [&str; 3] = ["key", "queue", "name"];

/// Where the calls of a function with these arguments belong.
pub(super) fn of(function: &str, arguments: &[String]) -> Result<Place> {
    if let Some((_, place)) = EXCEPTIONS.iter().find(|(name, _)| *name == function) {
        return Ok(*place);
    }
    if let Some((_, why)) = FAMILIES.iter().find(|(prefix, _)| function.starts_with(prefix)) {
        return Ok(Place::Nowhere(why));
    }
    let Some(key) = KEYS.iter().find_map(|key| arguments.iter().position(|argument| argument == key)) else {
        bail!("no place is known for {function}: say in {} where its calls belong", file!());
    };
    Ok(Place::One(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_function_is_placed_by_its_key_or_must_be_told() -> Result<()> {
        let arguments = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of("cache_new", &arguments(&["key", "value"]))?, Place::One(0));
        assert_eq!(of("rate_limit_new_by", &arguments(&["policy", "key"]))?, Place::One(1));
        assert!(of("cache_new", &arguments(&["keys"])).is_err());
        Ok(())
    }
}
