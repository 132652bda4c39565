//! Whole servers on a journal in memory, over UDP.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use duragram_proto::codec::{self, Ack, Data, Datagram, RejectCode};
use duragram_proto::{ClientId, Epoch, Seq};

use super::super::*;
use crate::journal::recovery::ReadProgress;
use crate::journal::testing::memory::{MemoryDisk, MemoryJournal};
use crate::journal::{JournalError, OpenError, Opened, Replay};
use crate::model::{Offset, Record};
use crate::process::Outcomes;

impl JournalSource for MemoryDisk {
    type Journal = MemoryJournal;

    fn open(
        self,
        _: &Config,
        _: &Arc<ReadProgress>,
        replay: &mut dyn FnMut(Replay<'_>),
    ) -> Result<Opened<MemoryJournal>, OpenError> {
        Ok(MemoryDisk::open(&self, replay))
    }
}

/// Keeps the seqs of what it processes.
#[derive(Clone, Default)]
struct Seqs(Arc<Mutex<Vec<u64>>>);

impl Handler for Seqs {
    fn process(&mut self, records: &[Record<'_>], outcomes: &mut Outcomes) {
        self.0.lock().unwrap().extend(records.iter().map(|record| record.seq.0));
        outcomes.done_all();
    }

    fn flush(&mut self) -> Result<Vec<u8>, HandlerError> {
        Ok(Vec::new())
    }
}

struct Rig {
    disk: MemoryDisk,
    seqs: Seqs,
    handle: ServerHandle,
    serving: JoinHandle<Result<(), Error>>,
    client: UdpSocket,
}

impl Rig {
    fn on(disk: MemoryDisk) -> Self {
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let config = Config {
            listen: vec![loopback],
            admin: None,
            lanes: 1,
            sessions_max: 100,
            drain_timeout: Duration::from_secs(20),
            ..Config::default()
        };
        let seqs = Seqs::default();
        let handler = seqs.clone();
        let handlers = move |_: &LaneStart<'_>| Ok(Box::new(handler.clone()) as Box<dyn Handler>);
        let server = Server::start_with(disk.clone(), config, handlers).unwrap();
        let client = UdpSocket::bind(loopback).unwrap();
        client.connect(server.ready().udp[0]).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let handle = server.handle();
        let serving = std::thread::spawn(move || server.wait());
        Self { disk, seqs, handle, serving, client }
    }

    fn send(&self, seq: u64) {
        let whole = Data::whole(ClientId(1), Epoch::new(1).unwrap(), Seq(seq), 0, b"a reading");
        let mut buffer = [0; 100];
        let len = Datagram::Data(whole).encode(&mut buffer).unwrap();
        self.client.send(&buffer[..len]).unwrap();
    }

    /// Sends until this is the answer, with a deadline.
    fn until(&self, seq: u64, wanted: impl Fn(&Datagram<'_>) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut buffer = [0; 1500];
        loop {
            self.send(seq);
            if let Ok(len) = self.client.recv(&mut buffer)
                && wanted(&codec::decode(&buffer[..len]).unwrap())
            {
                return;
            }
            assert!(Instant::now() < deadline, "no such answer to seq {seq}");
        }
    }

    fn stop(self) -> (MemoryDisk, Vec<u64>) {
        self.handle.stop();
        self.serving.join().unwrap().unwrap();
        (self.disk, self.seqs.0.lock().unwrap().clone())
    }
}

fn acked(seq: u64, again: bool) -> impl Fn(&Datagram<'_>) -> bool {
    move |answer| match answer {
        Datagram::Ack(Ack { floor, duplicate, .. }) => *floor == Seq(seq) && (!again || *duplicate),
        _ => false,
    }
}

#[test]
fn a_server_on_another_journal_acks_processes_and_knows_what_it_has_after_a_restart() {
    let rig = Rig::on(MemoryDisk::default());
    (1..=3).for_each(|seq| rig.until(seq, acked(seq, false)));
    let (disk, processed) = rig.stop();
    assert_eq!((disk.end(), &processed[..]), (Offset(3), &[1, 2, 3][..]));
    assert_eq!(disk.lanes()[0].watermark, Offset(3), "the stop has written how far processing has come");
    let rig = Rig::on(disk);
    rig.until(3, acked(3, true));
    rig.until(4, acked(4, false));
    let (disk, processed) = rig.stop();
    assert_eq!((disk.end(), &processed[..]), (Offset(4), &[4][..]));
}

#[test]
fn a_server_whose_journal_gets_another_owner_acks_nothing_more_and_ends_with_an_error_that_says_so() {
    let rig = Rig::on(MemoryDisk::default());
    rig.until(1, acked(1, false));
    rig.disk.fence("gateway B");
    rig.send(2);
    let error = rig.serving.join().unwrap().unwrap_err();
    assert!(matches!(&error, Error::Journal(JournalError::Fenced { owner }) if owner == "gateway B"), "{error}");
    assert_eq!(error.exit_code(), 1, "nothing is damaged and nothing has failed");
    let text = error.to_string();
    assert!(text.contains("another owner now (gateway B)") && text.contains("Nothing is lost"), "{text}");
    assert_eq!(rig.disk.end(), Offset(1));
    let mut buffer = [0; 100];
    while let Ok(len) = rig.client.recv(&mut buffer) {
        assert!(!acked(2, false)(&codec::decode(&buffer[..len]).unwrap()), "what is not in the journal is acked");
    }
}

#[test]
fn a_server_whose_journal_has_lost_what_was_acked_ends_as_one_whose_journal_is_damaged() {
    let rig = Rig::on(MemoryDisk::default());
    (1..=2).for_each(|seq| rig.until(seq, acked(seq, false)));
    rig.disk.lose_from(Offset(1));
    rig.send(3);
    let error = rig.serving.join().unwrap().unwrap_err();
    assert!(matches!(error, Error::Journal(JournalError::Lost { acked_end: Offset(2), end: Offset(1) })), "{error}");
    assert_eq!(error.exit_code(), 3);
}

#[test]
fn a_server_whose_journal_is_full_refuses_new_data_and_goes_on_when_there_is_room() {
    let rig = Rig::on(MemoryDisk::default());
    rig.until(1, acked(1, false));
    rig.disk.set_free_bytes(0);
    // What comes before the server looks at its journal again may still be taken.
    let mut seq = 2;
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut buffer = [0; 1500];
    loop {
        assert!(Instant::now() < deadline, "new data is never refused");
        rig.send(seq);
        let Ok(len) = rig.client.recv(&mut buffer) else { continue };
        match codec::decode(&buffer[..len]).unwrap() {
            Datagram::Reject(reject) => {
                assert_eq!(reject.code, RejectCode::Storage);
                break;
            }
            Datagram::Ack(ack) => seq = ack.floor.0 + 1,
            other => panic!("{other:?}"),
        }
    }
    rig.until(seq - 1, acked(seq - 1, true));
    rig.disk.set_free_bytes(u64::MAX);
    rig.until(seq, acked(seq, false));
    rig.stop();
}
