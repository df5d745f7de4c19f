//! HTTP: from a listening socket to an app, and back.
//!
//! In the order in which a request meets them:
//!
//! - [`listener`] accepts connections. [`connection`] finds out the protocol ([`preface`]) and serves the
//!   connection. `driver` polls it within its time limits ([`activity`]). [`socket`] is its socket, and
//!   `closing` closes it.
//! - hyper calls the [`service`]. `request` has the whole way of a request, from its head to its response.
//!   [`dispatch`] finds the app, `call` polls an app that has no response yet, and `refusal` has the host's
//!   own answers.
//! - `header_scan`, `target`, `fields` and `framing` have the rules of RFC 9110, 9112 and 9113 that hyper
//!   leaves to its user.
//! - [`request_body`] and [`response_body`] are the bodies, and [`delivery`] is what the sending of a
//!   response waits for. [`upgrade`] is a connection that an app takes over.
//! - [`request_record`] is what a request leaves in the logs, and [`dev`] what a development session adds.

pub mod activity;
mod builders;
mod call;
mod closing;
pub mod connection;
pub mod delivery;
pub mod dev;
pub mod dispatch;
mod driver;
mod fields;
mod framing;
mod header_scan;
pub mod listener;
pub mod preface;
mod refusal;
mod request;
pub mod request_body;
pub mod request_record;
pub mod response_body;
pub mod service;
pub mod socket;
mod target;
pub mod upgrade;
