//! Tests of the mailbox by itself; `doorbell_model` tries the orders of its steps.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::process::Mailbox;

/// A mailbox, and how often it has woken the committer.
fn mailbox(messages_max: usize) -> (Mailbox<u32>, Arc<AtomicUsize>) {
    let (mailbox, woken) = (Mailbox::new(messages_max, 100), Arc::new(AtomicUsize::new(0)));
    let woken_ = Arc::clone(&woken);
    mailbox.wake_by(Box::new(move || {
        woken_.fetch_add(1, Ordering::SeqCst);
    }));
    woken.store(0, Ordering::SeqCst);
    (mailbox, woken)
}

#[test]
fn messages_come_out_in_their_order_and_one_without_room_comes_back() {
    let (mailbox, _) = mailbox(2);
    assert_eq!((mailbox.post(1), mailbox.post(2), mailbox.post(3)), (Ok(()), Ok(()), Err(3)));
    assert_eq!(mailbox.take(), Some(1));
    assert_eq!(mailbox.post(3), Ok(()));
    assert_eq!([mailbox.take(), mailbox.take(), mailbox.take()], [Some(2), Some(3), None]);
}

#[test]
fn a_message_with_bytes_finds_no_room_while_those_before_it_have_too_many() {
    let (mailbox, _) = mailbox(9);
    assert_eq!((mailbox.post_of(1, 99), mailbox.post_of(2, 5000), mailbox.post_of(3, 1)), (Ok(()), Ok(()), Err(3)));
    assert_eq!(mailbox.post(4), Ok(()), "one without bytes has room");
    assert_eq!((mailbox.take(), mailbox.post_of(3, 1)), (Some(1), Err(3)));
    assert_eq!((mailbox.take(), mailbox.post_of(3, 1)), (Some(2), Ok(())));
    assert_eq!([mailbox.take(), mailbox.take(), mailbox.take()], [Some(4), Some(3), None]);
    // One that finds no place leaves no bytes behind.
    (0..9).for_each(|message| mailbox.post_of(message, 9).unwrap());
    assert_eq!(mailbox.post_of(9, 9), Err(9));
    assert_eq!((mailbox.take(), mailbox.post_of(9, 9)), (Some(0), Ok(())));
}

#[test]
fn of_many_messages_the_first_wakes_and_the_next_one_wakes_again_when_all_were_taken() {
    let (mailbox, woken) = mailbox(100);
    (0..50).for_each(|message| mailbox.post(message).unwrap());
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    assert_eq!(std::iter::from_fn(|| mailbox.take()).count(), 50);
    mailbox.post(50).unwrap();
    assert_eq!(woken.load(Ordering::SeqCst), 2);
}

#[test]
fn what_was_put_in_before_it_was_known_how_to_wake_the_committer_wakes_it_then() {
    let mailbox = Mailbox::new(1, 0);
    mailbox.post(7).unwrap();
    let woken = Arc::new(AtomicUsize::new(0));
    let woken_ = Arc::clone(&woken);
    mailbox.wake_by(Box::new(move || {
        woken_.fetch_add(1, Ordering::SeqCst);
    }));
    assert_eq!((woken.load(Ordering::SeqCst), mailbox.take()), (1, Some(7)));
}
