//! `file`: nothing that could be killed.

use std::path::{Path, PathBuf};

use super::super::target::{Found, Target};
use crate::common::sink::{self, Line};
use crate::sinks::support::proxy::Proxy;

pub(crate) struct Lines {
    path: PathBuf,
}

impl Lines {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { path: directory.join("target.ndjson") }
    }
}

impl Target for Lines {
    fn sink(&self, _password: &Path) -> String {
        format!("type = \"file\"\npath = \"{}\"\n", self.path.display())
    }

    fn proxy(&self) -> Option<&Proxy> {
        None
    }

    fn kill(&mut self) {}

    fn start(&mut self) {}

    fn found(&mut self, _expected: usize) -> Vec<Found> {
        sink::read(&self.path).iter().map(found_of).collect()
    }
}

/// What a line of the file sink tells.
pub(crate) fn found_of(line: &Line) -> Found {
    Found {
        offset: line.offset,
        index: line.index,
        client: u64::from_str_radix(&line.client, 16).expect("16 hexadecimal digits"),
        epoch: line.epoch,
        seq: line.seq,
        payload: line.payload(),
    }
}
