//! The layer under the server (`preload.c`): compiled, configured, and its trace read.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Kinds of calls, to be combined with `|`. As in `preload.c`.
pub(crate) mod calls {
    pub(crate) const WRITE: u32 = 1;
    pub(crate) const SYNC: u32 = 2;
    pub(crate) const RENAME: u32 = 8;
    pub(crate) const REMOVE: u32 = 16;
    pub(crate) const CREATE: u32 = 32;
    pub(crate) const MKDIR: u32 = 64;
    pub(crate) const TRUNCATE: u32 = 128;
    pub(crate) const REPLY: u32 = 256;
    /// Of datagrams; the path is "receive".
    pub(crate) const RECEIVE: u32 = 4096;
    pub(crate) const LINK: u32 = 512;
    pub(crate) const SPACE: u32 = 2048;
    /// Everything by which the state of disk or clients changes.
    pub(crate) const ALL: u32 = WRITE | SYNC | RENAME | REMOVE | CREATE | MKDIR | TRUNCATE | REPLY;
}

pub(crate) const EPERM: i32 = 1;
pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSYS: i32 = 38;
pub(crate) const EOPNOTSUPP: i32 = 95;
pub(crate) const ENOSPC: i32 = 28;

/// Forever, as the number of calls that a rule concerns.
pub(crate) const EVER: u64 = u64::MAX;

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// The process gets SIGKILL instead of it.
    KillBefore,
    /// The process gets SIGKILL when it has returned.
    KillAfter,
    /// It fails with this error number, and nothing is done.
    Fail(i32),
    /// Success is reported, and nothing is done.
    Lie,
    /// Half of a write is done.
    Short,
    /// The call takes effect after this time.
    Delay(Duration),
    /// A sync ends this time after it has begun.
    Linger(Duration),
}

/// Which calls an action concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    pub(crate) calls: u32,
    /// A part of the path, of a rename the new one. Replies have the path "reply".
    pub(crate) part: &'static str,
    /// The first of the matching calls that is concerned, from 1 on.
    pub(crate) first: u64,
    /// How many of the calls from there on are concerned.
    pub(crate) times: u64,
    pub(crate) action: Action,
}

impl Rule {
    /// The action concerns every matching call.
    pub(crate) fn always(calls: u32, part: &'static str, action: Action) -> Self {
        Self { calls, part, first: 1, times: EVER, action }
    }

    /// The n-th matching call from the rule's setting on, counted from 1.
    pub(crate) fn nth(calls: u32, part: &'static str, n: u64, action: Action) -> Self {
        Self { calls, part, first: n, times: 1, action }
    }
}

const RULES: usize = 16;
const RULE_LEN: usize = 128;
const SEEN_AT: usize = 120;

/// The layer of one server: its rules, its trace. The files lie beside what the layer looks at, not in it.
pub(crate) struct Layer {
    root: PathBuf,
    control: File,
    dir: tempfile::TempDir,
    traced: bool,
}

impl Layer {
    /// Looks at what lies below `root`; writes nothing down.
    pub(crate) fn over(root: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let control = File::options().create_new(true).read(true).write(true).open(dir.path().join("control"));
        let control = control.expect("a new file");
        control.write_all_at(&[0; RULES * RULE_LEN], 0).expect("a page");
        Self { root: root.to_owned(), control, dir, traced: false }
    }

    /// The same, and writes down all that happens.
    pub(crate) fn tracing(root: &Path) -> Self {
        Self { traced: true, ..Self::over(root) }
    }

