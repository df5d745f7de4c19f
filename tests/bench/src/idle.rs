//! Connections that are open and idle.

use std::{
    error::Error,
    io::{Read, Write},
    net::TcpStream,
};

use crate::{cases, server::Server};

/// Open connections of a server, each of which has had one answer.
#[derive(Debug)]
pub struct Idle {
    connections: Vec<TcpStream>,
    kib: f64,
}

impl Idle {
    /// Opens so many.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub fn open(server: &Server, count: usize) -> Result<Self, Box<dyn Error>> {
        let before = server.memory()?.resident;
        let request = cases::get("/quiet", &[]);
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            let mut connection = TcpStream::connect(server.address())?;
            connection.write_all(request.as_bytes())?;
            let mut answer = [0; 512];
            let len = connection.read(&mut answer)?;
            if !answer[..len].starts_with(b"HTTP/1.1 200 ") {
                let answer = String::from_utf8_lossy(&answer[..len]);
                return Err(format!("a connection is refused: {answer}").into());
            }
            connections.push(connection);
        }
        let kib = server.memory()?.resident - before;
        Ok(Self { connections, kib })
    }

    /// By how many KiB the server grew for each.
    #[must_use]
    pub fn kib(&self) -> f64 {
        self.kib / self.connections.len() as f64
    }
}
