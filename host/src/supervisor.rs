//! What the supervisor is made of: the mechanism of processes, without any decision about apps.
//!
//! The supervisor is the process that owns the sockets, and starts, watches and ends the workers.
//! It opens no library and reads no request, so that no plugin can end it.

pub mod backoff;
pub mod last_words;
pub mod listeners;
pub mod process;
pub mod systemd;
pub mod upgrade;
