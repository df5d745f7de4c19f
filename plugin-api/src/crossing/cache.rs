//! Header names, values, maps and paths that crossed before: clients and apps send the same ones again and again, and a
//! copy is cheaper than to check and make them anew.
//!
//! The caches are bounded in number and size, and keep no secrets. Each thread has caches of its own, in an array, so that
//! a plugin can free them when its app ends: its threads are the server's, and stay.

mod memo;
mod shape;

use std::{
    cell::Cell,
    mem,
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

use self::{memo::Memo, shape::Shape};
use super::{
    headers::{InvalidHeader, value_of},
    names,
};
use crate::abi::HeaderView;

/// Runs `work` with the caches of this thread.
pub(crate) fn with<R>(work: impl FnOnce(&mut Cache<'_>) -> R) -> R {
    let mut guard = lock();
    work(&mut Cache(guard.as_deref_mut().map(Tables::get_or_make)))
}

/// Keeps the memory of a map that is no longer needed, for one with a few fields.
pub(crate) fn recycle(map: HeaderMap) {
    if (1..=shape::MOST).contains(&map.capacity()) {
        with(|cache| cache.keep_memory(map));
    }
}

/// Frees the caches of all threads.
pub(crate) fn clear() {
    for tables in &TABLES {
        *tables.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The caches of a thread. None when another thread uses them right now, or this thread does already: then nothing is
/// found in them, and nothing is kept.
pub(crate) struct Cache<'a>(Option<&'a mut Tables>);

impl Cache<'_> {
    /// The header name with this text; none when HTTP does not allow the text.
    pub(crate) fn name(&mut self, text: &[u8]) -> Option<HeaderName> {
        let tables = self.0.as_deref_mut();
        let Some(tables) = tables.filter(|_| text.len() <= LONGEST) else {
            return HeaderName::from_bytes(text).ok();
        };
        let hash = memo::hash(text);
        match tables.names.get(hash) {
            Some(name) if name.as_str().as_bytes() == text => Some(name.clone()),
            _ => {
                let name = HeaderName::from_bytes(text).ok()?;
                tables.names.offer(hash, || name.clone());
                Some(name)
            }
        }
    }

    /// The value of a field.
    ///
    /// # Errors
    ///
    /// When HTTP does not allow the value.
    pub(crate) fn value(&mut self, field: &HeaderView<'_>) -> Result<HeaderValue, InvalidHeader> {
        let tables = self.0.as_deref_mut();
        let Some(tables) = tables.filter(|_| may_be_kept(field)) else {
            return value_of(field);
        };
        let bytes = field.value();
        let hash = memo::hash(bytes);
        match tables.values.get(hash) {
            Some(value) if value == bytes => Ok(value.clone()),
            _ => {
                let value = value_of(field)?;
                tables.values.offer(hash, || value.clone());
                Ok(value)
            }
        }
    }

    /// The path and query of these bytes; `/` when there are none.
    ///
    /// # Errors
    ///
    /// When the bytes are not what RFC 3986 allows.
    pub(crate) fn path(&mut self, bytes: &[u8]) -> Result<PathAndQuery, InvalidUri> {
        if bytes.is_empty() {
            return Ok(PathAndQuery::from_static("/"));
        }
        let parse = || PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(bytes));
        let tables = self.0.as_deref_mut();
        let Some(tables) = tables.filter(|_| bytes.len() <= LONGEST) else {
            return parse();
        };
        let hash = memo::hash(bytes);
        match tables.paths.get(hash) {
            Some(path) if path.as_str().as_bytes() == bytes => Ok(path.clone()),
            _ => {
                let path = parse()?;
                // A query often holds what is of one request only, and may be a secret.
                if path.query().is_none() {
                    tables.paths.offer(hash, || path.clone());
                }
                Ok(path)
            }
        }
    }

    /// Adds fields to `map`.
    ///
    /// # Errors
    ///
    /// A field with a name or value that HTTP does not allow.
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
            let name = self.name(field.name());
            map.append(name.ok_or_else(|| InvalidHeader::new(field))?, value);
        }
        Ok(())
    }

    /// Adds fields to `map`, which is empty. Where a map with the same names crossed before, that is copied.
    ///
    /// # Errors
    ///
    /// As for [`add`](Self::add).
    pub(crate) fn fill(
        &mut self,
        map: &mut HeaderMap,
        fields: &[HeaderView<'_>],
    ) -> Result<(), InvalidHeader> {
        let Some(tables) = self.0.as_deref_mut() else {
            return self.add(map, fields);
        };
        if fields.len() <= shape::FEW {
            mem::swap(map, &mut tables.spare);
            return self.add(map, fields);
        }
        let hash = shape::hash(fields);
        if let Some(shape) = tables.shapes.get_mut(hash) {
            if shape.copy_to(map, fields)? {
                return Ok(());
            }
        }
        map.reserve(fields.len());
        self.add(map, fields)?;
        let tables = self.0.as_deref_mut();
        if let Some(tables) = tables.filter(|_| Shape::may_be_kept(map, fields)) {
            tables.shapes.offer(hash, || Shape::new(map, fields));
        }
        Ok(())
    }

    fn keep_memory(&mut self, mut map: HeaderMap) {
        let tables = self.0.as_deref_mut();
        if let Some(tables) = tables.filter(|tables| tables.spare.capacity() == 0) {
            map.clear();
            tables.spare = map;
        }
    }
}

/// Whether the value of a field may stay in a cache: it is short, and no secret.
fn may_be_kept(field: &HeaderView<'_>) -> bool {
    if field.value().len() > LONGEST || field.is_sensitive() {
        return false;
    }
    if field.id() != 0 {
        return !names::is_secret(field.id());
    }
    // The other side may know a name by its text only.
    !names::is_secret_name(field.name())
}

/// How long a text in a cache may be, in bytes, because a client chooses how long its texts are.
const LONGEST: usize = 128;

/// The caches of one thread.
struct Tables {
    names: Memo<HeaderName, 64>,
    values: Memo<HeaderValue, 64>,
    shapes: Memo<Shape, 16>,
    paths: Memo<PathAndQuery, 64>,
    /// An empty map with memory for a few fields.
    spare: HeaderMap,
}

impl Tables {
    fn get_or_make(tables: &mut Option<Box<Self>>) -> &mut Self {
        match tables {
            Some(tables) => tables,
            None => tables.insert(Self::new()),
        }
    }

    // Not inlined, because the tables are built on the stack first, and inlining would make every caller's stack
    // frame big.
    #[cold]
    #[inline(never)]
    fn new() -> Box<Self> {
        Box::new(Self {
            names: Memo::new(),
            values: Memo::new(),
            shapes: Memo::new(),
            paths: Memo::new(),
            spare: HeaderMap::new(),
        })
    }
}

static TABLES: [Mutex<Option<Box<Tables>>>; THREADS] = [const { Mutex::new(None) }; THREADS];

/// How many threads have caches of their own. Further threads share.
const THREADS: usize = 32;

/// Locks the caches of this thread. None when they are locked already.
fn lock() -> Option<MutexGuard<'static, Option<Box<Tables>>>> {
    match TABLES[index()].try_lock() {
        Ok(tables) => Some(tables),
        // A panic leaves whole values behind.
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// The index of this thread's caches.
fn index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static INDEX: Cell<Option<usize>> = const { Cell::new(None) };
    }
    INDEX.get().unwrap_or_else(|| {
        let index = NEXT.fetch_add(1, Ordering::Relaxed) % THREADS;
        INDEX.set(Some(index));
        index
    })
}

#[cfg(test)]
mod tests;
