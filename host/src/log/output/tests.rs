use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::*;

/// Returns an output to a pipe that has room for 4096 bytes, the writing end of the pipe for another output, and the
/// reading end.
fn pipe() -> (Output, OwnedFd, File) {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    assert_eq!(fcntl_setpipe_size(&writer, 4096).unwrap(), 4096);
    (to(&writer), writer, reader.into())
}

fn to(writer: &OwnedFd) -> Output {
    Output::new(
        "a pipe".to_owned(),
        None,
        Sink::from_stream(writer).unwrap(),
    )
}

/// Returns the bytes that are in the pipe now.
fn read(reader: &mut File) -> String {
    let mut bytes = [0; 8192];
    let len = reader.read(&mut bytes).unwrap();
    String::from_utf8(bytes[..len].to_vec()).unwrap()
}

#[test]
fn the_rest_of_a_line_comes_before_the_next_one() {
    let (output, _writer, mut reader) = pipe();
    let long = format!("{}\n", "x".repeat(5000));
    assert!(output.try_write(long.as_bytes()));
    let room = output.try_flush();
    assert!(!room.is_flushed);
    let mut text = read(&mut reader);
    output.write(b"next\n");
    text.push_str(&read(&mut reader));
    assert_eq!(text, format!("{long}next\n"));
    assert!(output.try_flush().is_flushed);
}

#[test]
fn only_the_first_line_waits_for_a_stuck_reader() {
    let (output, _writer, mut reader) = pipe();
    output.write(&[b'x'; 4096]);
    let began = Instant::now();
    output.write(b"lost\n");
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(output.failure().as_deref(), Some("nobody reads it"));

    let began = Instant::now();
    (0..100).for_each(|_| output.write(b"lost\n"));
    assert!(began.elapsed() < Duration::from_millis(500));
    let state = output.try_flush();
    assert_eq!((state.lost, state.has_recovered), (101, false));

    assert_eq!(read(&mut reader).len(), 4096);
    assert!(output.try_flush().has_recovered);
    output.write(b"there\n");
    assert_eq!(read(&mut reader), "there\n");
    assert_eq!(output.failure(), None);
}

#[test]
fn a_reader_that_is_slow_loses_nothing() {
    let (output, _writer, mut reader) = pipe();
    let lines = thread::spawn(move || {
        let mut text = String::new();
        while !text.ends_with("last\n") {
            text.push_str(&read(&mut reader));
            thread::sleep(Duration::from_millis(2));
        }
        text.lines().count()
    });
    let long = [vec![b'x'; 5000], vec![b'\n']].concat();
    (0..50).for_each(|_| output.write(&long));
    output.write(b"last\n");
    assert_eq!(lines.join().unwrap(), 51);
    assert_eq!(output.try_flush().lost, 0);
}

#[test]
fn a_thread_that_must_not_block_does_not_wait_and_its_lines_are_written_later() {
    let (output, _writer, mut reader) = pipe();
    output.write(&[b'x'; 4096]);
    let waiting = output.clone();
    let other = thread::spawn(move || waiting.write(b"waits\n"));
    let hurried = output.clone();
    let took = thread::spawn(move || {
        never_block();
        let began = Instant::now();
        hurried.write(b"one\n");
        // The other thread has the lock, until there is room.
        while hurried.0.writer.try_lock().is_ok() {
            thread::yield_now();
        }
        hurried.write(b"two\n");
        began.elapsed()
    });
    assert!(took.join().unwrap() < Duration::from_millis(500));
    assert_eq!(read(&mut reader).len(), 4096);
    other.join().unwrap();
    output.try_flush();
    let text = read(&mut reader);
    assert!(text.contains("one\n") && text.contains("two\n"), "{text}");
    assert_eq!(output.try_flush().lost, 0);
}

#[test]
fn long_lines_of_several_writers_to_one_pipe_are_whole() {
    let (one, writer, reader) = pipe();
    let other = to(&writer);
    drop(writer);
    let writers: Vec<_> = [(one, 'a', 9000), (other, 'b', 100)]
        .into_iter()
        .map(|(output, letter, len)| {
            output.mark_shared();
            thread::spawn(move || {
                let line = format!("{}\n", letter.to_string().repeat(len));
                (0..300).for_each(|_| output.write(line.as_bytes()));
                output.finish();
                assert_eq!(output.try_flush().lost, 0);
            })
        })
        .collect();
    let mut counts = [0, 0];
    for line in BufReader::new(reader).lines() {
        let line = line.unwrap();
        let expected = if line.starts_with('a') { 9000 } else { 100 };
        let is_whole =
            line.len() == expected && line.bytes().all(|byte| byte == line.as_bytes()[0]);
        assert!(is_whole, "{} bytes: {:.200}", line.len(), line);
        counts[usize::from(line.starts_with('b'))] += 1;
    }
    assert_eq!(counts, [300, 300]);
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap());
}

#[test]
fn a_fifo_that_nobody_reads_is_opened_and_keeps_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let output = Output::log(&path).unwrap();
    output.write(b"early\n");
    output.reopen().unwrap();
    output.write(b"later\n");
    let mut reader = BufReader::new(File::open(&path).unwrap());
    let mut text = String::new();
    reader.read_line(&mut text).unwrap();
    reader.read_line(&mut text).unwrap();
    assert_eq!(text, "early\nlater\n");
}
