//! `postgres` when the network, the server or another copy of the directory does its worst.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use duragram::model::{Instance, LaneMark, Offset};
use duragram::process::{Handler, LaneStart};

use super::server::Cluster;
use super::{
    PATIENCE, drive, first, journal, messages, offsets, open, present, range, reason, records, start, target, url,
};
use crate::sinks::support::proxy::Proxy;

/// The sink behind a proxy, after its first five records.
fn behind_a_proxy(cluster: &Cluster, database: &str) -> (Proxy, Box<dyn Handler>) {
    let proxy = Proxy::to(cluster.address());
    let mut handler = first(target(format!("postgres://postgres@{}/{database}", proxy.address())));
    drive(&mut *handler, &records(&messages(0, 5)), 5, PATIENCE);
    (proxy, handler)
}

/// A start of journal 1.
fn started(url: &str, instance: Instance, mark: &LaneMark) -> Box<dyn Handler> {
    open(target(url.into()), &LaneStart { instance: Some(instance), ..start(journal(1), 0, mark) })
}

#[test]
fn an_answer_that_is_lost_after_the_commit_costs_no_row_and_makes_none_twice() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let (proxy, mut handler) = behind_a_proxy(cluster, &database);
    cluster.sql(&database, "ALTER TABLE events DROP CONSTRAINT events_pkey");
    proxy.lose_replies(true);
    let began = Instant::now();
    let told = reason(&mut *handler, &records(&messages(5, 5)));
    assert!(told.contains("has not answered within 2s"), "{told}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(offsets(cluster, &database), range(0, 10), "it was committed, and the handler cannot know");
    proxy.lose_replies(false);
    let other = messages(5, 10);
    drive(&mut *handler, &records(&other), 10, PATIENCE);
    assert_eq!(offsets(cluster, &database), range(0, 15));
}

#[test]
fn a_connection_that_is_frozen_is_given_up_in_time_and_what_it_still_sends_writes_nothing() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let (frozen, mut handler) = behind_a_proxy(cluster, &database);
    cluster.sql(&database, "ALTER TABLE events DROP CONSTRAINT events_pkey");
    let mark = LaneMark { watermark: Offset(5), sink_state: handler.flush().unwrap() };
    frozen.freeze(true);
    let shown = messages(5, 5);
    let began = Instant::now();
    let told = reason(&mut *handler, &records(&shown));
    assert!(told.contains("has not answered within 2s"), "{told}");
    let told = reason(&mut *handler, &records(&shown));
    assert!(told.contains("no answer within 2s"), "connecting: {told}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // The directory's next start gets through by another way.
    let mut next = open(target(url(cluster, &database)), &start(journal(1), 2, &mark));
    drive(&mut *next, &records(&shown), 5, PATIENCE);
    // What was held back arrives.
    frozen.freeze(false);
    drive(&mut *next, &records(&messages(10, 5)), 5, PATIENCE);
    let told = reason(&mut *handler, &records(&shown));
    assert!(told.contains("another server"), "{told}");
    assert_eq!(offsets(cluster, &database), range(0, 15));
}

#[test]
fn a_connection_that_is_cut_within_a_batch_leaves_nothing_half_done() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let (proxy, mut handler) = behind_a_proxy(cluster, &database);
    for round in 0..6 {
        let from = 5 + round * 1000;
        proxy.cut_after(3_000 + round * 13_000);
        drive(&mut *handler, &records(&messages(from, 1000)), 1000, PATIENCE);
        assert_eq!(offsets(cluster, &database), range(0, from + 1000));
    }
    assert!(proxy.accepted() >= 4, "some of the cuts hit: {}", proxy.accepted());
}

#[test]
fn a_server_that_crashes_again_and_again_has_each_record_once_in_the_end() {
    let mut cluster = Cluster::new();
    let database = cluster.database();
    let mut handler = first(target(url(&cluster, &database)));
    drive(&mut *handler, &records(&messages(0, 1)), 1, PATIENCE);
    cluster.sql(&database, "ALTER TABLE events DROP CONSTRAINT events_pkey");
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut at = 1;
            while !ended.load(Ordering::SeqCst) {
                drive(&mut *handler, &records(&messages(at, 200)), 200, PATIENCE);
                at += 200;
            }
            at
        });
        for _ in 0..3 {
            let count = || offsets(&cluster, &database).len();
            let (before, deadline) = (count(), Instant::now() + PATIENCE);
            while count() < before + 1000 {
                assert!(Instant::now() < deadline, "nothing is written any more");
                thread::sleep(Duration::from_millis(10));
            }
            cluster.crash();
            cluster.start();
        }
        ended.store(true, Ordering::SeqCst);
        let end = writing.join().unwrap();
        assert_eq!(offsets(&cluster, &database), range(0, end));
    });
}

