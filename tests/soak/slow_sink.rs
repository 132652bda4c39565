//! `slow_sink DATA RECORDS_PER_SECOND`: a server whose processing is slower than ingestion until it gets SIGHUP, for
//! `scripts/soak-memory`.
//!
//! Prints `slow_sink ready udp=ADDR admin=ADDR`, serves until SIGTERM or SIGINT, and prints how many
//! records it has processed.

#[allow(dead_code, reason = "the test uses the rest of it")]
mod slow;

use std::error::Error;
use std::io::Write;

use duragram::server;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [data, records_per_second] = args.as_slice() else {
        return Err("usage: slow_sink DATA RECORDS_PER_SECOND".into());
    };
    let config = slow::config(data.into());
    let pace = slow::Pace::new(records_per_second.parse()?);
    let mut out = std::io::stdout();
    let mut told = Ok(());
    server::run_with(config, slow::handlers(&pace), |ready| {
        let (udp, admin) = (ready.udp[0], ready.admin.map_or_else(String::new, |admin| admin.to_string()));
        told = writeln!(out, "slow_sink ready udp={udp} admin={admin}");
    })?;
    told?;
    writeln!(out, "processed {} records", pace.processed())?;
    Ok(())
}
