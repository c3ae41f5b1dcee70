//! What only the server knows about a `jsonb`.

use super::argument::payload;
use super::fmgr::{Buffer, Value};
use pgrx::pg_sys;

/// Whether two `jsonb` values, given by their binary form without the varlena header, are equal as the operator `=` has
/// it: `1.0` and `1.00` are. What isn't aligned as the server wants it is copied first.
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    if left == right {
        return true;
    }
    // An empty container is a word long; nothing shorter is one.
    if left.len() < 4 || right.len() < 4 {
        return false;
    }
    let (left, right) = (aligned(left), aligned(right));
    // SAFETY: both are the binary form of a jsonb, as it came out of the server, at an address aligned for it; the
    // comparison reads them only.
    unsafe { pg_sys::compareJsonbContainers(left.bytes().as_mut_ptr().cast(), right.bytes().as_mut_ptr().cast()) == 0 }
}

/// `patch` merged into `target` as RFC 7396 (JSON Merge Patch) has it: its members replace the target's, objects are merged
/// member by member, and NULL removes. `target`: `None` where there is nothing. Both by their binary form, as the answer.
/// An ERROR where the answer is too large for a jsonb, or nested too deep.
pub fn merged(target: Option<&[u8]>, patch: &[u8]) -> Buffer {
    let (target, patch) = (target.filter(|bytes| bytes.len() >= 4).map(Buffer::holding), Buffer::holding(patch));
    let container = |buffer: &Buffer| buffer.bytes().as_mut_ptr().cast::<pg_sys::JsonbContainer>();
    // SAFETY: both are the binary form of a jsonb, aligned for the server, and live until the answer is made.
    unsafe {
        if !is_object(container(&patch)) {
            return patch;
        }
        let target = target.as_ref().map(container).filter(|&target| is_object(target));
        let mut state = std::ptr::null_mut();
        let merged = pg_sys::JsonbValueToJsonb(merge(&mut state, target, container(&patch)));
        Buffer::holding(payload(merged.into()))
    }
}

/// # Safety
/// A container of a jsonb.
unsafe fn is_object(container: *mut pg_sys::JsonbContainer) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*container).header & pg_sys::JB_FOBJECT != 0 }
}

/// The object that a value is; `None` where it is none.
///
/// # Safety
/// A value of the server's.
unsafe fn object(value: &pg_sys::JsonbValue) -> Option<*mut pg_sys::JsonbContainer> {
    // SAFETY: a binary value has a container.
    unsafe {
        if value.type_ != pg_sys::jbvType::jbvBinary {
            return None;
        }
        let container = value.val.binary.data;
        is_object(container).then_some(container)
    }
}

/// Adds the merged object to what is being made.
///
/// # Safety
/// Objects of a jsonb, which live until the answer is made.
unsafe fn merge(
    state: &mut *mut pg_sys::JsonbParseState,
    target: Option<*mut pg_sys::JsonbContainer>,
    patch: *mut pg_sys::JsonbContainer,
) -> *mut pg_sys::JsonbValue {
    use pg_sys::JsonbIteratorToken as T;
    // SAFETY: the caller's promise. The server keeps what is pushed in the call's memory, and sorts members at the end.
    unsafe {
        pg_sys::check_stack_depth();
        pg_sys::pushJsonbValue(state, T::WJB_BEGIN_OBJECT, std::ptr::null_mut());
        for (mut key, mut value) in target.into_iter().flat_map(|target| members(target)) {
            let Some(new) = member(patch, &key) else {
                pg_sys::pushJsonbValue(state, T::WJB_KEY, &raw mut key);
                pg_sys::pushJsonbValue(state, T::WJB_VALUE, &raw mut value);
                continue;
            };
            push(state, key, object(&value), new);
        }
        for (key, value) in members(patch) {
            if target.and_then(|target| member(target, &key)).is_none() {
                push(state, key, None, value);
            }
        }
        pg_sys::pushJsonbValue(state, T::WJB_END_OBJECT, std::ptr::null_mut())
    }
}

/// Adds a member of the patch, merged into the target's object of that name.
///
/// # Safety
/// As for [`merge`].
unsafe fn push(
    state: &mut *mut pg_sys::JsonbParseState,
    mut key: pg_sys::JsonbValue,
    target: Option<*mut pg_sys::JsonbContainer>,
    mut value: pg_sys::JsonbValue,
) {
    use pg_sys::JsonbIteratorToken as T;
    if value.type_ == pg_sys::jbvType::jbvNull {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::pushJsonbValue(state, T::WJB_KEY, &raw mut key);
        match object(&value) {
            Some(patch) => {
                merge(state, target, patch);
            }
            None => {
                pg_sys::pushJsonbValue(state, T::WJB_VALUE, &raw mut value);
            }
        }
    }
}

/// A member of an object by its name.
///
/// # Safety
/// As for [`merge`]; `key` is a string.
unsafe fn member(object: *mut pg_sys::JsonbContainer, key: &pg_sys::JsonbValue) -> Option<pg_sys::JsonbValue> {
    // SAFETY: the caller's promise; the server allocates the value that it finds.
    unsafe {
        let name = key.val.string;
        let found = pg_sys::getKeyJsonValueFromContainer(object, name.val, name.len, std::ptr::null_mut());
        found.as_ref().copied()
    }
}

/// The members of an object, with nested values as they are.
///
/// # Safety
/// As for [`merge`].
unsafe fn members(
    object: *mut pg_sys::JsonbContainer,
) -> impl Iterator<Item = (pg_sys::JsonbValue, pg_sys::JsonbValue)> {
    use pg_sys::JsonbIteratorToken as T;
    // SAFETY: the caller's promise; the iterator lives in the call's memory.
    unsafe {
        let mut iterator = pg_sys::JsonbIteratorInit(object);
        let mut next = move || {
            let mut value = pg_sys::JsonbValue::default();
            let token = pg_sys::JsonbIteratorNext(&raw mut iterator, &raw mut value, true);
            (token, value)
        };
        next();
        std::iter::from_fn(move || match next() {
            (T::WJB_KEY, key) => Some((key, next().1)),
            _ => None,
        })
    }
}

/// A copy in the call's memory, which starts at a multiple of 4.
fn aligned(bytes: &[u8]) -> Buffer {
    let buffer = Buffer::allocate(bytes.len());
    buffer.bytes().copy_from_slice(bytes);
    buffer
}

/// The `jsonb` of a text of JSON in the database's encoding; what isn't JSON is the server's error.
pub fn parse(json: &[u8]) -> Value<'static> {
    let text = super::unguarded::c_string(json);
    // SAFETY: the server's input function of `jsonb` takes a C string.
    Value::Raw(unsafe {
        pg_sys::OidInputFunctionCall(pg_sys::F_JSONB_IN.into(), text.cast_mut(), pg_sys::JSONBOID, -1)
    })
}
