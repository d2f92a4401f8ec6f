use super::*;
use crate::mail::envelope::{Envelope, address};
use crate::mail::queue::{QueueOptions, Told};

fn open(root: &Path) -> (Arc<Queue>, Outbox) {
    let (queue, recovered) = Queue::open(&root.join("queue"), QueueOptions::default()).unwrap();
    let queue = Arc::new(queue);
    let times = Times {
        linger: Duration::ZERO,
        patience: Duration::ZERO,
    };
    let outbox = Outbox::open(root, Arc::clone(&queue), &recovered, None, times).unwrap();
    (queue, outbox)
}

#[test]
fn a_file_begun_under_a_used_name_outlives_a_crash_at_the_messages_end() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let place = RemotePath::parse(b"m").unwrap();
    let (queue, outbox) = open(root);
    let mut envelope = Envelope::new(None, vec![address("bob@example.org").unwrap()]);
    envelope.note = note_of(&place);
    let id = queue.add(envelope, &mut &b"Subject: x\n\n"[..]).unwrap();
    drop((outbox, queue));
    let (queue, outbox) = open(root);
    // The next message is begun, and the first one comes to its end.
    assert!(!outbox.make_way(&place).unwrap());
    fs::write(root.join("outbox/m"), "half").unwrap();
    let told = Told {
        recipient: 0,
        state: State::Accepted,
        due: None,
        text: "250 ok".into(),
    };
    queue.tell(&id, true, vec![told], Vec::new()).unwrap();
    queue.sync().unwrap();
    outbox.settled(&id, &place);
    outbox.forget_spent();
    // A crash before the queue knows that it left.
    drop((outbox, queue));
    let (queue, outbox) = open(root);
    assert!(queue.is_queued(&id));
    outbox.settled(&id, &place);
    assert_eq!(fs::read(root.join("outbox/m")).unwrap(), b"half");
    queue.leave(std::slice::from_ref(&id)).unwrap();
    outbox.forget_spent();
    assert!(!outbox.marker(&id).exists());
}
