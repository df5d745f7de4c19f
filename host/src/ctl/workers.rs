//! Formats the answer to `host ctl workers` for people.

use std::fmt::Write;

use serde_json::Value;

use super::plugins::{format_bytes, list, string};

/// Formats a table of the workers, followed by a line for each worker that died recently.
pub(super) fn format_table(roster: &Value) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(list(&roster["workers"]).iter().map(row));
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].len()).max();
            // Writing to a string never fails.
            let _ = write!(line, "{cell:<0$}  ", width.unwrap_or_default());
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let running = list(&roster["workers"]).len();
    if let Some(wanted) = roster["wanted"].as_u64().filter(|&wanted| wanted > 0)
        && usize::try_from(wanted) != Ok(running)
    {
        let _ = writeln!(text, "{wanted} wanted");
    }
    for dead in list(&roster["died"]) {
        let _ = write!(
            text,
            "died {}: worker {}",
            string(&dead["at"]),
            dead["worker"]
        );
        if let Some(pid) = dead["pid"].as_i64() {
            let _ = write!(text, ", pid {pid}");
        }
        let _ = write!(text, ", {}", string(&dead["what"]));
        if let Some(plugin) = dead["plugin"].as_str() {
            let _ = write!(text, ", in {plugin}#{}", dead["generation"]);
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// Returns the cells of one worker's row, in the order of [`HEADINGS`].
fn row(worker: &Value) -> [String; 9] {
    let number = |key: &str| match &worker[key] {
        Value::Null => UNKNOWN.to_owned(),
        number => number.to_string(),
    };
    let memory = match &worker["memory_bytes"] {
        Value::Null => UNKNOWN.to_owned(),
        memory => format_bytes(memory),
    };
    [
        number("worker"),
        number("pid"),
        string(&worker["state"]).to_owned(),
        string(&worker["since"]).to_owned(),
        number("apps"),
        memory,
        number("loads"),
        number("loads_left"),
        number("requests"),
    ]
}

/// The headings of the table's columns.
const HEADINGS: [&str; 9] = [
    "WORKER", "PID", "STATE", "SINCE", "APPS", "MEMORY", "LOADS", "LEFT", "REQUESTS",
];

/// The text of a cell whose value the worker did not report in time.
const UNKNOWN: &str = "-";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::format_table;

    #[test]
    fn the_table_has_a_row_for_each_worker_and_says_what_is_not_known() {
        let answer = json!({
            "wanted": 2,
            "workers": [{
                "worker": 3, "pid": 71, "state": "serving", "since": "2026-11-27T03:00:00.000Z",
                "memory_bytes": 12 << 20, "apps": 2, "loads": 4, "loads_left": 900, "in_flight": 0,
                "requests": 17,
            }, {
                "worker": 12, "pid": 80, "state": "starting", "since": "2026-11-27T03:00:09.000Z",
                "memory_bytes": null,
            }],
            "died": [{
                "worker": 2, "pid": 60, "at": "2026-11-27T02:59:59.000Z", "what": "ended by SIGSEGV",
                "plugin": "shop", "generation": 5,
            }],
        });
        let expected = "\
WORKER  PID  STATE     SINCE                     APPS  MEMORY  LOADS  LEFT  REQUESTS
3       71   serving   2026-11-27T03:00:00.000Z  2     12 MiB  4      900   17
12      80   starting  2026-11-27T03:00:09.000Z  -     -       -      -     -
died 2026-11-27T02:59:59.000Z: worker 2, pid 60, ended by SIGSEGV, in shop#5";
        assert_eq!(format_table(&answer), expected);
    }
}
