//! The answers about plugins, for people.

use std::fmt::Write;

use serde_json::Value;

/// The answer to `ctl plugins`.
pub(super) fn plugins(report: &Value) -> String {
    let mut text = String::new();
    for app in list(&report["apps"]) {
        // Writing to a string does not fail.
        let _ = write_app(&mut text, app);
    }
    for failure in list(&report["refused"]) {
        let _ = writeln!(text, "refused {}", failed(failure));
    }
    let process = &report["process"];
    let _ = write!(
        text,
        "{} loads, about {} more possible; {}; {} threads, {} files, {} maps, {} of its own memory",
        report["loads"],
        report["loads_left"],
        ended(&report["retired"]),
        process["threads"],
        process["files"],
        process["maps"],
        bytes(&process["anonymous_bytes"]),
    );
    text
}

/// The answer to `ctl reload` and `ctl rollback`.
pub(super) fn proof(proof: &Value) -> String {
    let old = match proof["old_generation"].as_u64() {
        Some(old) => format!("generation {old} → {}", proof["new_generation"]),
        None => format!("generation {}", proof["new_generation"]),
    };
    let steps = [
        "read",
        "stage",
        "open",
        "drain",
        "hand_over",
        "init",
        "swap",
    ];
    let steps = steps.map(|step| format!("{} {}", step.replace('_', " "), proof["ms"][step]));
    let drained = match proof["drained_ms"].as_f64() {
        Some(ms) => format!("drained in {ms} ms"),
        None if proof["old_generation"].is_null() => "nothing to drain".to_owned(),
        None => "kept until the probation is over".to_owned(),
    };
    format!(
        "{} {}: {old}, hash {}\n  ms: {}\n  {} in flight at the swap, {drained}, {} failed",
        string(&proof["name"]),
        string(&proof["version"]),
        string(&proof["hash"]),
        steps.join(", "),
        proof["in_flight_at_swap"],
        proof["failed"],
    )
}

fn write_app(text: &mut String, app: &Value) -> std::fmt::Result {
    let mounts: Vec<_> = list(&app["mounts"]).iter().map(string).collect();
    text.push_str(string(&app["name"]));
    if app["plugin"] != app["name"] {
        write!(text, " ({})", string(&app["plugin"]))?;
    }
    if !mounts.is_empty() {
        write!(text, " at {}", mounts.join(" "))?;
    }
    write!(text, ": {}", string(&app["state"]))?;
    if let Some(next) = app["next"].as_str() {
        write!(text, ", then {next}")?;
    }
    writeln!(text)?;
    for generation in list(&app["others"]).iter().rev().chain([&app["serving"]]) {
        if !generation.is_null() {
            write_generation(text, generation)?;
        }
    }
    if app["retired"]["generations"] != 0 {
        writeln!(text, "  {}", ended(&app["retired"]))?;
    }
    if !app["last_error"].is_null() {
        writeln!(text, "  last error {}", failed(&app["last_error"]))?;
    }
    Ok(())
}

fn write_generation(text: &mut String, generation: &Value) -> std::fmt::Result {
    write!(
        text,
        "  {} generation {}, version {}, hash {}, since {}: {} in flight, {} requests, {} errors, {} panics, {}",
        string(&generation["state"]),
        generation["generation"],
        string(&generation["version"]),
        string(&generation["hash"]),
        string(&generation["since"]),
        generation["in_flight"],
        generation["requests"],
        generation["errors"],
        generation["panics"],
        bytes(&generation["footprint"]["anonymous_bytes"]),
    )?;
    if let Some(ms) = generation["replaced_ms"].as_f64() {
        write!(text, ", replaced {:.1} s ago", ms / 1e3)?;
    }
    writeln!(text)
}

fn ended(retired: &Value) -> String {
    format!(
        "ended {}, which keep {} in {} maps",
        retired["generations"],
        bytes(&retired["footprint"]["anonymous_bytes"]),
        retired["footprint"]["maps"],
    )
}

fn failed(failure: &Value) -> String {
    let hash = failure["hash"].as_str();
    format!(
        "{}{} at {}, step {}: {}",
        string(&failure["file"]),
        hash.map_or_else(String::new, |hash| format!(" ({hash})")),
        string(&failure["at"]),
        string(&failure["step"]),
        string(&failure["error"]),
    )
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn bytes(value: &Value) -> String {
    let kib = value.as_f64().unwrap_or_default() / 1024.0;
    if kib < 10_000.0 {
        format!("{kib:.0} KiB")
    } else {
        format!("{:.0} MiB", kib / 1024.0)
    }
}
