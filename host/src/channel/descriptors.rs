//! Numbered descriptors: a JSON value names a descriptor by its index in the list that is sent along.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// The descriptors to send along, in order.
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

    /// Returns all descriptors, each at its index.
    #[must_use]
    pub fn all(&self) -> &[BorrowedFd<'a>] {
        &self.descriptors
    }
}

/// The received descriptors, each of which is taken once. Descriptors that are not taken are closed when the list is
/// dropped.
#[derive(Debug, Default)]
pub struct Unpacking {
    descriptors: Vec<Option<OwnedFd>>,
}

impl Unpacking {
    /// Takes the descriptor with this number.
    ///
    /// # Errors
    ///
    /// Fails when the number names no descriptor, or one that is taken.
    pub fn take(&mut self, number: usize) -> io::Result<OwnedFd> {
        let count = self.descriptors.len();
        let descriptor = self.descriptors.get_mut(number).and_then(Option::take);
        descriptor
            .ok_or_else(|| io::Error::other(format!("descriptor {number} of {count} is not there")))
    }
}

impl From<Vec<OwnedFd>> for Unpacking {
    fn from(descriptors: Vec<OwnedFd>) -> Self {
        let descriptors = descriptors.into_iter().map(Some).collect();
        Self { descriptors }
    }
}
