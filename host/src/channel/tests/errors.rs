//! Tests of errors: a side that is no host, and messages that cannot be read.

use super::*;

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
async fn orders_that_a_dead_process_never_read_are_no_error() {
    let (channel, peer) = raw().await;
    let (sender, mut receiver) = channel.split();
    sender.send(&note(0, 0, 10)).unwrap();
    sender.flush().await;
    // The kernel reports ECONNRESET to the side whose bytes were not read.
    drop(peer);
    assert!(received(&mut receiver).await.unwrap().is_none());
}
