//! How many pthread keys the process has left: the ceiling on the libraries that it can load.
//!
//! Every loaded library takes at least one key, when its code first makes a thread-local with a
//! destructor, and never gives it back. When there is none, std aborts the process: at the library's
//! first call, long after it was opened without an error.

use std::mem::MaybeUninit;

/// About how many more keys the process can have: exact when there are few.
///
/// The function makes a few keys and deletes them again. The system gives out the lowest free number first, so the
/// numbers of these keys tell how many are in use. Only a few are made, because other threads need keys meanwhile.
#[must_use]
pub fn thread_keys_left() -> usize {
    let keys: Vec<_> = std::iter::from_fn(new_key).take(PROBE).collect();
    for &key in &keys {
        // SAFETY: the key was made just now, and nobody has a value under it.
        unsafe { libc::pthread_key_delete(key) };
    }
    let highest = keys.iter().max().map_or(0, |&key| key as usize + 1);
    if keys.len() < PROBE {
        keys.len()
    } else {
        (KEYS_MAX + PROBE).saturating_sub(highest)
    }
}

fn new_key() -> Option<libc::pthread_key_t> {
    let mut key = MaybeUninit::uninit();
    // SAFETY: there is room for the key, and no destructor.
    let failed = unsafe { libc::pthread_key_create(key.as_mut_ptr(), None) };
    // SAFETY: it is written when the call succeeds.
    (failed == 0).then(|| unsafe { key.assume_init() })
}

/// How many keys the function makes.
const PROBE: usize = 8;

/// `PTHREAD_KEYS_MAX` of glibc and musl.
const KEYS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "the keys are Miri's, not the system's")]
    fn a_key_that_is_taken_is_one_less() {
        let before = thread_keys_left();
        assert!(before <= KEYS_MAX);
        let keys: Vec<_> = std::iter::from_fn(new_key).take(100).collect();
        let after = thread_keys_left();
        assert!((90..=110).contains(&(before - after)), "{before}, {after}");
        for key in keys {
            // SAFETY: the key was made above, and nobody has a value under it.
            unsafe { libc::pthread_key_delete(key) };
        }
        assert!(thread_keys_left() > after);
    }
}
