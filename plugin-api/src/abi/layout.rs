//! A test that compares the layout of the ABI types with the recorded layout in `layout.txt`, so that a change of the
//! ABI is visible in a diff.
//!
//! `RECORD_LAYOUT=1 cargo test -p host-plugin-api layout` writes the file again. After the release of a major version,
//! only one kind of change is compatible with it: new lines at the end of a type that has a `size`.

use std::{
    any::type_name,
    env,
    fmt::Write,
    fs,
    mem::{align_of, offset_of, size_of},
    path::Path,
};

use super::*;

/// Returns the layout of all given types as text. A type with a field that is not listed does not compile.
macro_rules! layout {
    ($($name:ident { $($field:ident),+ $(,)? })+) => {
        [$({
            // The pattern has no `..`, so the compiler reports a missing field.
            let _ = |value: &$name| {
                let $name { $($field),+ } = value;
                $(let _ = $field;)+
            };
            let fields = [$((
                stringify!($field),
                offset_of!($name, $field),
                type_of(|value: &$name| &value.$field),
            )),+];
            describe(stringify!($name), size_of::<$name>(), align_of::<$name>(), &fields)
        }),+]
        .concat()
    };
}

#[test]
fn the_layout_is_as_recorded() {
    let layout = layout! {
        Body { kind, data, stream, vtable, lower, upper }
        BodyVtable { size, poll, drop, poll_frames }
        CallContext { size, waker, sink, respond }
        CallSlot { bytes, pinned }
        Callsite { size, level, kind, name, target, module, file, fields, fields_len, line }
        Entry { size, callsite, span, fields, fields_len, thread }
        Field { index, value }
        Frame { kind, last, data, trailers }
        Frames { size, frames, room, enough, count }
        Header { name, value, id, flags }
        Headers { ptr, len }
        HandOver { size, timeout_ms }
        HandedOver { size, state, message }
        Host {
            size, context, register, enabled, event, new_span, record, follows_from, clone_span,
            close_span, request_span, span_callsite, panicked,
        }
        Init {
            size, host, name, mount, config, previous_state, thread_name, generation, timeout_ms,
            worker_threads, is_second,
        }
        Initialized { size, app, message, hands_over, asks_for_headers }
        OwnedBytes { ptr, len, owner, free }
        Panic { size, message, file, thread, backtrace, line, column, span }
        Plugin { size, init, call, poll, cancel, set_level, stop, hand_over, drain, look_after, go_on, alone }
        Registered { callsite, interest }
        Request {
            size, method, scheme, authority, path, original_path, mount, request_id, peer, headers,
            body, upgrade, protocol, version, flags, source, lay_out,
        }
        Response { size, headers, body, status, flags }
        Slice { ptr, len }
        SocketAddress { family, port, scope, address }
        Stop { size, timeout_ms, idle }
        Stopped { size, tasks, timed_out }
        Stream { stream, vtable }
        StreamVtable { size, read, write, flush, shutdown, drop }
        Transfer { count, errno }
        Value { kind, bits, text, causes, causes_len }
        Waker { vtable }
        WakerVtable { size, clone, wake, wake_by_ref, drop }
    };
    let layout = format!("ABI {VERSION}, 64 bits\n{layout}");
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/abi/layout.txt");
    if env::var_os("RECORD_LAYOUT").is_some() {
        fs::write(&record, &layout).unwrap();
    }
    let recorded = fs::read_to_string(&record).unwrap_or_default();
    assert!(
        recorded == layout,
        "the boundary has changed: see docs/ABI.md, and record it with RECORD_LAYOUT=1\n\
         --- recorded\n{recorded}\n--- now\n{layout}"
    );
}

/// Formats the layout of one type: its size, and a line with offset, name and type of each field.
fn describe(name: &str, size: usize, align: usize, fields: &[(&str, usize, String)]) -> String {
    let mut text = format!("\n{name}: {size} bytes, aligned to {align}\n");
    for (field, offset, kind) in fields {
        writeln!(text, "{offset:>6} {field}: {kind}").unwrap();
    }
    text
}

/// Returns the name of a field's type without module paths, because these may change without a change of the layout.
fn type_of<T, F>(_: impl Fn(&T) -> &F) -> String {
    let mut short = String::new();
    let mut word = String::new();
    let mut rest = type_name::<F>().chars().peekable();
    while let Some(char) = rest.next() {
        if char.is_alphanumeric() || char == '_' {
            word.push(char);
        } else if char == ':' && rest.next_if_eq(&':').is_some() {
            word.clear();
        } else {
            short += &std::mem::take(&mut word);
            short.push(char);
        }
    }
    short + &word
}
