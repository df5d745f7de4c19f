//! The ABI between the host (the server) and a plugin: the `repr(C)` types that the two exchange, and the
//! ownership of each value.
//!
//! Three kinds of values cross: scalars, borrowed `(pointer, length)` pairs, and owned
//! `(pointer, length, free)` values. Each side frees the memory that it allocated, because the two sides may
//! use different allocators. The following rules hold for every item here:
//!
//! - **Loading**: abi_stable checks [`v1::Root`], the root module of a library. The root module returns
//!   [`Plugin`], the plugin's table of functions. The host reaches everything else through that table.
//! - **Growth**: a struct that is passed by pointer starts with its `size` in bytes. A later minor version
//!   appends fields. A reader reads an appended field only if `size` covers the field. Structs without a
//!   `size` (slices, headers, frames, values) never change within major version 1.
//! - **Borrowed** memory is valid until the called function returns, unless the item documents another time.
//! - **Null**: a pointer may be null only where the item documents the meaning of null.
//! - **Threads**: any thread may call any function. Two threads never use the same `*mut` object at the same
//!   time.
//! - **Panics**: no function unwinds into its caller.
//! - **Bytes**: a field that is documented as text is UTF-8. No text is NUL-terminated.
//!
//! `abi/layout.txt` records the size of each type, and the offset and type of each field. A test compares
//! the types with this record.

mod address;
mod body;
mod bytes;
mod call;
mod headers;
#[cfg(test)]
mod layout;
mod log;
mod plugin;
mod stream;
pub mod v1;
mod view;
mod waker;

pub(crate) use self::view::{HeaderView, RequestView};
pub use self::{
    address::SocketAddress,
    body::{Body, BodyVtable, Frame, Frames},
    bytes::{OwnedBytes, Slice},
    call::{CallContext, CallSlot, HeadersFn, Request, Response},
    headers::{Header, Headers},
    log::{Callsite, Entry, Field, Panic, Registered, Value},
    plugin::{HandOver, HandedOver, Host, Init, Initialized, Plugin, Stop, Stopped},
    stream::{Stream, StreamVtable, Transfer},
    waker::{Waker, WakerVtable},
};

/// The major version of the ABI. Increased when an existing item changes. A host refuses a plugin whose major
/// version differs.
pub const MAJOR: u32 = 1;
/// The minor version of the ABI. Increased when an item is appended.
pub const MINOR: u32 = 4;
/// `MAJOR.MINOR`, as written to the manifest.
pub const VERSION: &str = "1.4";

/// The return values of functions that poll.
pub mod poll {
    /// Not ready. The polled side wakes the waker that the poll passed when a new poll can make progress.
    pub const PENDING: u32 = 0;
    /// Ready. Each function documents where its result is.
    pub const READY: u32 = 1;
    /// For a call: the app returned an error, and the plugin has logged the error. For a stream: the operation
    /// failed, and [`Transfer::errno`](super::Transfer::errno) holds the error number.
    pub const FAILED: u32 = 2;
    /// The app panicked. The plugin has reported the panic to [`Host::panicked`](super::Host::panicked).
    pub const PANICKED: u32 = 3;
}
