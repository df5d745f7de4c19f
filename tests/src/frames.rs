//! HTTP/2 frame by frame (RFC 9113), for tests of what no client library would send or report.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;

use crate::{Wire, within};

/// A connection of HTTP/2 that sends only what a test asks for: it grows no window and acknowledges
/// no settings.
#[derive(Debug)]
pub struct Frames(Wire);

/// A frame that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type, for instance [`Frames::HEADERS`].
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

    /// Opens a connection whose streams start with a window of `window` bytes.
    pub async fn connect(address: SocketAddr, window: u32) -> Self {
        let mut wire = Wire::connect(address).await;
        let initial_window_size = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        wire.send(frame(Self::SETTINGS, 0, 0, &initial_window_size))
            .await;
        Self(wire)
    }

    /// Sends `GET path` on each of these streams, all in one write. With `true`, a reset of the
    /// stream follows the request at once.
    pub async fn get(&mut self, path: &str, streams: &[u32], is_taken_back: bool) {
        let mut bytes = Vec::new();
        for &stream in streams {
            bytes.extend(get(stream, path));
            if is_taken_back {
                let cancel = 8_u32.to_be_bytes();
                bytes.extend(frame(Self::RST_STREAM, 0, stream, &cancel));
            }
        }
        self.0.send(bytes).await;
    }

    /// Grows the windows of a stream and of the connection by this number of bytes.
    pub async fn widen(&mut self, stream: u32, bytes: u32) {
        for stream in [stream, 0] {
            let update = frame(Self::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
            self.0.send(update).await;
        }
    }

    /// Returns the next frame.
    ///
    /// # Panics
    ///
    /// When the connection ends first.
    pub async fn next(&mut self) -> Frame {
        let mut head = [0; 9];
        self.fill(&mut head).await;
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.fill(&mut payload).await;
        Frame {
            kind,
            stream: u32::from_be_bytes(stream) & (u32::MAX >> 1),
            payload,
        }
    }

    /// Returns the next frame of this type on one of these streams, and skips other frames.
    pub async fn next_of(&mut self, kind: u8, streams: &[u32]) -> Frame {
        loop {
            let frame = self.next().await;
            if frame.kind == kind && streams.contains(&frame.stream) {
                return frame;
            }
        }
    }

    async fn fill(&mut self, bytes: &mut [u8]) {
        within("a frame", self.0.stream().read_exact(bytes))
            .await
            .expect("the connection is open");
    }
}

/// Returns the bytes of a frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("it is short");
    let mut frame = len.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Returns a frame with a complete request without a body (END_STREAM, END_HEADERS). All of its
/// fields are in the static table, with or without the value (RFC 7541, appendix A).
fn get(stream: u32, path: &str) -> Vec<u8> {
    let literal = |name: u8, value: &str| {
        let len = u8::try_from(value.len()).expect("it is short");
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