#[test]
fn of_two_copies_of_a_directory_one_writes_and_the_other_stays_out() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut original = LaneMark::default();
    let mut a = open(target(url(cluster, &database)), &start(journal(1), 1, &original));
    original.sink_state = a.flush().unwrap();
    drive(&mut *a, &records(&messages(0, 10)), 10, PATIENCE);
    // A copy of the directory is started while the original runs: the later claim wins.
    let url = url(cluster, &database);
    let mut copy = started(&url, Instance { number: 2, nonce: 0xc0 }, &original);
    drive(&mut *copy, &records(&messages(0, 20)), 20, PATIENCE);
    let shown = messages(10, 10);
    present(&mut *a, &records(&shown));
    for _ in 0..3 {
        let told = reason(&mut *a, &records(&shown));
        assert!(told.contains("another server (start 2 of a copy"), "{told}");
    }
    // Nor does it help to start the original again, as often as one likes.
    original.sink_state = a.flush().unwrap();
    for number in 2..5 {
        let mut again = started(&url, Instance { number, nonce: 0xa0 }, &original);
        original.sink_state = again.flush().unwrap();
        let told = reason(&mut *again, &records(&shown));
        assert!(told.contains("another server (start 2 of a copy"), "{told}");
    }
    drive(&mut *copy, &records(&messages(20, 5)), 5, PATIENCE);
    assert_eq!(offsets(cluster, &database), range(0, 25));
}

#[test]
fn one_that_stays_out_holds_no_lock_in_the_way_of_the_one_that_writes() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let url = url(cluster, &database);
    let mark = LaneMark::default();
    let mut copy = started(&url, Instance { number: 1, nonce: 0xc0 }, &mark);
    drive(&mut *copy, &records(&messages(0, 5)), 5, PATIENCE);
    let mut other = started(&url, Instance { number: 1, nonce: 0xa0 }, &mark);
    for from in [5, 10, 15] {
        reason(&mut *other, &records(&messages(from, 5)));
        let outcomes = present(&mut *copy, &records(&messages(from, 5)));
        assert_eq!(outcomes.unavailable_reason(), None);
    }
    assert_eq!(offsets(cluster, &database), range(0, 20));
}

#[test]
fn two_handlers_of_one_start_that_take_turns_leave_each_record_once() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut handlers = [first(target(url(cluster, &database))), first(target(url(cluster, &database)))];
    drive(&mut *handlers[0], &records(&messages(0, 1)), 1, PATIENCE);
    cluster.sql(&database, "ALTER TABLE events DROP CONSTRAINT events_pkey");
    thread::scope(|scope| {
        for handler in &mut handlers {
            scope.spawn(|| drive(&mut **handler, &records(&messages(0, 600)), 20, PATIENCE));
        }
    });
    let found = offsets(cluster, &database);
    assert_eq!(found.len(), found.iter().collect::<HashSet<_>>().len(), "none is there twice");
    assert_eq!(found, range(0, 600));
}

#[test]
fn an_older_directory_or_database_that_was_put_back_is_not_gone_on_with() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut mark = LaneMark::default();
    let mut handler = open(target(url(cluster, &database)), &start(journal(1), 1, &mark));
    mark.sink_state = handler.flush().unwrap();
    drive(&mut *handler, &records(&messages(0, 10)), 10, PATIENCE);
    let shown = messages(4, 1);
    // The directory, at offset 5.
    let mut older = start(journal(1), 2, &mark);
    older.durable_end = Offset(5);
    let told = reason(&mut *open(target(url(cluster, &database)), &older), &records(&shown));
    assert!(told.contains("offset 9, which this journal has not reached"), "{told}");
    // The database, at offset 3: while the server runs, and after its restart.
    mark.sink_state = handler.flush().unwrap();
    cluster.sql(&database, "UPDATE duragram_positions SET next_offset = 3, epoch = epoch - 1");
    let shown = messages(10, 5);
    present(&mut *handler, &records(&shown));
    let told = reason(&mut *handler, &records(&shown));
    assert!(told.contains("is at offset 3 index 1, and PostgreSQL had confirmed up to offset 9 index 1"), "{told}");
    let mut next = open(target(url(cluster, &database)), &start(journal(1), 2, &mark));
    assert_eq!(reason(&mut *next, &records(&shown)), told);
    // The way out that it names.
    let way_out = &told[told.find("UPDATE").unwrap()..];
    cluster.sql(&database, way_out);
    drive(&mut *next, &records(&shown), 5, PATIENCE);
    assert_eq!(offsets(cluster, &database), range(0, 15));

    mark.sink_state = next.flush().unwrap();
    cluster.sql(&database, "TRUNCATE duragram_positions");
    let shown = messages(15, 5);
    let mut next = open(target(url(cluster, &database)), &start(journal(1), 3, &mark));
    let told = reason(&mut *next, &records(&shown));
    cluster.sql(&database, &told[told.find("INSERT").unwrap()..]);
    drive(&mut *next, &records(&shown), 5, PATIENCE);
    assert_eq!(offsets(cluster, &database), range(0, 20));
}

