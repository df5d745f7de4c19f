//! Starts hosts with the fixture `moody`, whose versions are good and bad, and a control socket.

use host_tests::{Ctl, Host, Library, Setup};

/// The file name of the fixture's library.
pub(crate) const FILE: &str = "libmoody.so";

/// Returns the fixture in one of its versions.
pub(crate) fn of(version: &str) -> Library {
    Library::plugin("moody").marked(version)
}

/// Starts a host that serves the first version. Returns the host and its control socket.
pub(crate) async fn moody(args: &[&str]) -> (Host, Ctl) {
    let ctl = Ctl::new();
    let setup = Setup::new().library(FILE, &of("v1")).arg(ctl.option());
    let host = args.iter().fold(setup, Setup::arg).start().await;
    host.serves("/moody", "v1").await;
    (host, ctl)
}
