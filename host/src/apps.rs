//! The apps of this process: their generations, and the routes from paths to generations.
//!
//! - A [`generation`] is one load of an app. The [`registry`] maps paths to generations.
//! - [`faults`] counts the errors and panics of a generation. [`quarantine`] keeps requests out of a generation that
//!   panics too often.

pub mod faults;
pub mod generation;
pub mod quarantine;
pub mod registry;
