//! What sealed mode costs a datagram: sealing, opening, refusing, and deriving keys.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput};
use duragram::dialect::Arrivals;
use duragram::dialect::duragram::{Admission, AdmissionConfig};
use duragram::keys::{KeyRing, Keys, RingCipher};
use duragram::net::Slab;
use duragram_proto::codec::{self, Datagram, Hello};
use duragram_proto::seal::{Cipher, ClientKey, FleetKey, Portable, SessionKeys};
use duragram_proto::{ClientId, Epoch};

use crate::sockets::peer;
use crate::support::{Payload, ack, data, encoded, session};

pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("sealed");
    group.throughput(Throughput::Elements(1));
    let id = session(1);
    let key = FleetKey::new([7; 32]).client_key(id.client);
    // The server's, and what others have: the protocol's crate by itself.
    cipher(&mut group, "", &key.keys_with::<RingCipher>(id.client, Some(id.epoch)));
    cipher(&mut group, ", portable", &key.keys_with::<Portable>(id.client, Some(id.epoch)));

    let hello = sealed(&Datagram::Hello(Hello { client: id.client, nonce: 5 }), &key.keys(id.client, None));
    group.bench_function("find whose it is", |b| b.iter(|| codec::peek(black_box(&hello)).is_ok()));
    // A datagram of a session whose keys are not at hand, and of a client whose key is not either.
    let derive_session = || black_box(&key).keys_with::<RingCipher>(ClientId(5), Epoch::new(9));
    group
        .bench_function("derive session keys", |b| b.iter_batched(|| (), |()| derive_session(), BatchSize::SmallInput));
    let fleet = FleetKey::new([7; 32]);
    let derive_client = || -> ClientKey { black_box(&fleet).client_key(ClientId(5)) };
    group.bench_function("derive a client key", |b| b.iter_batched(|| (), |()| derive_client(), BatchSize::SmallInput));
    group.finish();
    admission(c);
}

/// What one cipher costs; `which` is added to the names.
fn cipher(group: &mut BenchmarkGroup<'_, WallTime>, which: &str, keys: &SessionKeys<impl Cipher>) {
    let id = session(1);
    for payload in [Payload::plain("0 B", 0), Payload::hundred_bytes(), Payload::plain("1200 B", 1_200)] {
        let name = format!("{}{which}", payload.name);
        let data = Datagram::Data(data(id, 100_000, 99, &payload));
        let sealed = sealed(&data, keys);
        let mut buffer = sealed.clone();
        let mut counter = 0;
        group.bench_function(format!("seal DATA, {name}"), |b| {
            b.iter(|| {
                counter += 1;
                black_box(&data).seal(keys, counter, &mut buffer)
            });
        });
        // The copy that is opened in place costs some of it, as does the one from the kernel.
        group.bench_function(format!("open DATA, {name}"), |b| {
            b.iter(|| {
                buffer.copy_from_slice(black_box(&sealed));
                codec::unseal_request(&mut buffer, keys).is_ok()
            });
        });
        let mut forged = sealed.clone();
        *forged.last_mut().expect("a tag") ^= 1;
        group.bench_function(format!("refuse a forged DATA, {name}"), |b| {
            b.iter(|| codec::unseal_request(black_box(&mut forged), keys).is_err());
        });
    }
    for (bitmap_name, bitmap) in
        [("no bitmap", &[][..]), ("8 B of bitmap", &[0b10; 8]), ("128 B of bitmap", &[0b10; 128])]
    {
        let name = format!("{bitmap_name}{which}");
        let ack = Datagram::Ack(ack(bitmap));
        let sealed = sealed(&ack, keys);
        let mut buffer = sealed.clone();
        group.bench_function(format!("seal ACK, {name}"), |b| b.iter(|| black_box(&ack).seal(keys, 7, &mut buffer)));
        group.bench_function(format!("open ACK, {name}"), |b| {
            let mut sealed = sealed.clone();
            b.iter(|| codec::unseal_reply(black_box(&mut sealed), keys).is_ok());
        });
    }
}

/// What a datagram costs on its way in, good or bad; what a good one costs besides, `committer` tells.
fn admission(c: &mut Criterion) {
    const DATAGRAMS: usize = 64;
    let mut group = c.benchmark_group("admission");
    group.throughput(Throughput::Elements(DATAGRAMS as u64));
    let keys = KeyRing::of(Keys::parse(format!("fleet {}\n", "07".repeat(32)).as_bytes()).expect("a key file"));
    let id = session(1);
    let own = FleetKey::new([7; 32]).client_key(id.client).keys(id.client, Some(id.epoch));
    let payload = Payload::hundred_bytes();
    let datagram = Datagram::Data(data(id, 100_000, 99, &payload));
    let (good, plain) = (sealed(&datagram, &own), encoded(&datagram));
    let mut forged = good.clone();
    *forged.last_mut().expect("a tag") ^= 1;
    let with_keys =
        || Admission::new(AdmissionConfig { keys: keys.clone(), allow_plain: false, ..AdmissionConfig::plain(1472) });
    let mut run = |name: &str, mut admission: Admission, of: &dyn Fn(u64) -> Vec<u8>| {
        let datagrams: Vec<_> = (0..DATAGRAMS as u64).map(of).collect();
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut arrivals = Arrivals::new(Slab::new(0));
                for datagram in &datagrams {
                    arrivals.slab.push(peer(9), datagram);
                }
                arrivals.admit(&mut admission);
                arrivals.requests().len()
            });
        });
    };
    // Of another session, or of another client, each time: keys are derived in vain.
    let other = |at: usize, len: usize| {
        let forged = forged.clone();
        move |n: u64| {
            let mut forged = forged.clone();
            forged[at..at + len].copy_from_slice(&(n + 2).to_le_bytes()[..len]);
            forged
        }
    };
    run("plain", Admission::new(AdmissionConfig::plain(1472)), &|_| plain.clone());
    run("sealed", with_keys(), &|_| good.clone());
    let mut warm = with_keys();
    let mut arrivals = Arrivals::new(Slab::new(0));
    arrivals.slab.push(peer(9), &good);
    arrivals.admit(&mut warm);
    run("forged, of a session at work", warm, &|_| forged.clone());
    run("forged, of an unknown session", with_keys(), &other(4, 4));
    run("forged, of unknown clients", with_keys(), &other(8, 8));
    run("plain where it is not allowed", with_keys(), &|_| plain.clone());
    group.finish();
}

fn sealed(datagram: &Datagram<'_>, keys: &SessionKeys<impl Cipher>) -> Vec<u8> {
    let mut bytes = vec![0; 2_048];
    let len = datagram.seal(keys, 1, &mut bytes).expect("there is room");
    bytes.truncate(len);
    bytes
}
