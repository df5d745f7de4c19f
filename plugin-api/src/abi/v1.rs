//! The gate of ABI version 1: the root module that abi_stable checks when a library is loaded.
//! Frozen.
//!
//! abi_stable accepts a root module with more fields than it knows, but none with fewer, so this
//! type never grows: what grows is the table behind it. A version 2 gets a module and a type of its
//! own, and a host tries the newest first.

use abi_stable::{
    StableAbi, declare_root_module_statics, library::RootModule, sabi_types::VersionStrings,
};

/// What a library exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RootRef)))]
#[sabi(missing_field(panic))]
pub struct Root {
    /// Returns the plugin's [`Plugin`](crate::abi::Plugin) table.
    #[sabi(last_prefix_field)]
    pub plugin: extern "C" fn() -> *const (),
}

impl RootModule for RootRef {
    declare_root_module_statics! {RootRef}
    const BASE_NAME: &'static str = "plugin";
    const NAME: &'static str = "plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}
