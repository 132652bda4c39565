//! What each stage of a datagram's way costs, by itself and without the others. The whole server is measured by
//! `duragram load`.
//!
//! `cargo bench --bench stages` runs all in about two minutes; `-- commit` only what has that in its name, and
//! `-- --save-baseline before` and later `-- --baseline before` compare two states of the code. `scripts/stages` prints a
//! table. The bench profile is the release profile, so that RocksDB is not compiled again. `thrpt` counts datagrams:
//! 1 Melem/s is 1,000 ns each. Data stays in the processor's caches here more than in the server, whose other stages
//! compete for them.
//!
//! `DURAGRAM_SPEED_DIR` chooses the disk of the group commits; without it they go into the target directory.

mod block;
mod codec;
mod commit;
mod fanout;
mod ingest;
mod sealed;
mod sessions;
mod sockets;
mod support;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    // Short, since there are many and the machines that this runs on are noisy for longer than any sensible time.
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .configure_from_args();
    codec::benches(&mut criterion);
    sealed::benches(&mut criterion);
    sessions::benches(&mut criterion);
    block::benches(&mut criterion);
    ingest::benches(&mut criterion);
    commit::benches(&mut criterion);
    fanout::benches(&mut criterion);
    sockets::benches(&mut criterion);
    criterion.final_summary();
}
