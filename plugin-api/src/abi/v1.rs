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

#[cfg(test)]
mod tests {
    use abi_stable::{abi_stability::PrefixStableAbi, prefix_type::PrefixTypeTrait};

    use super::*;

    /// abi_stable refuses a library whose root module is of another package, or of an incompatible version of
    /// it. The build script keeps both, whatever the package is called.
    #[test]
    fn the_gate_has_the_name_and_version_that_it_was_frozen_with() {
        let layout = <<Root as PrefixTypeTrait>::PrefixFields as PrefixStableAbi>::LAYOUT;
        assert_eq!(layout.package(), "plugin-api");
        assert_eq!(layout.package_version().to_string(), "0.1.0");
    }
}
