//! An HTTP/2 client that sends and receives single frames (RFC 9113), for tests with frames that no client library
//! would send or report.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;

use crate::{Wire, within};

/// An HTTP/2 connection that sends only the frames of the test. It neither sends window updates nor acknowledges
/// settings by itself.
#[derive(Debug)]
pub struct Frames(Wire);

/// A received frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type, for example [`Frames::HEADERS`].
    pub kind: u8,
    /// The stream of the frame. Stream 0 is the connection.
    pub stream: u32,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frames {
    /// The type of a frame with a part of a body.
    pub const DATA: u8 = 0;
    /// The type of a frame with the head of a request or response.
    pub const HEADERS: u8 = 1;
    /// The type of a frame that aborts a stream.
    pub const RST_STREAM: u8 = 3;
    /// The type of a frame with settings.
    pub const SETTINGS: u8 = 4;
    /// The type of a frame that announces the end of the connection.
    pub const GOAWAY: u8 = 7;
    /// The type of a frame that grows a window.
    pub const WINDOW_UPDATE: u8 = 8;

    /// Opens a connection. The server can send `window` bytes on each stream before it needs a window update.
    pub async fn connect(address: SocketAddr, window: u32) -> Self {
        let mut wire = Wire::connect(address).await;
        let initial_window_size = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        wire.send(frame(Self::SETTINGS, 0, 0, &initial_window_size))
            .await;
        Self(wire)
    }

    /// Sends `GET path` on each of these streams, all in one write. If `is_cancelled` is true, each request is followed
    /// by a reset of its stream.
    pub async fn get(&mut self, path: &str, streams: &[u32], is_cancelled: bool) {
        let mut bytes = Vec::new();
        for &stream in streams {
            bytes.extend(get(stream, path));
            if is_cancelled {
                let cancel = 8_u32.to_be_bytes();
                bytes.extend(frame(Self::RST_STREAM, 0, stream, &cancel));
            }
        }
        self.0.send(bytes).await;
    }

    /// Grows the windows of a stream and of the connection by this number of bytes.
    pub async fn grow_windows(&mut self, stream: u32, bytes: u32) {
        for stream in [stream, 0] {
            let update = frame(Self::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
            self.0.send(update).await;
        }
    }

    /// Returns the next frame.
    ///
    /// # Panics
    ///
    /// Panics if the connection ends before the frame.
    pub async fn next(&mut self) -> Frame {
        let mut head = [0; 9];
        self.read_exact(&mut head).await;
        // RFC 9113, section 4.1: a length of 3 bytes, the type, the flags, and the stream.
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.read_exact(&mut payload).await;
        Frame {
            kind,
            // The first bit is reserved.
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
            payload,
        }
    }

    /// Returns the next frame of the type `kind` on one of these streams. Skips all other frames.
    pub async fn next_of(&mut self, kind: u8, streams: &[u32]) -> Frame {
        loop {
            let frame = self.next().await;
            if frame.kind == kind && streams.contains(&frame.stream) {
                return frame;
            }
        }
    }

    async fn read_exact(&mut self, bytes: &mut [u8]) {
        within("a frame", self.0.stream().read_exact(bytes))
            .await
            .expect("the connection is open");
    }
}

/// Returns the bytes of a frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("the payload is short");
    let mut frame = len.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Returns a HEADERS frame with a complete `GET` request without a body (END_STREAM, END_HEADERS). The fields refer to
/// the static table (RFC 7541, appendix A): method and scheme with their value, authority and path only by their name.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let literal = |name: u8, value: &str| {
        let len = u8::try_from(value.len()).expect("the value is short");
        [&[name, len], value.as_bytes()].concat()
    };
    let (method_get, scheme_http) = (0x82, 0x86);
    let (authority, path_name) = (1, 4);
    let fields = [
        vec![method_get, scheme_http],
        literal(authority, "x"),
        literal(path_name, path),
    ]
    .concat();
    frame(Frames::HEADERS, 0x1 | 0x4, stream, &fields)
}
