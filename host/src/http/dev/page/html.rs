//! Formats an explanation as an HTML page.

use std::fmt::Write;

use super::{Excerpt, Explanation, StackFrame};

/// Returns the page. The page has no script and loads no resources.
pub(super) fn page(explanation: &Explanation) -> String {
    let status = explanation.status.to_string();
    // The first line of the message is the title.
    let (title, rest) = explanation
        .message
        .split_once('\n')
        .unwrap_or((&explanation.message, ""));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body data-host-dev>\n<p>{status}</p>\n<h1>{title}</h1>\n",
        title = escape(title),
        status = escape(&status),
    );
    if let Some(place) = &explanation.place {
        // Writing to a `String` never fails.
        let _ = writeln!(page, "<p class=\"place\">{}</p>", escape(place));
    }
    if !rest.trim().is_empty() {
        let _ = writeln!(page, "<pre>{}</pre>", escape(rest.trim()));
    }
    if let Some(source) = &explanation.source {
        let _ = writeln!(page, "<pre class=\"source\">{}</pre>", source_lines(source));
    }
    append_list(
        &mut page,
        "Your frames",
        true,
        explanation.own_frames.iter().map(StackFrame::to_string),
    );
    append_list(
        &mut page,
        "Log of the request",
        true,
        explanation.log.iter().cloned(),
    );
    let request = explanation
        .request
        .iter()
        .map(|(name, value)| format!("{name}: {value}"));
    append_list(&mut page, "Request", false, request);
    append_list(
        &mut page,
        "Other frames",
        false,
        explanation.other_frames.iter().map(StackFrame::to_string),
    );
    page + "</body>\n</html>\n"
}

/// Appends lines of text in a section that the reader can collapse. Appends nothing if `lines` is empty.
fn append_list(page: &mut String, title: &str, is_open: bool, lines: impl Iterator<Item = String>) {
    let lines: Vec<_> = lines
        .map(|line| escape(&crate::dev::strip_colours(&line)))
        .collect();
    if !lines.is_empty() {
        let open = if is_open { " open" } else { "" };
        let lines = lines.join("\n");
        let _ = writeln!(
            page,
            "<details{open}><summary>{title}</summary><pre>{lines}</pre></details>"
        );
    }
}

/// Returns the lines of an excerpt as HTML. The main line is highlighted.
fn source_lines(source: &Excerpt) -> String {
    let lines = source.lines.iter().map(|(number, text)| {
        let line = format!("{number:>5}  {}\n", escape(text));
        if *number == source.line {
            format!("<mark>{line}</mark>")
        } else {
            line
        }
    });
    lines.collect()
}

/// Replaces the characters that have a meaning in HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            character => escaped.push(character),
        }
    }
    escaped
}

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}\
pre{background:#8882;padding:1rem;overflow:auto}mark{background:#f552;color:inherit;display:block}\
h1{font-size:1.4rem;color:#c33}.place{font-family:monospace}summary{cursor:pointer;font-weight:600}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_elsewhere_is_text() {
        let explanation = Explanation {
            message: "panicked: <script>alert(1)</script>".to_owned(),
            log: vec!["\u{1b}[31m<b>\"".to_owned()],
            request: vec![("x".to_owned(), "<i>".to_owned())],
            ..Explanation::default()
        };
        let page = page(&explanation);
        assert!(
            !page.contains("<script>") && !page.contains("<b>") && !page.contains("<i>"),
            "{page}"
        );
        assert!(page.contains("&lt;b&gt;&quot;"), "{page}");
    }
}
