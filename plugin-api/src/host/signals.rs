//! What the process does when a signal arrives, and which signals a thread takes: a library can change
//! both for everybody.

use std::{io, mem::MaybeUninit, ptr};

/// What the process does when a signal arrives (sigaction(2)).
#[derive(Clone, Copy)]
pub struct Disposition(libc::sigaction);

/// What kind of a [`Disposition`] it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DispositionKind {
    /// The signal has its default action, which is the end of the process for most.
    Default,
    /// The signal is ignored.
    Ignored,
    /// A function runs that gets the number of the signal alone. Such a handler has usually been
    /// installed without regard for the one before.
    Handler,
    /// A function runs that gets all that is known (`SA_SIGINFO`). Libraries that share a signal, such as
    /// tokio, have handlers of this kind, and call the one before.
    InfoHandler,
}

impl Disposition {
    /// The disposition of `signal` as it is now.
    ///
    /// # Errors
    ///
    /// When there is no such signal.
    pub fn of(signal: i32) -> io::Result<Self> {
        let mut action = MaybeUninit::uninit();
        // SAFETY: a null pointer changes nothing, and there is room for the answer.
        let failed = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, and has written it.
        Ok(Self(unsafe { action.assume_init() }))
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> DispositionKind {
        match self.0.sa_sigaction {
            libc::SIG_DFL => DispositionKind::Default,
            libc::SIG_IGN => DispositionKind::Ignored,
            _ if self.0.sa_flags & libc::SA_SIGINFO != 0 => DispositionKind::InfoHandler,
            _ => DispositionKind::Handler,
        }
    }

    /// Makes it the disposition of `signal` again.
    ///
    /// # Errors
    ///
    /// When there is no such signal, or it cannot be handled.
    pub fn restore(&self, signal: i32) -> io::Result<()> {
        // SAFETY: the action was the one in force before, whose handler is in a library that is never
        // unloaded or in this program.
        match unsafe { libc::sigaction(signal, &raw const self.0, ptr::null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl PartialEq for Disposition {
    fn eq(&self, other: &Self) -> bool {
        // The C library sets this flag whenever it sets an action.
        let flags = |action: &Self| action.0.sa_flags & !SA_RESTORER;
        self.0.sa_sigaction == other.0.sa_sigaction && flags(self) == flags(other)
    }
}

/// `SA_RESTORER` of the kernel, which the crate `libc` leaves out.
const SA_RESTORER: i32 = 0x0400_0000;

impl std::fmt::Debug for Disposition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Disposition")
            .field(&self.kind())
            .finish()
    }
}

/// The signals that a thread does not take (pthread_sigmask(3)). A thread that it starts, and a child
/// process, has the same.
#[derive(Clone, Copy)]
pub struct SignalMask(libc::sigset_t);

impl SignalMask {
    /// The mask of the thread that calls. None when the system does not tell, which it always does.
    #[must_use]
    pub fn of_this_thread() -> Option<Self> {
        let mut mask = MaybeUninit::uninit();
        // SAFETY: a null pointer changes nothing, and there is room for the answer.
        let failed =
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), mask.as_mut_ptr()) };
        // SAFETY: the call has written the mask when it succeeded.
        (failed == 0).then(|| Self(unsafe { mask.assume_init() }))
    }

    /// Whether the thread does not take `signal`.
    #[must_use]
    pub fn blocks(&self, signal: i32) -> bool {
        // SAFETY: the mask was initialized by the system.
        unsafe { libc::sigismember(&raw const self.0, signal) == 1 }
    }

    /// Makes it the mask of the thread that calls.
    pub fn restore(&self) {
        // SAFETY: the mask was initialized by the system, and nobody wants the one before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

impl std::fmt::Debug for SignalMask {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SignalMask").finish_non_exhaustive()
    }
}

/// The sign between the digits of a number as C code of the process writes it: `.`, until a library
/// calls setlocale(3) for all.
#[must_use]
pub fn decimal_sign() -> Option<char> {
    let mut text = [0_u8; 8];
    // SAFETY: the length is that of the buffer, and the format asks for the one number that is given.
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
    fn a_disposition_is_told_and_put_back() {
        let before = Disposition::of(libc::SIGWINCH).unwrap();
        assert_eq!(before.kind(), DispositionKind::Default);
        // SAFETY: ignoring this signal is what happens to it anyway.
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
    fn a_mask_is_told_and_put_back() {
        let before = SignalMask::of_this_thread().unwrap();
        let mut blocked = before;
        // SAFETY: the set was initialized by the system.
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
