//! `host ctl deploy`: checks libraries, and sends them to the host. The host loads the libraries and puts them into its
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

use super::{CtlArgs, CtlError, client, plugins, send_request};
use crate::{
    config::ControlSocket,
    error_chain::chain,
    terminal::{print, print_error},
};

/// Deploys the libraries one after the other, and prints the result of each. If one of the libraries fails the check,
/// deploys no library at all. Stops at the first library that the host does not load. Returns the exit code of the
/// process.
pub(super) fn run(args: &CtlArgs, socket: &ControlSocket, files: &[PathBuf]) -> ExitCode {
    // Check all libraries before the first one is sent.
    for file in files {
        if let Err(reason) = check(file) {
            print_error(format_args!("{} is not deployed: {reason}", file.display()));
            return ExitCode::FAILURE;
        }
    }
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match request(file).and_then(|request| send_request(args, socket, request)) {
            Ok(answer) if args.json => code = print(answer, code),
            Ok(answer) => code = print(format_deployed(&answer), code),
            Err(error) => {
                print_error(format_args!("{}: {}", file.display(), chain(&error)));
                return ExitCode::FAILURE;
            }
        }
    }
    code
}

/// Formats the host's answer to the deployment of one library.
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

/// Runs `host check` as a separate process, because a crash of the library's code ends the process that opens it.
///
/// # Errors
///
/// Returns the verdict of `host check` if the host would not load the library, or the reason why there is no verdict.
fn check(file: &Path) -> Result<(), String> {
    // `/proc/self/exe` is the running program even if the program's file was replaced in the meantime.
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

/// Reads a library, and returns the HTTP request that uploads it.
fn request(file: &Path) -> Result<Request<Full<Bytes>>, CtlError> {
    let file_error = |source| CtlError::File {
        file: file.to_owned(),
        source,
    };
    let library = fs::read(file).map_err(file_error)?;
    // Send any name that is UTF-8: the host checks the name, and its error explains which names are valid.
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| file_error(io::ErrorKind::InvalidFilename.into()))?;
    client::request(Method::PUT, &format!("/libraries/{name}"), library).map_err(CtlError::Request)
}
