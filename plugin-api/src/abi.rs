//! The boundary: the `repr(C)` types that host and plugin exchange, and who owns what.
//!
//! Only scalars, borrowed `(pointer, length)` pairs and owned `(pointer, length, free)` values
//! cross; each side frees what it allocated. The rules that hold for every item here:
//!
//! - **Loading** goes through [`v1::Root`], which abi_stable checks; everything behind it is found
//!   from [`Plugin`], the plugin's table of functions.
//! - **Growth**: a struct that is passed by pointer starts with its `size` in bytes. A later minor
//!   version appends fields, and a reader looks at an appended field only when `size` covers it.
//!   Structs without a size (slices, headers, frames, values) stay as they are for the whole of
//!   major version 1.
//! - **Borrowed** means valid until the called function returns, unless the item says otherwise.
//! - **Null** is allowed only where an item says what it means.
//! - **Threads**: any thread may call anything, but an object that is passed as `*mut` is used by
//!   one thread at a time. Nothing may unwind across.
//! - **Bytes**: text is UTF-8 where it is said to be text. Nothing is NUL-terminated.
//!
//! `abi/layout.txt` records the size of each type, and the offset and type of each field; a test
//! compares.

mod body;
mod bytes;
mod call;
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
    body::{Body, BodyVtable, Frame, Frames},
    bytes::{OwnedBytes, Slice},
    call::{CallContext, CallSlot, Header, Headers, LayOut, Request, Response, SocketAddress},
    log::{Callsite, Entry, Field, Panic, Registered, Value},
    plugin::{HandOver, HandedOver, Host, Init, Initialized, Plugin, Stop, Stopped},
    stream::{Stream, StreamVtable, Transfer},
    waker::{Waker, WakerVtable},
};

/// Changes when something existing changes: such a plugin is refused.
pub const MAJOR: u32 = 1;
/// Changes when something is appended.
pub const MINOR: u32 = 4;
/// Both, as the manifest has them.
pub const VERSION: &str = "1.4";

/// The results of functions that may have to wait.
pub mod poll {
    /// Not ready: the waker that was passed is woken when it is worth asking again.
    pub const PENDING: u32 = 0;
    /// Ready: the result was given in the way that the function says.
    pub const READY: u32 = 1;
    /// Of a call: the app returned an error, which was logged. Of a stream: the operation failed, and
    /// [`Transfer::errno`](super::Transfer::errno) is the system's number of the error.
    pub const FAILED: u32 = 2;
    /// The app panicked; it was reported to [`Host::panicked`](super::Host::panicked).
    pub const PANICKED: u32 = 3;
}
