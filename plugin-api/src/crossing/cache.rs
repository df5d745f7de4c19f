//! Caches of header values, header maps and paths that have crossed the ABI. Clients and apps repeat
//! them, and cloning a cached value is cheaper than validating and creating the value again.
//!
//! The caches are bounded in number and size, and store no secrets. Each thread has its own caches. They are in a
//! static array and not in thread-locals, because a plugin must free them when its app ends: a plugin's code runs on
//! threads of the host, which continue to run.

mod fixed_table;
mod template;

use std::{
    cell::Cell,
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    uri::{InvalidUri, PathAndQuery},
};

use self::{fixed_table::FixedTable, template::HeaderTemplate};
use super::{
    headers::{InvalidHeader, value_of},
    names,
};
use crate::abi::HeaderView;

/// Runs `work` with the caches of this thread.
pub(crate) fn with<R>(work: impl FnOnce(&mut Cache<'_>) -> R) -> R {
    let mut guard = lock();
    work(&mut Cache(
        guard.as_deref_mut().map(ThreadCaches::get_or_create),
    ))
}

/// Frees the caches of all threads. A plugin calls this when its app ends.
pub(crate) fn clear() {
    for slot in &CACHES {
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Access to the caches of a thread. `None` if the caches are in use, by another thread that shares them or by an outer
/// call of [`with`] on this thread. All methods then work without a cache.
pub(crate) struct Cache<'a>(Option<&'a mut ThreadCaches>);

impl Cache<'_> {
    /// Returns the value of a field.
    ///
    /// # Errors
    ///
    /// Returns an error if HTTP does not allow the value.
    pub(crate) fn value(&mut self, field: &HeaderView<'_>) -> Result<HeaderValue, InvalidHeader> {
        let caches = self.0.as_deref_mut();
        let Some(caches) = caches.filter(|_| is_cacheable(field)) else {
            return value_of(field);
        };
        let bytes = field.value();
        let hash = fixed_table::hash(bytes);
        match caches.values.get(hash) {
            Some(value) if value == bytes => Ok(value.clone()),
            _ => {
                let value = value_of(field)?;
                caches.values.offer(hash, || value.clone());
                Ok(value)
            }
        }
    }

    /// Returns the path and query in `bytes`, or `/` if `bytes` is empty.
    ///
    /// # Errors
    ///
    /// Returns an error if RFC 3986 does not allow the bytes.
    pub(crate) fn path(&mut self, bytes: &[u8]) -> Result<PathAndQuery, InvalidUri> {
        if bytes.is_empty() {
            return Ok(PathAndQuery::from_static("/"));
        }
        let parse = || PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(bytes));
        let caches = self.0.as_deref_mut();
        let Some(caches) = caches.filter(|_| bytes.len() <= MAX_CACHED_LEN) else {
            return parse();
        };
        let hash = fixed_table::hash(bytes);
        match caches.paths.get(hash) {
            Some(path) if path.as_str().as_bytes() == bytes => Ok(path.clone()),
            _ => {
                let path = parse()?;
                // A query often has values that belong to a single request or are secrets.
                if path.query().is_none() {
                    caches.paths.offer(hash, || path.clone());
                }
                Ok(path)
            }
        }
    }

    /// Adds fields to `map`.
    ///
    /// # Errors
    ///
    /// Returns an error if HTTP does not allow the name or value of a field.
    pub(crate) fn add(
        &mut self,
        map: &mut HeaderMap,
        fields: &[HeaderView<'_>],
    ) -> Result<(), InvalidHeader> {
        for field in fields {
            let value = self.value(field)?;
            if let Some(name) = names::name(field.id()) {
                map.append(name, value);
                continue;
            }
            // Names without a number are not cached: most fields have a number, and a template already holds the names
            // of a map that has crossed before.
            let name =
                HeaderName::from_bytes(field.name()).map_err(|_| InvalidHeader::new(field))?;
            map.append(name, value);
        }
        Ok(())
    }

    /// Adds fields to `map`, which must be empty. Clones a template if maps with the same names have crossed before.
    ///
    /// # Errors
    ///
    /// Returns an error if HTTP does not allow the name or value of a field.
    pub(crate) fn fill(
        &mut self,
        map: &mut HeaderMap,
        fields: &[HeaderView<'_>],
    ) -> Result<(), InvalidHeader> {
        let caches = self.0.as_deref_mut();
        let Some(caches) = caches.filter(|_| fields.len() > template::MAX_FIELDS_WITHOUT_TEMPLATE)
        else {
            return self.add(map, fields);
        };
        let hash = template::hash(fields);
        if let Some(template) = caches.templates.get_mut(hash) {
            if template.copy_to(map, fields)? {
                return Ok(());
            }
        }
        map.reserve(fields.len());
        self.add(map, fields)?;
        let caches = self.0.as_deref_mut();
        if let Some(caches) = caches.filter(|_| HeaderTemplate::is_cacheable(map, fields)) {
            caches
                .templates
                .offer(hash, || HeaderTemplate::new(map, fields));
        }
        Ok(())
    }
}

/// Returns whether a cache may store the value of a field: the value is short and not a secret.
fn is_cacheable(field: &HeaderView<'_>) -> bool {
    if field.value().len() > MAX_CACHED_LEN || field.is_sensitive() {
        return false;
    }
    if field.id() != 0 {
        return !names::is_secret(field.id());
    }
    // The other side may send a well-known name without its number, because it finds the number by the address of the
    // text (`names::NameIds`).
    !names::is_secret_name(field.name())
}

/// The maximum length of a cached text in bytes. Needed because clients choose the length of their texts.
const MAX_CACHED_LEN: usize = 128;

/// The caches of one thread.
struct ThreadCaches {
    values: FixedTable<HeaderValue, 64>,
    templates: FixedTable<HeaderTemplate, 16>,
    paths: FixedTable<PathAndQuery, 64>,
}

impl ThreadCaches {
    fn get_or_create(caches: &mut Option<Box<Self>>) -> &mut Self {
        match caches {
            Some(caches) => caches,
            None => caches.insert(Self::new()),
        }
    }

    // Not inlined, because the tables are created on the stack before they move to the heap. Inlining would enlarge the
    // stack frame of every caller.
    #[cold]
    #[inline(never)]
    fn new() -> Box<Self> {
        Box::new(Self {
            values: FixedTable::new(),
            templates: FixedTable::new(),
            paths: FixedTable::new(),
        })
    }
}

/// The caches of all threads. A thread creates its caches at their first use.
static CACHES: [Mutex<Option<Box<ThreadCaches>>>; CACHE_COUNT] =
    [const { Mutex::new(None) }; CACHE_COUNT];

/// The number of threads that have caches of their own. If more threads use the caches, several threads share a slot of
/// [`CACHES`].
const CACHE_COUNT: usize = 32;

/// Locks the caches of this thread. Returns `None` if the caches are locked. Never waits for the lock, because this
/// thread itself may hold the lock.
fn lock() -> Option<MutexGuard<'static, Option<Box<ThreadCaches>>>> {
    match CACHES[index()].try_lock() {
        Ok(caches) => Some(caches),
        // The caches are usable after a panic, because every value in them is complete at any time.
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Returns the index of this thread's caches in [`CACHES`].
fn index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static INDEX: Cell<Option<usize>> = const { Cell::new(None) };
    }
    INDEX.get().unwrap_or_else(|| {
        // Relaxed, because no other memory depends on the counter.
        let index = NEXT.fetch_add(1, Ordering::Relaxed) % CACHE_COUNT;
        INDEX.set(Some(index));
        index
    })
}

#[cfg(test)]
mod tests;
