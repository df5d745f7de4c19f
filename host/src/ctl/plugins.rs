//! Formats the host's answers about apps for people.

use std::fmt::Write;

use serde_json::Value;

/// Formats the answer to `ctl plugins`: every app with its generations, followed by the resources that the process
/// uses.
pub(super) fn format_report(report: &Value) -> String {
    let mut text = String::new();
    for app in list(&report["apps"]) {
        // Writing to a string never fails.
        let _ = write_app(&mut text, app);
    }
    for failure in list(&report["refused"]) {
        let _ = writeln!(text, "refused {}", format_failure(failure));
    }
    let process = &report["process"];
    let _ = write!(
        text,
        "{} loads, about {} more possible; {}; {} threads, {} files, {} maps, {} of its own memory",
        report["loads"],
        report["loads_left"],
        format_retired(&report["retired"]),
        process["threads"],
        process["files"],
        process["maps"],
        format_bytes(&process["anonymous_bytes"]),
    );
    text
}

/// Formats the answer to `ctl reload` and `ctl rollback`: the generations, and the duration of each step.
pub(super) fn format_reload(reload: &Value) -> String {
    let old = match reload["old_generation"].as_u64() {
        Some(old) => format!("generation {old} → {}", reload["new_generation"]),
        None => format!("generation {}", reload["new_generation"]),
    };
    // The steps of a load in the order in which they happen.
    let steps = [
        "read",
        "stage",
        "open",
        "drain",
        "hand_over",
        "init",
        "swap",
    ];
    let steps = steps.map(|step| format!("{} {}", step.replace('_', " "), reload["ms"][step]));
    let drained = match reload["drained_ms"].as_f64() {
        Some(ms) => format!("drained in {ms} ms"),
        None if reload["old_generation"].is_null() => "nothing to drain".to_owned(),
        None => "kept until the probation is over".to_owned(),
    };
    format!(
        "{} {}: {old}, hash {}\n  ms: {}\n  {} in flight at the swap, {drained}, {} failed",
        string(&reload["name"]),
        string(&reload["version"]),
        string(&reload["hash"]),
        steps.join(", "),
        reload["in_flight_at_swap"],
        reload["failed"],
    )
}

/// Writes the lines of one app: its mounts and state, its generations, and its last error.
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
        writeln!(text, "  {}", format_retired(&app["retired"]))?;
    }
    if !app["last_error"].is_null() {
        writeln!(text, "  last error {}", format_failure(&app["last_error"]))?;
    }
    Ok(())
}

/// Writes the line of one generation.
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
        format_bytes(&generation["footprint"]["anonymous_bytes"]),
    )?;
    if let Some(ms) = generation["replaced_ms"].as_f64() {
        write!(text, ", replaced {:.1} s ago", ms / 1e3)?;
    }
    writeln!(text)
}

/// Formats the number of ended generations, and the memory and mappings that they still use: libraries are never
/// unloaded.
fn format_retired(retired: &Value) -> String {
    format!(
        "ended {}, which keep {} in {} maps",
        retired["generations"],
        format_bytes(&retired["footprint"]["anonymous_bytes"]),
        retired["footprint"]["maps"],
    )
}

/// Formats a load that failed.
fn format_failure(failure: &Value) -> String {
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

/// Returns the elements of an array, or an empty slice if the value is no array.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Returns a string, or an empty string if the value is no string.
pub(super) fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Formats a number of bytes in KiB or MiB.
pub(super) fn format_bytes(value: &Value) -> String {
    let kib = value.as_f64().unwrap_or_default() / 1024.0;
    if kib < 10_000.0 {
        format!("{kib:.0} KiB")
    } else {
        format!("{:.0} MiB", kib / 1024.0)
    }
}
