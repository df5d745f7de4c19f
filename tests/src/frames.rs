//! HTTP/2 frame by frame (RFC 9113): for what no client would send, and what no client tells.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;

use crate::{Wire, within};

/// A connection of HTTP/2, of which nothing is done but what a test asks for: no window grows, no
/// settings are acknowledged.
#[derive(Debug)]
pub struct Frames(Wire);

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is: [`Frames::HEADERS`], for instance.
    pub kind: u8,
    /// The stream that it belongs to; 0 is the connection.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

impl Frames {
    /// The kind of a part of a body.
    pub const DATA: u8 = 0;
    /// The kind of the beginning of a request or response.
    pub const HEADERS: u8 = 1;
    /// The kind that ends a stream early.
    pub const RST_STREAM: u8 = 3;
    /// The kind of how both want to be treated.
    pub const SETTINGS: u8 = 4;
    /// The kind that says that a connection ends.
    pub const GOAWAY: u8 = 7;
    /// The kind that lets the other side send more.
    pub const WINDOW_UPDATE: u8 = 8;

    /// Connects; streams have a window of `window` bytes at first.
    pub async fn connect(address: SocketAddr, window: u32) -> Self {
        let mut wire = Wire::connect(address).await;
        let initial_window_size = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        wire.send(frame(Self::SETTINGS, 0, 0, &initial_window_size))
            .await;
        Self(wire)
    }

    /// Sends `GET path` of each of these streams in one piece, each taken back at once or not.
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

    /// Lets the other side send so many bytes more, in a stream and in the connection.
    pub async fn widen(&mut self, stream: u32, bytes: u32) {
        for stream in [stream, 0] {
            let update = frame(Self::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
            self.0.send(update).await;
        }
    }

    /// The next frame.
    ///
    /// # Panics
    ///
    /// When the connection ends before.
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

    /// The next frame of this kind, of any of these streams; others are skipped.
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

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("it is short");
    let mut frame = len.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request without a body, whose head is complete (END_STREAM, END_HEADERS). Its fields are in the
/// static table, with or without the value (RFC 7541, appendix A).
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
