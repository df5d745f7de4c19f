//! HTTP: from a listening socket to an app, and back.
//!
//! The modules, in the order in which a request passes through them:
//!
//! - [`listener`] accepts connections. [`connection`] detects the protocol of a connection ([`preface`]) and
//!   serves its requests. `builders` has the settings of hyper. `driver` polls a connection within the time
//!   limits ([`activity`]). [`socket`] wraps the TCP socket, and `closing` closes a connection of HTTP/1.
//! - [`service`] is called by hyper with each request. `request` answers a request, from the head to the
//!   response. [`dispatch`] finds the app, `call` polls an app that has no response yet, and `refusal` has the
//!   host's own responses.
//! - `header_scan`, `target`, `fields` and `framing` check the rules of RFC 9110, 9112 and 9113 that hyper does
//!   not check.
//! - [`request_body`] and [`response_body`] are the bodies. [`delivery`] aborts a response whose client reads no
//!   bytes, or whose app is retired. [`upgrade`] hands a connection to an app, as for a WebSocket.
//! - [`request_record`] writes a request to the logs. [`dev`] is the layer for a development session.

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