    /// Brings the layer into a command.
    pub(crate) fn under(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library()).env("FAULTS_ROOT", &self.root);
        command.env("FAULTS_CONTROL", self.dir.path().join("control"));
        if self.traced {
            command.env("FAULTS_TRACE", self.trace_path());
        }
    }

    fn trace_path(&self) -> PathBuf {
        self.dir.path().join("trace")
    }

    /// Sets a rule, at once; its count begins anew.
    pub(crate) fn set(&self, index: usize, rule: Rule) {
        let (action, error, ms) = match rule.action {
            Action::KillBefore => (1, 0, 0),
            Action::KillAfter => (2, 0, 0),
            Action::Fail(error) => (3, error, 0),
            Action::Lie => (4, 0, 0),
            Action::Short => (5, 0, 0),
            Action::Delay(time) => (6, 0, u32::try_from(time.as_millis()).expect("a short time")),
            Action::Linger(time) => (7, 0, u32::try_from(time.as_millis()).expect("a short time")),
        };
        let mut bytes = [0; RULE_LEN];
        bytes[4..8].copy_from_slice(&u32::to_le_bytes(action));
        bytes[8..16].copy_from_slice(&rule.first.to_le_bytes());
        bytes[16..24].copy_from_slice(&rule.times.to_le_bytes());
        bytes[24..28].copy_from_slice(&error.to_le_bytes());
        bytes[28..32].copy_from_slice(&ms.to_le_bytes());
        bytes[32..32 + rule.part.len()].copy_from_slice(rule.part.as_bytes());
        // Without calls it is no rule yet; so it becomes one all at once.
        self.write(index, 0, &[0; 4]);
        self.write(index, 4, &bytes[4..]);
        self.write(index, 0, &rule.calls.to_le_bytes());
    }

    /// Takes a rule away, so that its calls go through again.
    pub(crate) fn clear(&self, index: usize) {
        self.write(index, 0, &[0; 4]);
    }

    /// How many calls a rule has matched.
    pub(crate) fn seen(&self, index: usize) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, at(index, SEEN_AT)).expect("a page");
        u64::from_le_bytes(bytes)
    }

    fn write(&self, index: usize, within: usize, bytes: &[u8]) {
        self.control.write_all_at(bytes, at(index, within)).expect("a page");
    }

    /// What was written down so far. Call it when the server has ended.
    pub(crate) fn trace(&self) -> Vec<Record> {
        parse(&fs::read(self.trace_path()).expect("the trace"))
    }
}

fn at(index: usize, within: usize) -> u64 {
    assert!(index < RULES);
    (index * RULE_LEN + within) as u64
}

/// One thing that happened. Paths are absolute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    Write {
        path: PathBuf,
        at: u64,
        bytes: Vec<u8>,
    },
    Fill {
        path: PathBuf,
        at: u64,
        len: u64,
        byte: u8,
    },
    Sync {
        path: PathBuf,
        id: u64,
    },
    Synced {
        id: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    Create {
        path: PathBuf,
    },
    Mkdir {
        path: PathBuf,
    },
    Truncate {
        path: PathBuf,
        len: u64,
    },
    Extend {
        path: PathBuf,
        len: u64,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    /// Datagrams that are about to be sent.
    Replies(Vec<Vec<u8>>),
    /// A rule has failed or shortened a call.
    Fault {
        rule: u64,
        path: PathBuf,
    },
}

fn parse(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some((header, rest)) = bytes.split_at_checked(32) {
        let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let short = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes")) as usize;
        let (a, b) = (number(8), number(16));
        let (body, next) = rest.split_at(short(0));
        let (path, body) = body.split_at(short(24));
        let (path2, data) = body.split_at(short(28));
        let name = |bytes| PathBuf::from(str::from_utf8(bytes).expect("tests use no other names"));
        let (path, path2) = (name(path), name(path2));
        records.push(match short(4) {
            1 => Record::Write { path, at: a, bytes: data.to_vec() },
            2 => Record::Fill { path, at: a, len: b, byte: data[0] },
            3 => Record::Sync { path, id: a },
            4 => Record::Synced { id: a },
            5 => Record::Rename { from: path, to: path2 },
            6 => Record::Remove { path },
            7 => Record::Create { path },
            8 => Record::Mkdir { path },
            9 => Record::Truncate { path, len: a },
            10 => Record::Extend { path, len: a },
            11 => Record::Replies(datagrams(data)),
            12 => Record::Link { from: path, to: path2 },
            13 => Record::Fault { rule: a, path },
            other => panic!("a record of kind {other}"),
        });
        bytes = next;
    }
    assert!(bytes.is_empty(), "records are appended whole");
    records
}

fn datagrams(mut data: &[u8]) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    while let Some((len, rest)) = data.split_first_chunk() {
        let (datagram, rest) = rest.split_at(usize::from(u16::from_le_bytes(*len)));
        datagrams.push(datagram.to_vec());
        data = rest;
    }
    datagrams
}

/// Compiles the layer once for all tests, and returns where it lies.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (library, fresh) = (dir.join("faults.so"), dir.join(format!("faults.so.{}", std::process::id())));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/preload.c");
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-o"]).arg(&fresh).arg(&source);
        let status = cc.status().expect("a C compiler, which scripts/setup installs");
        assert!(status.success(), "{cc:?}: {status}");
        fs::rename(fresh, &library).expect("the same directory");
        library
    })
}
