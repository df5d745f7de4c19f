//! The fixture `moody`, whose versions are good and bad, in a host with a control socket.

use host_tests::{Ctl, Host, Library, Setup};

/// Its library.
pub(crate) const FILE: &str = "libmoody.so";

/// The fixture, in one of its versions.
pub(crate) fn of(version: &str) -> Library {
    Library::plugin("moody").marked(version)
}

/// A host that serves the first version, and the one who asks it.
pub(crate) async fn moody(args: &[&str]) -> (Host, Ctl) {
    let ctl = Ctl::new();
    let setup = Setup::new().library(FILE, &of("v1")).arg(ctl.option());
    let host = args.iter().fold(setup, Setup::arg).start().await;
    host.serves("/moody", "v1").await;
    (host, ctl)
}
