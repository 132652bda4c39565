//! `sink_lines FILE`: the records of a file sink, each with a newline, in the order in which their client sent them: for
//! `scripts/demo`, which compares them with what was sent. A gap is an error.

#[allow(dead_code, reason = "the tests use the rest of it")]
#[path = "../common/sink.rs"]
mod sink;

use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let (Some(file), None) = (args.next(), args.next()) else {
        return Err("usage: sink_lines FILE".into());
    };
    let mut lines = sink::read(Path::new(&file));
    lines.sort_by(|a, b| (&a.client, a.epoch, a.seq, a.index).cmp(&(&b.client, b.epoch, b.seq, b.index)));
    let mut out = BufWriter::new(std::io::stdout().lock());
    for line in &lines {
        out.write_all(&line.payload())?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}
