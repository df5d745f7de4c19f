//! A channel and its bytes, handed to another image of the process.

use super::*;

#[tokio::test]
async fn a_frozen_channel_continues_in_its_copy() {
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
        // Stops the writing task of the old channel, as an exec would. The task has not run since the freeze, because
        // the runtime has only this thread.
        sender.shared().disconnected.cancel();
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

    let peer =
        SharedSocket::new(peer.into(), ReadBuffer::default(), WriteQueue::default()).unwrap();
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
fn a_memory_file_has_the_bytes_that_were_written() -> io::Result<()> {
    for len in [0, 1, 3 << 20] {
        let bytes: Vec<u8> = (0..=255).cycle().take(len).collect();
        assert_eq!(fd_to_bytes(&bytes_to_fd(&bytes)?)?, bytes);
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
}
