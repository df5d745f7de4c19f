//! Two ends of a channel in one process.

mod errors;
mod handover;

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

/// A channel whose other side is a plain socket, from which a hello was sent.
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
    timeout(TIMEOUT, receiver.recv()).await.unwrap()
}

/// How long a test waits to see that an operation blocks.
const BRIEFLY: Duration = Duration::from_millis(5);

/// The time after which an operation that should succeed has failed.
const TIMEOUT: Duration = Duration::from_secs(20);

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
    timeout(TIMEOUT, sender.flush()).await.unwrap();
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
    assert!(!sender.is_disconnected());
    drop(right);
    assert!(received(&mut receiver).await.unwrap().is_none());
    timeout(TIMEOUT, sender.disconnected()).await.unwrap();
    assert!(matches!(
        sender.send(&note(0, 0, 0)),
        Err(SendError::Disconnected)
    ));
}

#[tokio::test]
async fn a_writer_alone_learns_that_the_other_side_is_gone() {
    let (left, right) = both().await;
    let (sender, _receiver) = left.split();
    sender.send(&note(0, 0, 1 << 20)).unwrap();
    assert!(timeout(BRIEFLY, sender.flush()).await.is_err());
    drop(right);
    timeout(TIMEOUT, sender.disconnected()).await.unwrap();
    assert_eq!(sender.pending(), 0, "messages for nobody keep their memory");
}
