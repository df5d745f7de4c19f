//! Reads and restores process-wide settings that a library can change for the whole process: signal dispositions,
//! the signal mask of a thread, and the decimal separator of the C locale.

use std::{io, mem::MaybeUninit, ptr};

/// The disposition of a signal: what the process does when the signal arrives (sigaction(2)).
#[derive(Clone, Copy)]
pub struct Disposition(libc::sigaction);

/// The kind of a [`Disposition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DispositionKind {
    /// The default action. For most signals, the default action ends the process.
    Default,
    /// The signal is ignored.
    Ignored,
    /// A handler function that receives only the number of the signal. Such a handler usually does not call the handler
    /// that was installed before.
    Handler,
    /// A handler function that receives the number and a `siginfo_t` (`SA_SIGINFO`). Libraries that share a signal,
    /// such as tokio, install such a handler, and it calls the handler that was installed before.
    InfoHandler,
}

impl Disposition {
    /// Returns the current disposition of `signal`.
    ///
    /// # Errors
    ///
    /// Returns an error if no signal has this number.
    pub fn of(signal: i32) -> io::Result<Self> {
        let mut action = MaybeUninit::uninit();
        // SAFETY: with a null pointer as the new action, `sigaction` changes nothing. `action` is writable.
        let failed = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has succeeded, so it has written `action`.
        Ok(Self(unsafe { action.assume_init() }))
    }

    /// Returns the kind of the disposition.
    #[must_use]
    pub fn kind(&self) -> DispositionKind {
        match self.0.sa_sigaction {
            libc::SIG_DFL => DispositionKind::Default,
            libc::SIG_IGN => DispositionKind::Ignored,
            _ if self.0.sa_flags & libc::SA_SIGINFO != 0 => DispositionKind::InfoHandler,
            _ => DispositionKind::Handler,
        }
    }

    /// Sets `signal` to this disposition.
    ///
    /// # Errors
    ///
    /// Returns an error if no signal has this number, or if the disposition of the signal cannot be changed.
    pub fn restore(&self, signal: i32) -> io::Result<()> {
        // SAFETY: `of` has read this action, so it was in force before. Its handler is a function of this program or of
        // a library, and libraries are never unloaded.
        match unsafe { libc::sigaction(signal, &raw const self.0, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl PartialEq for Disposition {
    fn eq(&self, other: &Self) -> bool {
        // The C library adds this flag to every action that it sets, so the flag is no difference.
        let flags = |action: &Self| action.0.sa_flags & !SA_RESTORER;
        self.0.sa_sigaction == other.0.sa_sigaction && flags(self) == flags(other)
    }
}

/// The kernel's flag `SA_RESTORER`. The crate `libc` does not define the flag.
const SA_RESTORER: i32 = 0x0400_0000;

impl std::fmt::Debug for Disposition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Disposition")
            .field(&self.kind())
            .finish()
    }
}

/// The signal mask of a thread: the signals that the thread blocks (pthread_sigmask(3)). A thread passes its mask on to
/// the threads and child processes that it starts.
#[derive(Clone, Copy)]
pub struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// Returns the mask of the current thread. Returns `None` if the system call fails; on Linux it never fails.
    #[must_use]
    pub fn of_this_thread() -> Option<Self> {
        let mut mask = MaybeUninit::uninit();
        // SAFETY: with a null pointer as the new mask, `pthread_sigmask` changes nothing. `mask` is writable.
        let failed =
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), mask.as_mut_ptr()) };
        // SAFETY: a successful call has written `mask`.
        (failed == 0).then(|| Self(unsafe { mask.assume_init() }))
    }

    /// Returns whether the mask blocks `signal`.
    #[must_use]
    pub fn blocks(&self, signal: i32) -> bool {
        // SAFETY: `of_this_thread` has initialized the mask.
        unsafe { libc::sigismember(&raw const self.0, signal) == 1 }
    }

    /// Sets the mask of the current thread to this mask.
    pub fn restore(&self) {
        // SAFETY: `of_this_thread` has initialized the mask. With a null pointer, the call does not return the mask
        // that was set before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

impl std::fmt::Debug for SignalMask {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SignalMask").finish_non_exhaustive()
    }
}

/// Returns the decimal separator that C code of the process prints in numbers. The separator is `.` unless a library
/// has called setlocale(3), which changes the locale of the whole process. Returns `None` if the text cannot be read.
#[must_use]
pub fn decimal_sign() -> Option<char> {
    let mut text = [0_u8; 8];
    // SAFETY: `snprintf` writes at most `text.len()` bytes, and the format has one conversion, for the one argument of
    // the type `f64`.
    let written = unsafe {
        libc::snprintf(
            text.as_mut_ptr().cast(),
            text.len(),
            c"%.1f".as_ptr(),
            1.5_f64,
        )
    };
    let written = usize::try_from(written).ok()?;
    let text = std::str::from_utf8(text.get(..written)?).ok()?;
    text.chars().find(|sign| !sign.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "the signals are the system's")]
    fn a_disposition_is_read_and_restored() {
        let before = Disposition::of(libc::SIGWINCH).unwrap();
        assert_eq!(before.kind(), DispositionKind::Default);
        // SAFETY: the default action of this signal ignores it too, so the process behaves as before.
        unsafe { libc::signal(libc::SIGWINCH, libc::SIG_IGN) };
        let changed = Disposition::of(libc::SIGWINCH).unwrap();
        assert_eq!(changed.kind(), DispositionKind::Ignored);
        assert_ne!(before, changed);
        before.restore(libc::SIGWINCH).unwrap();
        assert_eq!(Disposition::of(libc::SIGWINCH).unwrap(), before);
        assert!(Disposition::of(-1).is_err());
    }

    #[test]
    #[cfg_attr(miri, ignore = "the signals are the system's")]
    fn a_mask_is_read_and_restored() {
        let before = SignalMask::of_this_thread().unwrap();
        let mut blocked = before;
        // SAFETY: `of_this_thread` has initialized the mask.
        unsafe { libc::sigaddset(&raw mut blocked.0, libc::SIGWINCH) };
        blocked.restore();
        let now = SignalMask::of_this_thread().unwrap();
        assert!(now.blocks(libc::SIGWINCH) && !before.blocks(libc::SIGWINCH));
        before.restore();
        let now = SignalMask::of_this_thread().unwrap();
        assert!(!now.blocks(libc::SIGWINCH));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no formats")]
    fn numbers_have_a_point_until_somebody_sets_a_locale() {
        assert_eq!(decimal_sign(), Some('.'));
    }
}
