//! `host ctl deploy`: libraries are checked here and sent to the host, which loads them and puts them
//! into its plugins folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use bytes::Bytes;
use http::{Method, Request, header::HOST};
use http_body_util::Full;
use serde_json::Value;

use super::{Args, CtlError, ask, plugins};
use crate::{
    config::ControlSocket,
    error_chain::chain,
    terminal::{complain, print},
};

/// Deploys the libraries one after the other, and prints what came of each. Nothing is deployed when
/// one does not pass the check; what comes after one that is not loaded is not deployed either.
pub(super) fn run(args: &Args, socket: &ControlSocket, files: &[PathBuf]) -> ExitCode {
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
            Ok(answer) => code = print(deployed(&answer), code),
            Err(error) => {
                complain(format_args!("{}: {}", file.display(), chain(&error)));
                return ExitCode::FAILURE;
            }
        }
    }
    code
}

/// The answer for people.
pub(super) fn deployed(answer: &Value) -> String {
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
            None => text += &plugins::proof(app),
        }
    }
    text
}

/// Runs `host check`: a process of its own, because a library that is opened may end it.
fn check(file: &Path) -> Result<(), String> {
    let mut check = Command::new("/proc/self/exe");
    check.arg("check").arg("--").arg(file);
    let output = check.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("it cannot be checked: {error}"))?;
    let told = String::from_utf8_lossy(&output.stdout);
    let verdict = told.lines().rev().find_map(|line| {
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

fn request(file: &Path) -> Result<Request<Full<Bytes>>, CtlError> {
    let failed = |source| CtlError::File {
        file: file.to_owned(),
        source,
    };
    let library = fs::read(file).map_err(failed)?;
    // The host says which names it takes.
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
    let request = Request::builder()
        .method(Method::PUT)
        .uri(format!("/libraries/{name}"))
        .header(HOST, "host");
    let body = Full::from(library);
    request.body(body).map_err(CtlError::Request)
}