#[test]
fn a_sink_that_was_moved_is_not_taken_for_a_copy_by_a_restart_before_its_next_record() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let opened = |start: &LaneStart<'_>| open(target(url(cluster, &database)), start);
    let mut handler = first(target(url(cluster, &database)));
    drive(&mut *handler, &records(&messages(0, 10)), 10, PATIENCE);
    let mut mark = LaneMark { watermark: Offset(10), sink_state: handler.moved() };
    // The next start finds no PostgreSQL, and an operator moves the sink once more.
    mark.sink_state = opened(&start(journal(1), 2, &mark)).moved();
    let mut next = opened(&start(journal(1), 3, &mark));
    drive(&mut *next, &records(&messages(10, 5)), 5, PATIENCE);
    assert_eq!(offsets(cluster, &database), range(0, 15));
}

#[test]
fn a_batch_that_takes_longer_than_the_timeout_is_written_in_parts() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut handler = first(target(url(cluster, &database)));
    drive(&mut *handler, &records(&messages(0, 1)), 1, PATIENCE);
    // A statement has eight tenths of the two seconds.
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
                $$ BEGIN PERFORM pg_sleep(0.09); RETURN NEW; END $$; \
                CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION slow()";
    cluster.sql(&database, slow);
    let shown = messages(1, 20);
    let told = reason(&mut *handler, &records(&shown));
    assert!(told.contains("57014"), "{told}");
    let outcomes = present(&mut *handler, &records(&shown));
    assert_eq!(outcomes.unavailable_reason(), None, "half of them at a time");
    assert_eq!(offsets(cluster, &database), range(0, 21));
}

#[test]
fn a_server_that_takes_no_writes_is_waited_for() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut handler = first(target(url(cluster, &database)));
    drive(&mut *handler, &records(&messages(0, 5)), 5, PATIENCE);
    // The session that is there becomes read-only, and so does each new one.
    let read_only = format!(
        "ALTER DATABASE {database} SET default_transaction_read_only = on; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' AND application_name = 'duragram'"
    );
    cluster.sql("postgres", &read_only);
    let shown = messages(5, 5);
    // What is noticed first may be that the session was ended.
    let mut told = reason(&mut *handler, &records(&shown));
    if told.contains("terminating connection") {
        told = reason(&mut *handler, &records(&shown));
    }
    assert!(told.contains("does not allow writes"), "{told}");
    cluster.sql("postgres", &format!("ALTER DATABASE {database} RESET default_transaction_read_only"));
    drive(&mut *handler, &records(&shown), 5, PATIENCE);
    assert_eq!(offsets(cluster, &database), range(0, 10));
}

#[test]
fn the_first_of_several_hosts_that_takes_writes_is_used() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let (refusing, frozen) = (Proxy::to(cluster.address()), Proxy::to(cluster.address()));
    refusing.cut(true);
    frozen.freeze(true);
    let hosts = format!("{},{},{}", refusing.address(), frozen.address(), cluster.address());
    let mut handler = first(target(format!("postgres://postgres@{hosts}/{database}")));
    let outcomes = present(&mut *handler, &records(&messages(0, 5)));
    assert_eq!(outcomes.unavailable_reason(), None, "within one call");
    assert_eq!(offsets(cluster, &database), range(0, 5));
}

#[test]
fn a_lock_that_another_session_holds_is_waited_for_no_longer_than_the_timeout() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let mut handler = first(target(url(cluster, &database)));
    drive(&mut *handler, &records(&messages(0, 5)), 5, PATIENCE);
    let lock = "BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(4); COMMIT";
    thread::scope(|scope| {
        scope.spawn(|| cluster.sql(&database, lock));
        let locked =
            "SELECT count(*) FROM pg_locks WHERE relation = 'events'::regclass AND mode = 'AccessExclusiveLock'";
        let deadline = Instant::now() + PATIENCE;
        while cluster.sql(&database, locked) != ["1"] {
            assert!(Instant::now() < deadline, "it takes no lock");
        }
        let began = Instant::now();
        let told = reason(&mut *handler, &records(&messages(5, 5)));
        assert!(told.contains("55P03") && told.contains("pg_locks"), "{told}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    });
    drive(&mut *handler, &records(&messages(5, 5)), 5, PATIENCE);
    assert_eq!(offsets(cluster, &database), range(0, 10));
}
