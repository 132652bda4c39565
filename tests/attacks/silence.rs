//! Attacks that are to keep the server from answering a client: what anybody can send must not use up what the client needs.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{KEYS, Sealed, count, home, opened};
use crate::common::wait_for;
use crate::common::wire::{Is, bytes_of};
use duragram_proto::codec::{Data, Datagram, Ping, RejectCode};
use duragram_proto::{ClientId, Epoch, Seq};

/// The client's address, which the attacker writes into what it sends. Not the one that servers trust to be their own.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[test]
fn plain_datagrams_from_a_clients_address_do_not_keep_it_from_hearing_that_its_epoch_is_stale() {
    for toml in ["", "allow_plain = true"] {
        let home = home(KEYS, toml);
        let server = home.serve();
        let mut client = Sealed::new(&server, 1, 7);
        client.socket = UdpSocket::bind((ADDRESS, 0)).expect("an address of this machine");
        assert_eq!(client.ask_ack(&client.data(1, b"in epoch 7")), 1);
        let stop = Arc::new(AtomicBool::new(false));
        let flood = thread::spawn({
            let (stop, to) = (Arc::clone(&stop), server.udp);
            move || flood(&stop, to)
        });
        wait_for("answers to be withheld from the flood", || {
            let withheld = count(&server, "limited") + server.metric("duragram_replies_withheld_total", "\"limited\"");
            (withheld > 3_000.0).then_some(())
        });
        // A restored client, or one that was idle for too long: told within a few tries, though the flood goes on.
        client.epoch = Epoch::new(5).expect("not 0");
        let mut told = 0;
        for seq in 1..=40 {
            client.send(&client.data(seq, b"in epoch 5"));
            if let Some(answer) = client.receive(Duration::from_millis(100)) {
                assert!(matches!(opened(&answer).is, Is::Reject(reject) if reject.code == RejectCode::StaleEpoch));
                told += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().expect("it has no cause to panic");
        assert!(told >= 30, "told {told} times of 40 ({toml})");
    }
}

/// Plain, in the names of the client and of others, of every kind that is refused.
fn flood(stop: &AtomicBool, to: SocketAddr) {
    let socket = UdpSocket::bind((ADDRESS, 0)).expect("an address of this machine");
    let epoch = Epoch::new(3).expect("not 0");
    let data = |client| Datagram::Data(Data { span: 0, ..Data::whole(ClientId(client), epoch, Seq(1), 0, b"plain") });
    let datagrams = [
        bytes_of(&Datagram::Ping(Ping { client: ClientId(1), epoch })),
        bytes_of(&data(1)),
        bytes_of(&Datagram::Ping(Ping { client: ClientId(77), epoch })),
    ];
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            n += 1;
            // What the kernel does not take was not sent.
            socket.send_to(&datagrams[n % datagrams.len()], to).ok();
        }
        thread::sleep(Duration::from_millis(2));
    }
}
