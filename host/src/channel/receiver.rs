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
    message_type: PhantomData<fn() -> In>,
}

impl<In: DeserializeOwned> Receiver<In> {
    pub(super) fn new(shared: Arc<SharedSocket>) -> Self {
        Self {
            shared,
            message_type: PhantomData,
        }
    }

    /// Returns the next message and the descriptors that were sent with the message. Returns `None` when the other side
    /// is disconnected.
    ///
    /// The future may be dropped before it is ready. No bytes are lost, because the bytes that were read stay in the
    /// channel, and the next call continues from there.
    ///
    /// # Errors
    ///
    /// Fails when no message can be read. After a [`ChannelError::Decode`] the next message can still be read. After
    /// any other error the channel counts as disconnected.
    pub async fn recv(&mut self) -> Result<Option<(In, Vec<OwnedFd>)>, ChannelError> {
        match self.next_frame().await {
            Ok(Some((body, descriptors))) => Ok(Some((decode(&body)?, descriptors))),
            Ok(None) => {
                self.shared.disconnected.cancel();
                Ok(None)
            }
            Err(error) => {
                self.shared.disconnected.cancel();
                Err(error)
            }
        }
    }

    /// Returns body and descriptors of the next frame, or `None` when the other side is disconnected.
    async fn next_frame(&self) -> Result<Option<(Vec<u8>, Vec<OwnedFd>)>, ChannelError> {
        loop {
            let socket = &self.shared.socket;
            socket.readable().await?;
            let mut read = Ok(FrameRead::Blocked);
            // `try_io` clears tokio's readiness of the socket only when the closure returns `WouldBlock`. Without that,
            // `readable` would return at once again, and this loop would spin. The result is stored in `read`, because
            // the closure can return only an `io::Error`.
            let _ = socket.try_io(Interest::READABLE, || {
                read = self.shared.read_buffer().fill(socket.as_fd());
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

/// Parses the JSON in the body of a frame.
fn decode<In: DeserializeOwned>(body: &[u8]) -> Result<In, ChannelError> {
    serde_json::from_slice(body).map_err(|source| {
        let start = &body[..body.len().min(MAX_SHOWN_BYTES)];
        let start = String::from_utf8_lossy(start).escape_debug().collect();
        ChannelError::Decode { start, source }
    })
}

/// The number of bytes that an error shows of a message that cannot be read.
const MAX_SHOWN_BYTES: usize = 200;
