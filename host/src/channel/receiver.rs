//! The half of a channel that receives.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use tokio::io::Interest;

use super::{ChannelError, SharedSocket, wire::FrameRead};

/// Receives messages of the type `In`.
#[derive(Debug)]
pub struct Receiver<In> {
    shared: Arc<SharedSocket>,
    receives: PhantomData<fn() -> In>,
}

impl<In: DeserializeOwned> Receiver<In> {
    pub(super) fn new(shared: Arc<SharedSocket>) -> Self {
        Self {
            shared,
            receives: PhantomData,
        }
    }

    /// Returns the next message and its descriptors, or `None` when the other side is gone. May be
    /// cancelled: nothing is lost, and the next call goes on where this one stopped.
    ///
    /// # Errors
    ///
    /// Fails when a message cannot be read; after a [`ChannelError::Decode`] the next message can
    /// be.
    pub async fn recv(&mut self) -> Result<Option<(In, Vec<OwnedFd>)>, ChannelError> {
        match self.frame().await {
            Ok(Some((body, descriptors))) => Ok(Some((decode(&body)?, descriptors))),
            Ok(None) => {
                self.shared.gone.cancel();
                Ok(None)
            }
            Err(error) => {
                self.shared.gone.cancel();
                Err(error)
            }
        }
    }

    async fn frame(&self) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>, ChannelError> {
        loop {
            let socket = &self.shared.socket;
            socket.readable().await?;
            let mut read = Ok(FrameRead::Blocked);
            // The socket learns from `WouldBlock` that it is to wait for more.
            let _ = socket.try_io(Interest::READABLE, || {
                read = self.shared.reading().fill(socket.as_fd());
                match read {
                    Ok(FrameRead::Blocked) => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            });
            match read? {
                FrameRead::Frame(body, descriptors) => return Ok(Some((body, descriptors))),
                FrameRead::Blocked => {}
                FrameRead::End => return Ok(None),
            }
        }
    }
}

fn decode<In: DeserializeOwned>(body: &[u8]) -> Result<In, ChannelError> {
    serde_json::from_slice(body).map_err(|source| {
        let start = &body[..body.len().min(MAX_SHOWN)];
        let start = String::from_utf8_lossy(start).escape_debug().collect();
        ChannelError::Decode { start, source }
    })
}

/// How many bytes of a message that cannot be read an error shows.
const MAX_SHOWN: usize = 200;
