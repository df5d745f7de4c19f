//! Two ends of a channel in one process.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::io::{FdFlags, fcntl_getfd};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::*;

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Note {
    from: usize,
    number: usize,
    text: String,
}

fn note(from: usize, number: usize, len: usize) -> Note {
    let text = "é\"\n".chars().cycle().take(len).collect();
    Note { from, number, text }
}

fn hello(protocol: u32, build: &str) -> Hello {
    let build = build.to_owned();
    Hello { protocol, build }
}

type Notes = Channel<Note, Note>;

async fn both() -> (Notes, Notes) {
    let (left, right) = socket_pair().unwrap();
    let (one, two) = (hello(1, "a"), hello(1, "b"));
    let (left, right) = tokio::join!(Notes::open(left, &one), Notes::open(right, &two));
    (left.unwrap(), right.unwrap())
}

/// A channel whose other side is a plain socket, which has said hello.
async fn raw() -> (Notes, UnixStream) {
    let (left, right) = socket_pair().unwrap();
    let mut right = UnixStream::from(right);
    right
        .write_all(&frame(r#"{"protocol":1,"build":"raw"}"#))
        .unwrap();
    (Notes::open(left, &hello(1, "a")).await.unwrap(), right)
}

fn frame(body: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(body.as_bytes());
    bytes
}

async fn next<T: DeserializeOwned>(receiver: &mut Receiver<T>) -> (T, Vec<OwnedFd>) {
    received(receiver).await.unwrap().unwrap()
}

async fn received<T: DeserializeOwned>(
    receiver: &mut Receiver<T>,
) -> Result<Option<(T, Vec<OwnedFd>)>, ChannelError> {
    timeout(PATIENCE, receiver.recv()).await.unwrap()
}

const BRIEFLY: Duration = Duration::from_millis(5);

const PATIENCE: Duration = Duration::from_secs(20);

fn file(text: &str) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file.into()
}

fn text(descriptor: OwnedFd) -> String {
    let mut text = String::new();
    File::from(descriptor).read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn messages_go_both_ways_in_order() {
    let (left, right) = both().await;
    let ((to_right, mut from_right), (to_left, mut from_left)) = (left.split(), right.split());
    for number in 0..50 {
        to_right.send(&note(0, number, number)).unwrap();
        to_left.send(&note(1, number, 1000 * number)).unwrap();
    }
    for number in 0..50 {
        assert_eq!(next(&mut from_left).await.0, note(0, number, number));
        assert_eq!(
            next(&mut from_right).await.0,
            note(1, number, 1000 * number)
        );
    }
}

#[tokio::test]
async fn sides_of_different_protocols_name_both() {
    let (left, right) = socket_pair().unwrap();
    let (one, two) = (hello(1, "old"), hello(2, "new"));
    let (left, right) = tokio::join!(Notes::open(left, &one), Notes::open(right, &two));
    let (left, right) = (left.unwrap_err(), right.unwrap_err());
    assert_eq!(
        left.to_string(),
        "the other process speaks protocol 2 of build new, this one protocol 1 of build old: both \
         must speak one protocol"
    );
    assert!(matches!(right, ChannelError::Mismatch { ours, .. } if ours == two));
}

#[tokio::test]
async fn a_process_that_ends_before_its_hello_is_an_error() {
    let (left, right) = socket_pair().unwrap();
    drop(right);
    let error = Notes::open(left, &hello(1, "a")).await.unwrap_err();
    assert!(matches!(error, ChannelError::NoHello), "{error}");
}

#[tokio::test]
async fn what_is_no_hello_is_an_error() {
    let (left, right) = socket_pair().unwrap();
    UnixStream::from(right)
        .write_all(&frame("\"GET / HTTP/1.1\""))
        .unwrap();
    let error = Notes::open(left, &hello(1, "a")).await.unwrap_err();
    assert!(error.to_string().contains("GET / HTTP/1.1"), "{error}");
}

#[tokio::test]
async fn a_message_that_comes_in_pieces_is_whole() {
    let (channel, mut peer) = raw().await;
    let (_sender, mut receiver) = channel.split();
    let expected = note(7, 8, 40);
    let bytes = frame(&serde_json::to_string(&expected).unwrap());
    for (at, byte) in bytes.iter().enumerate() {
        let came = timeout(Duration::from_millis(1), receiver.recv()).await;
        assert!(
            came.is_err(),
            "a message came {} bytes early",
            bytes.len() - at
        );
        peer.write_all(&[*byte]).unwrap();
    }
    assert_eq!(next(&mut receiver).await.0, expected);
}

#[tokio::test]
async fn descriptors_stay_with_their_message() {
    let (left, right) = both().await;
    let ((sender, _left), (_right, mut receiver)) = (left.split(), right.split());
    for number in 0..20 {
        let files = (0..number % 4).map(|at| file(&format!("{number}.{at}")));
        sender
            .send_with(&note(0, number, 3000), files.collect())
            .unwrap();
    }
    for number in 0..20 {
        let (note, files) = next(&mut receiver).await;
        assert_eq!((note.number, files.len()), (number, number % 4));
        for (at, file) in files.into_iter().enumerate() {
            let flags = fcntl_getfd(&file).unwrap();
            assert!(
                flags.contains(FdFlags::CLOEXEC),
                "a child would inherit the descriptor"
            );
            assert_eq!(text(file), format!("{number}.{at}"));
        }
    }
}

#[tokio::test]
async fn as_many_descriptors_as_are_documented_go_at_once() {
    let (left, right) = both().await;
    let ((sender, _left), (_right, mut receiver)) = (left.split(), right.split());
    let files = |count| (0..count).map(|at: usize| file(&at.to_string())).collect();
    sender
        .send_with(&note(0, 0, 1), files(MAX_DESCRIPTORS))
        .unwrap();
    let (_, came) = next(&mut receiver).await;
    assert_eq!(came.len(), MAX_DESCRIPTORS);
    for (at, file) in came.into_iter().enumerate() {
        assert_eq!(text(file), at.to_string());
    }
    let error = sender
        .send_with(&note(0, 1, 1), files(MAX_DESCRIPTORS + 1))
        .unwrap_err();
    assert!(matches!(error, SendError::Descriptors(129)), "{error}");
    sender.send(&note(0, 2, 1)).unwrap();
    assert_eq!(next(&mut receiver).await.0.number, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_several_writers_stay_whole() {
    let (left, right) = both().await;
    let ((sender, _left), (_right, mut receiver)) = (left.split(), right.split());
    let writers: Vec<_> = (0..4)
        .map(|from| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for number in 0..100 {
                    sender.send(&note(from, number, 5000)).unwrap();
                }
            })
        })
        .collect();
    let mut numbers = [0; 4];
    for _ in 0..400 {
        let (came, _) = next(&mut receiver).await;
        assert_eq!(came, note(came.from, numbers[came.from], 5000));
        numbers[came.from] += 1;
    }
    writers
        .into_iter()
        .for_each(|writer| writer.join().unwrap());
}

#[tokio::test]
async fn a_reader_that_stands_still_blocks_nobody() {
    let (left, right) = both().await;
    let ((sender, _left), (_right, mut receiver)) = (left.split(), right.split());
    for number in 0..30 {
        sender.send(&note(0, number, 50_000)).unwrap();
    }
    assert!(
        timeout(Duration::from_millis(20), sender.flush())
            .await
            .is_err()
    );
    assert!(sender.pending() > 1_000_000);
    for number in 0..30 {
        assert_eq!(next(&mut receiver).await.0, note(0, number, 50_000));
    }
    timeout(PATIENCE, sender.flush()).await.unwrap();
    assert_eq!(sender.pending(), 0);
}

#[tokio::test]
async fn what_was_sent_last_is_read_before_the_end() {
    let (left, right) = both().await;
    let ((sender, from_right), (_right, mut receiver)) = (left.split(), right.split());
    sender.send(&note(0, 1, 300_000)).unwrap();
    drop((sender, from_right));
    assert_eq!(next(&mut receiver).await.0, note(0, 1, 300_000));
    assert!(received(&mut receiver).await.unwrap().is_none());
}

#[tokio::test]
async fn a_sender_learns_that_the_other_side_is_gone() {
    let (left, right) = both().await;
    let (sender, mut receiver) = left.split();
    assert!(!sender.is_gone());
    drop(right);
    assert!(received(&mut receiver).await.unwrap().is_none());
    timeout(PATIENCE, sender.gone()).await.unwrap();
    assert!(matches!(sender.send(&note(0, 0, 0)), Err(SendError::Gone)));
}

#[tokio::test]
async fn a_writer_alone_learns_that_the_other_side_is_gone() {
    let (left, right) = both().await;
    let (sender, _receiver) = left.split();
    sender.send(&note(0, 0, 1 << 20)).unwrap();
    assert!(timeout(BRIEFLY, sender.flush()).await.is_err());
    drop(right);
    timeout(PATIENCE, sender.gone()).await.unwrap();
    assert_eq!(sender.pending(), 0, "messages for nobody keep their memory");
}

#[tokio::test]
async fn orders_that_a_dead_process_never_read_are_no_error() {
    let (channel, peer) = raw().await;
    let (sender, mut receiver) = channel.split();
    sender.send(&note(0, 0, 10)).unwrap();
    sender.flush().await;
    // The kernel says ECONNRESET to the side whose bytes were not read.
    drop(peer);
    assert!(received(&mut receiver).await.unwrap().is_none());
}

#[tokio::test]
async fn malformed_messages_are_errors_and_the_next_is_read() {
    let (channel, mut peer) = raw().await;
    let (_sender, mut receiver) = channel.split();
    for body in ["", "{", "[1]", "\u{7f}nonsense\n", "{\"from\":-1}"] {
        peer.write_all(&frame(body)).unwrap();
        let error = received(&mut receiver).await.unwrap_err();
        assert!(
            matches!(error, ChannelError::Decode { .. }),
            "{body}: {error}"
        );
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    let good = note(1, 2, 3);
    peer.write_all(&frame(&serde_json::to_string(&good).unwrap()))
        .unwrap();
    assert_eq!(next(&mut receiver).await.0, good);
}

#[tokio::test]
async fn a_message_that_claims_too_much_is_an_error() {
    let (channel, mut peer) = raw().await;
    let (_sender, mut receiver) = channel.split();
    peer.write_all(&u32::MAX.to_le_bytes()).unwrap();
    let error = received(&mut receiver).await.unwrap_err();
    assert!(matches!(error, ChannelError::TooLong(_)), "{error}");
}

#[tokio::test]
async fn a_message_cut_off_is_an_error() {
    let (channel, mut peer) = raw().await;
    let (_sender, mut receiver) = channel.split();
    peer.write_all(&frame("[1,2,3]")[..6]).unwrap();
    drop(peer);
    let error = received(&mut receiver).await.unwrap_err();
    let text = "the other process ended within a message: 6 of 11 bytes came";
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_frozen_channel_goes_on_in_its_copy() {
    let (channel, mut peer) = raw().await;
    let (sender, mut receiver) = channel.split();
    for number in 0..9 {
        let files = vec![file(&number.to_string())];
        sender.send_with(&note(0, number, 100_000), files).unwrap();
    }
    assert!(timeout(BRIEFLY, sender.flush()).await.is_err());
    let coming = frame(&serde_json::to_string(&note(1, 0, 2000)).unwrap());
    let last = file("last");
    wire::send(peer.as_fd(), &coming[..700], &[last.as_fd()]).unwrap();
    assert!(timeout(BRIEFLY, receiver.recv()).await.is_err());

    let (json, fds) = {
        let frozen = sender.freeze();
        let mut packing = Packing::default();
        let suspended = frozen.suspend(&mut packing);
        let fds: Vec<_> = packing
            .all()
            .iter()
            .map(|fd| fd.try_clone_to_owned().unwrap())
            .collect();
        // The old channel writes nothing more, as after an exec: the runtime has one thread, and
        // this is it.
        sender.shared().gone.cancel();
        (serde_json::to_string(&suspended).unwrap(), fds)
    };
    let suspended = serde_json::from_str(&json).unwrap();
    let (_sender, mut receiver) = Notes::resume(suspended, &mut Unpacking::from(fds))
        .unwrap()
        .split();
    peer.write_all(&coming[700..]).unwrap();
    let (came, mut files) = next(&mut receiver).await;
    assert_eq!(came, note(1, 0, 2000));
    assert_eq!(text(files.remove(0)), "last");

    let peer = Shared::new(peer.into(), Reading::default(), Writing::default()).unwrap();
    assert_eq!(
        next(&mut Receiver::<Hello>::new(Arc::clone(&peer))).await.0,
        hello(1, "a")
    );
    let mut receiver = Receiver::<Note>::new(peer);
    for number in 0..9 {
        let (came, mut files) = next(&mut receiver).await;
        assert_eq!(came, note(0, number, 100_000));
        assert_eq!(text(files.remove(0)), number.to_string());
    }
}

#[test]
fn a_blob_is_what_it_was() -> io::Result<()> {
    for len in [0, 1, Blob::INLINE, Blob::INLINE + 1, 3 << 20] {
        let bytes: Vec<u8> = (0..=255).cycle().take(len).collect();
        let mut fds = Vec::new();
        let blob = Blob::pack(&bytes, &mut fds)?;
        assert_eq!(fds.len(), usize::from(len > Blob::INLINE));
        let blob: Blob = serde_json::from_str(&serde_json::to_string(&blob)?)?;
        assert_eq!(blob.unpack(&fds)?, bytes);
    }
    Ok(())
}

#[test]
fn a_memory_file_cannot_be_changed_and_another_file_is_refused() {
    let descriptor = bytes_to_fd(b"state").unwrap();
    let mut writer = File::from(descriptor.as_fd().try_clone_to_owned().unwrap());
    assert!(writer.write_all(b"other").is_err());
    assert!(writer.set_len(0).is_err());
    assert_eq!(fd_to_bytes(&descriptor).unwrap(), b"state");
    assert!(fd_to_bytes(&file("not sealed")).is_err());
    assert!(Blob::Descriptor(0).unpack(&[]).is_err());
}
