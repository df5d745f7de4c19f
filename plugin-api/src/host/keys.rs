//! Estimates the number of free pthread keys (pthread_key_create(3)), which limits the number of libraries that the
//! process can load.
//!
//! Every loaded library allocates at least one key when its code first uses a thread-local with a destructor. The key
//! is never freed, because the library is never unloaded. If no key is free, the library's std aborts the process. The
//! abort happens at the library's first call, long after the library was opened without an error.

use std::mem::MaybeUninit;

/// Returns the approximate number of free pthread keys. The result is exact if it is less than 8.
///
/// The function creates a few probe keys and deletes them again. The C library assigns the lowest free numbers first,
/// so the highest number of the probe keys shows how many keys are in use.
#[must_use]
pub fn remaining_thread_keys() -> usize {
    // Only a few probe keys, because another thread may need a key at the same time.
    let keys: Vec<_> = std::iter::from_fn(new_key).take(PROBE_KEYS).collect();
    for &key in &keys {
        // SAFETY: this function has created the key, and no thread has set a value for the key.
        unsafe { libc::pthread_key_delete(key) };
    }
    let highest = keys.iter().max().map_or(0, |&key| key as usize + 1);
    if keys.len() < PROBE_KEYS {
        keys.len()
    } else {
        // The probe keys themselves are free again.
        (MAX_KEYS + PROBE_KEYS).saturating_sub(highest)
    }
}

/// Returns a new pthread key, or `None` if no key is free.
fn new_key() -> Option<libc::pthread_key_t> {
    let mut key = MaybeUninit::uninit();
    // SAFETY: `key` is writable. The key has no destructor.
    let failed = unsafe { libc::pthread_key_create(key.as_mut_ptr(), None) };
    // SAFETY: a successful call has written the key.
    (failed == 0).then(|| unsafe { key.assume_init() })
}

/// The number of keys that a probe creates.
const PROBE_KEYS: usize = 8;

/// The maximum number of keys of a process: `PTHREAD_KEYS_MAX` of glibc and musl.
const MAX_KEYS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "the keys are Miri's, not the system's")]
    fn a_key_that_is_taken_is_one_less() {
        let before = remaining_thread_keys();
        assert!(before <= MAX_KEYS);
        let keys: Vec<_> = std::iter::from_fn(new_key).take(100).collect();
        let after = remaining_thread_keys();
        assert!((90..=110).contains(&(before - after)), "{before}, {after}");
        for key in keys {
            // SAFETY: this test has created the key, and no thread has set a value for the key.
            unsafe { libc::pthread_key_delete(key) };
        }
        assert!(remaining_thread_keys() > after);
    }
}
