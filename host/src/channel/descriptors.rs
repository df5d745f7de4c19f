//! Lists of descriptors that are sent with a JSON value. The JSON names a descriptor by its index in the list.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// The descriptors to send with a JSON value, in the order of their indices.
#[derive(Debug, Default)]
pub struct Packing<'a> {
    descriptors: Vec<BorrowedFd<'a>>,
}

impl<'a> Packing<'a> {
    /// Adds a descriptor and returns its index.
    pub fn put(&mut self, descriptor: &'a impl AsFd) -> usize {
        self.descriptors.push(descriptor.as_fd());
        self.descriptors.len() - 1
    }

    /// Returns all descriptors. The position of each descriptor is its index.
    #[must_use]
    pub fn all(&self) -> &[BorrowedFd<'a>] {
        &self.descriptors
    }
}

/// The descriptors that were received with a JSON value. Each descriptor can be taken once. Descriptors that are not
/// taken are closed when the list is dropped.
#[derive(Debug, Default)]
pub struct Unpacking {
    /// The descriptors by their indices. `None` for a descriptor that was taken.
    descriptors: Vec<Option<OwnedFd>>,
}

impl Unpacking {
    /// Removes the descriptor with this index from the list, and returns the descriptor.
    ///
    /// # Errors
    ///
    /// Fails when the list has no descriptor with this index, or when the descriptor was taken before.
    pub fn take(&mut self, index: usize) -> io::Result<OwnedFd> {
        let count = self.descriptors.len();
        let descriptor = self.descriptors.get_mut(index).and_then(Option::take);
        descriptor
            .ok_or_else(|| io::Error::other(format!("descriptor {index} of {count} is not there")))
    }
}

impl From<Vec<OwnedFd>> for Unpacking {
    fn from(descriptors: Vec<OwnedFd>) -> Self {
        let descriptors = descriptors.into_iter().map(Some).collect();
        Self { descriptors }
    }
}
