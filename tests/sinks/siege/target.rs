//! What a besieged sink writes to: a real system that can be killed and started again, and what is found in it.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::targets::appending::{Child, Receiver};
use super::targets::file::Lines;
use super::targets::mqtt::Mosquitto;
use super::targets::nats::Nats;
use super::targets::postgres::Postgres;
use super::targets::redis::Redis;
use crate::sinks::support::proxy::Proxy;

/// The password of every target that asks for one.
pub(super) const PASSWORD: &str = "right-s3cret";

/// Every target but `file` and `redis` refuses a record that holds this and is longer than [`LONG`].
pub(super) const REFUSED: &str = "refuse-me";

/// Bytes of a payload that brokers find too large.
pub(super) const LONG: usize = 4096;

/// A record as it was found in a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) offset: u64,
    pub(super) index: u64,
    pub(super) client: u64,
    pub(super) epoch: u32,
    pub(super) seq: u64,
    pub(super) payload: Vec<u8>,
}

/// The system that a sink writes to.
pub(super) trait Target: Send {
    /// The keys of the sink's table, but for its name. The password is in a file.
    fn sink(&self, password: &Path) -> String;

    /// What lies between the sink and the target; `None` where there is no connection.
    fn proxy(&self) -> Option<&Proxy>;

    /// Ends it as a crash does.
    fn kill(&mut self);

    /// Starts it again on what it had.
    fn start(&mut self);

    /// Holds it back, or lets it go on: nothing is answered, and no connection ends.
    fn freeze(&self, frozen: bool) {
        if let Some(proxy) = self.proxy() {
            proxy.freeze(frozen);
        }
    }

    /// Every record in it, in the order in which it came where the target knows one. Waits for a moment when fewer records
    /// than expected are there.
    fn found(&mut self, expected: usize) -> Vec<Found>;
}

/// The kinds of targets that a siege can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    File,
    Exec,
    Http,
    HttpBatch,
    Postgres,
    Nats,
    NatsShared,
    Redis,
    Valkey,
    Mqtt,
}

impl Kind {
    pub(super) const ALL: [Self; 10] = [
        Self::File,
        Self::Exec,
        Self::Http,
        Self::HttpBatch,
        Self::Postgres,
        Self::Nats,
        Self::NatsShared,
        Self::Redis,
        Self::Valkey,
        Self::Mqtt,
    ];

    /// Starts one; what it keeps in files is below the directory.
    pub(super) fn start(self, directory: &Path) -> Box<dyn Target> {
        match self {
            Self::File => Box::new(Lines::new(directory)),
            Self::Exec => Box::new(Child::new(directory)),
            Self::Http => Box::new(Receiver::start(directory, "record")),
            Self::HttpBatch => Box::new(Receiver::start(directory, "batch")),
            Self::Postgres => Box::new(Postgres::start()),
            Self::Nats => Box::new(Nats::start(true)),
            Self::NatsShared => Box::new(Nats::start(false)),
            Self::Redis => Box::new(Redis::start("redis-server".into())),
            Self::Valkey => Box::new(Redis::start(crate::sinks::redis::valkey_program())),
            Self::Mqtt => Box::new(Mosquitto::start()),
        }
    }

    /// Whether a record is there once, whatever happens. On a shared stream of NATS it is for as long as the stream remembers, and no
    /// run lasts so long.
    pub(super) fn is_exact(self) -> bool {
        !matches!(self, Self::Exec | Self::Http | Self::HttpBatch | Self::Mqtt)
    }

    /// Whether records come in the order of the journal, and the target can tell.
    pub(super) fn is_ordered(self) -> bool {
        !matches!(self, Self::Postgres | Self::NatsShared)
    }

    /// Whether it refuses what is made to be refused.
    pub(super) fn refuses(self) -> bool {
        !matches!(self, Self::File | Self::Redis | Self::Valkey)
    }

    /// Whether there is a process or a server that can be killed.
    pub(super) fn lives(self) -> bool {
        self != Self::File
    }

    /// Whether it asks for a password.
    pub(super) fn has_password(self) -> bool {
        !matches!(self, Self::File | Self::Exec)
    }

    /// Whether it is reached by a connection.
    pub(super) fn has_connection(self) -> bool {
        self.has_password()
    }

    /// A line of the sink's table: short, so that what is frozen is given up. A child that is started takes a while on a busy machine.
    pub(super) fn timeout(self) -> &'static str {
        if self == Self::Exec { "timeout = \"3s\"\n" } else { "timeout = \"500ms\"\n" }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Exec => "exec",
            Self::Http => "http",
            Self::HttpBatch => "http, batch",
            Self::Postgres => "postgres",
            Self::Nats => "nats, exclusive",
            Self::NatsShared => "nats, shared",
            Self::Redis => "redis",
            Self::Valkey => "redis (Valkey)",
            Self::Mqtt => "mqtt",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Writes a password where a sink reads it.
pub(super) fn write_secret(path: &Path, text: &str) {
    // In one step: the sink may read it at any time.
    let new = path.with_extension("new");
    fs::write(&new, text).expect("a file");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("its owner's alone");
    fs::rename(&new, path).expect("it takes its place");
}
