//! Helpers for tests with the fixture `moody`, which misbehaves in the way that its version says.

use host_tests::{Ctl, Host, Library, Setup};

/// The file name of the fixture's library.
pub(crate) const FILE: &str = "libmoody.so";

/// Returns the fixture with a version such as "v2", or "v2 fails" for a version that misbehaves.
pub(crate) fn library(version: &str) -> Library {
    Library::plugin("moody").marked(version)
}

/// Starts a host that serves version "v1". Returns the host and its control socket.
pub(crate) async fn moody(args: &[&str]) -> (Host, Ctl) {
    let ctl = Ctl::new();
    let setup = Setup::new().library(FILE, &library("v1")).arg(ctl.option());
    let host = args.iter().fold(setup, Setup::arg).start().await;
    host.serves("/moody", "v1").await;
    (host, ctl)
}
