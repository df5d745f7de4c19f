//! One plugin as many apps of a host.

use std::{
    error::Error,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::server::{self, Server};

/// How a host is started in which the plugin is many apps.
#[derive(Clone, Debug)]
pub struct Apps {
    /// The command.
    pub command: Vec<String>,
    /// The paths of its handler, app by app.
    pub paths: Vec<String>,
}

impl Apps {
    /// Configures so many apps with so many mounts each, in a file in `folder`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
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

    /// Starts the host and waits until it has loaded what it can: a process cannot load as many
    /// libraries as one likes. The paths are then those that are served.
    ///
    /// # Errors
    ///
    /// When it does not start or serves none.
    pub fn start(mut self, core: Option<u32>) -> Result<(Server, Vec<String>), Box<dyn Error>> {
        let server = Server::start(&self.command, core)?;
        server.serves(&self.paths[0])?;
        let is_served = |path: &String| {
            let answer = server.get(path);
            answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
        };
        let (mut served, mut since) = (0, Instant::now());
        while since.elapsed() < SETTLED && served < self.paths.len() {
            thread::sleep(Duration::from_millis(100));
            let now = self.paths.iter().filter(|path| is_served(path)).count();
            if now > served {
                (served, since) = (now, Instant::now());
            }
        }
        self.paths.retain(is_served);
        Ok((server, self.paths))
    }
}

/// No more apps come when none came for so long.
const SETTLED: Duration = Duration::from_secs(5);
