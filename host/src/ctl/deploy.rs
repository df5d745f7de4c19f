//! `host ctl deploy`: checks libraries and sends them to the host, which loads them and puts them into its
//! plugins folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::Value;

use super::{CtlArgs, CtlError, ask, client, plugins};
use crate::{
    config::ControlSocket,
    error_chain::chain,
    terminal::{complain, print},
};

/// Deploys the libraries one after the other, and prints the result of each. Deploys none of them if one
/// fails the check. Stops at the first one that the host does not load.
pub(super) fn run(args: &CtlArgs, socket: &ControlSocket, files: &[PathBuf]) -> ExitCode {
    for file in files {
        if let Err(reason) = check(file) {
            complain(format_args!("{} is not deployed: {reason}", file.display()));
            return ExitCode::FAILURE;
        }
    }
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match request(file).and_then(|request| ask(args, socket, request)) {
            Ok(answer) if args.json => code = print(answer, code),
            Ok(answer) => code = print(format_deployed(&answer), code),
            Err(error) => {
                complain(format_args!("{}: {}", file.display(), chain(&error)));
                return ExitCode::FAILURE;
            }
        }
    }
    code
}

/// Returns the text of an answer for people.
pub(super) fn format_deployed(answer: &Value) -> String {
    let mut text = format!(
        "{} deployed as {}",
        plugins::string(&answer["plugin"]),
        plugins::string(&answer["file"])
    );
    for app in plugins::list(&answer["apps"]) {
        text.push('\n');
        match app["unchanged_generation"].as_u64() {
            Some(generation) => {
                let [name, version, hash] =
                    ["name", "version", "hash"].map(|key| plugins::string(&app[key]));
                text += &format!(
                    "{name} {version}: unchanged, generation {generation} serves hash {hash}"
                );
            }
            None => text += &plugins::format_reload(app),
        }
    }
    text
}

/// Runs `host check` as a separate process, because opening a library may end the process. Returns the
/// verdict as an error if the host would not load the library.
fn check(file: &Path) -> Result<(), String> {
    // Run this very program, even if its file has been replaced meanwhile.
    let mut check = Command::new("/proc/self/exe");
    check.arg("check").arg("--").arg(file);
    let output = check.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("it cannot be checked: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let verdict = text.lines().rev().find_map(|line| {
        let verdict = line.strip_prefix("verdict")?;
        Some(verdict.trim())
    });
    match verdict {
        Some(_) if output.status.success() => Ok(()),
        Some(verdict) => Err(verdict.to_owned()),
        None => Err(format!(
            "opening it ended the process that checked it ({})",
            output.status
        )),
    }
}

/// Returns the request that uploads a library.
fn request(file: &Path) -> Result<Request<Full<Bytes>>, CtlError> {
    let failed = |source| CtlError::File {
        file: file.to_owned(),
        source,
    };
    let library = fs::read(file).map_err(failed)?;
    // The host checks the name, and its answer says which names are valid.
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
    client::request(Method::PUT, &format!("/libraries/{name}"), library).map_err(CtlError::Request)
}
