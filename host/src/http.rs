//! HTTP: from a listening socket to an app, and back.
//!
//! [`listener`] accepts, [`connection`] speaks HTTP/1.1 or HTTP/2 and keeps the time limits
//! ([`activity`]) on its [`socket`], [`delivery`] is what the sending of one response waits for,
//! [`service`] is what hyper calls, [`dispatch`] finds the app and answers where there is none,
//! [`request_body`] and [`response_body`] are what is sent, [`upgrade`] a connection that an app takes
//! over, [`trail`] what the log gets to know, and [`dev`] what a development session adds. `target`, `fields` and `framing`
//! have the rules of RFC 9110, 9112 and 9113 that hyper leaves to its user.

pub mod activity;
mod builders;
mod call;
mod closing;
pub mod connection;
pub mod delivery;
pub mod dev;
pub mod dispatch;
mod fields;
mod framing;
pub mod listener;
mod noted;
pub mod preface;
mod refusal;
mod request;
pub mod request_body;
pub mod response_body;
pub mod service;
pub mod socket;
mod target;
pub mod trail;
pub mod upgrade;
