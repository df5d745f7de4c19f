//! Holds idle connections for `scripts/bench scale`. A separate process, because each connection needs a file
//! descriptor.
//!
//! Arguments: the server's address, and the number of connections. The program prints a line when each connection has
//! had one response, and ends when its stdin is closed.

#![forbid(unsafe_code)]

use std::{
    env,
    error::Error,
    io::{self, Read, Write},
    net::TcpStream,
};

use host_bench::cases;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = env::args().skip(1).collect();
    let [address, count] = &args[..] else {
        return Err("expected an address, and how many".into());
    };
    let count: usize = count.parse()?;
    let request = cases::get("/quiet", &[]);
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = TcpStream::connect(address)?;
        connection.write_all(request.as_bytes())?;
        let mut answer = [0; 512];
        let len = connection.read(&mut answer)?;
        if !answer[..len].starts_with(b"HTTP/1.1 200 ") {
            let answer = String::from_utf8_lossy(&answer[..len]);
            return Err(format!("a connection is refused: {answer}").into());
        }
        connections.push(connection);
    }
    println!("open");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
