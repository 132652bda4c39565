//! `lossy_path LISTEN SERVER [SEED]`: a bad network between UDP clients and a server, for `scripts/demo`.
//!
//! Prints `lossy path ready udp=ADDR`, carries until SIGTERM or SIGINT, and prints what it did to the datagrams.

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../common/lossy.rs"]
mod lossy;

use std::error::Error;
use std::io::Write;

use lossy::{LossyPath, Weather};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (listen, server, seed) = match args.as_slice() {
        [listen, server] => (listen, server, 1),
        [listen, server, seed] => (listen, server, seed.parse()?),
        _ => return Err("usage: lossy_path LISTEN SERVER [SEED]".into()),
    };
    let path = LossyPath::open(listen.parse()?, server.parse()?, Weather::FOUL, seed, None)?;
    let mut out = std::io::stdout();

    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        writeln!(out, "lossy path ready udp={}", path.addr())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok::<_, std::io::Error>(())
    })?;
    let counts = path.counts();
    writeln!(
        out,
        "{} datagrams came, {} lost, {} sent twice, {} held back",
        counts.arrived, counts.lost, counts.duplicated, counts.held_back
    )?;
    Ok(())
}
