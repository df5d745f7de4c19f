//! A host in which one plugin serves as many apps.

use std::{
    error::Error,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::server::{self, Server};

/// A host that has not started yet, in which one plugin is many apps.
#[derive(Clone, Debug)]
pub struct Apps {
    /// The command that starts the host.
    pub command: Vec<String>,
    /// The paths that the apps serve: for each app, one path for each of its mounts.
    pub paths: Vec<String>,
}

impl Apps {
    /// Writes a configuration file into `folder`, with `apps` apps and `mounts` mounts for each. `programs` is the
    /// folder of the host, and `plugins` the plugins folder with `hello`.
    ///
    /// # Errors
    ///
    /// Returns the system's error when the file cannot be written.
    pub fn new(
        (programs, plugins, folder): (&Path, &Path, &Path),
        apps: u32,
        mounts: u32,
    ) -> Result<Self, Box<dyn Error>> {
        let mut config = String::new();
        let mut paths = Vec::new();
        for app in 0..apps {
            let mounts: Vec<_> = (0..mounts)
                .map(|mount| format!("/a{app}-{mount}"))
                .collect();
            config.push_str(&format!(
                "[app.a{app}]\nplugin = \"hello\"\nmount = {mounts:?}\n"
            ));
            paths.extend(mounts.iter().map(|mount| format!("{mount}/quiet")));
        }
        let file = folder.join(format!("{apps}-{mounts}.toml"));
        fs::write(&file, config)?;
        let mut command = server::host(programs, plugins);
        command.push(format!("--config={}", file.display()));
        Ok(Self { command, paths })
    }

    /// Starts the host, waits until no more apps are loaded, and returns the server and the paths that it serves. A
    /// process can load only about a thousand libraries, so these may be fewer than configured.
    ///
    /// # Errors
    ///
    /// Returns an error when the host does not start, or does not serve the first app.
    pub fn start(mut self, core: Option<u32>) -> Result<(Server, Vec<String>), Box<dyn Error>> {
        let server = Server::start(&self.command, core)?;
        server.serves(&self.paths[0])?;
        let is_served = |path: &String| {
            let answer = server.get(path);
            answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
        };
        let (mut served, mut last_change) = (0, Instant::now());
        while last_change.elapsed() < SETTLE_TIME && served < self.paths.len() {
            thread::sleep(Duration::from_millis(100));
            let now = self.paths.iter().filter(|path| is_served(path)).count();
            if now > served {
                (served, last_change) = (now, Instant::now());
            }
        }
        self.paths.retain(is_served);
        Ok((server, self.paths))
    }
}

/// All apps are taken for loaded after this time without another app.
const SETTLE_TIME: Duration = Duration::from_secs(5);
