//! What the system must grant: file descriptors, threads, address space, stacks. A lack of them is found at the start, by a
//! probe, and reported in a sentence. Met later it would be an abort: RocksDB has no way to report that it gets no thread or no
//! memory. For the server, and for the commands that look into a database.

use std::io;
use std::thread;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::client::threads;
use crate::limits;

/// What the C library reserves for a stack where the limit is none.
const UNLIMITED_STACK_BYTES: u64 = 8 << 20;

/// The system does not grant what the server cannot do without.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}{}", advice(source))]
pub struct Shortage {
    doing: String,
    source: io::Error,
}

impl Shortage {
    /// What was being done, and what the system said.
    pub(crate) fn new(doing: impl Into<String>, source: io::Error) -> Self {
        Self { doing: doing.into(), source }
    }

    fn of(doing: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::new(doing, io::Error::other(problem.into()))
    }
}

/// What an operator can do about it.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN) => {
            "; raise the limit of threads (`ulimit -u`, TasksMax of systemd, the pids limit of a container)"
        }
        Some(Errno::EMFILE | Errno::ENFILE) => "; raise the limit of file descriptors (`ulimit -n`)",
        Some(Errno::ENOMEM) => "; raise the limit of memory (`ulimit -v`, `ulimit -d`)",
        _ => "",
    }
}

/// What even the first thread cannot do without, whatever the configuration says.
///
/// # Errors
/// It is not granted; nothing was begun.
pub(crate) fn look_first() -> Result<(), Shortage> {
    stack_bytes()?;
    for (resource, flag) in [(Resource::RLIMIT_AS, 'v'), (Resource::RLIMIT_DATA, 'd')] {
        at_least(resource, flag, limits::FIRST_BYTES)?;
    }
    Ok(())
}

/// What a process may need at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// It opens at most so many file descriptors at a time.
    pub(crate) files: u64,
    /// How many threads, those of the database included.
    pub(crate) threads: usize,
    /// Bytes that are mapped for writing, without the stacks of the database's threads.
    pub(crate) writable_bytes: u64,
}

/// What a command needs that looks into a database.
const NEEDS_OF_A_LOOK: Needs = Needs {
    files: limits::JOURNAL_FILES.unsigned_abs() as u64 + limits::OTHER_FILES,
    threads: limits::DATABASE_THREADS,
    writable_bytes: (limits::BASE_BYTES + limits::MEMTABLES * limits::MEMTABLE_BYTES + limits::BLOCK_CACHE_BYTES)
        as u64,
};

/// Sees to it that the process can have what it may need: raises limits where the system permits it, and tries the rest out.
///
/// # Errors
/// It cannot; nothing was begun.
pub(crate) fn provide(needs: &Needs) -> Result<(), Shortage> {
    files(needs.files)?;
    memory(needs)?;
    are_granted(needs.threads)
}

/// Sees to it that a command can open a database to look into it.
///
/// # Errors
/// It cannot; nothing was begun.
pub(crate) fn provide_for_a_look() -> Result<(), Shortage> {
    look_first()?;
    provide(&NEEDS_OF_A_LOOK)
}

/// Bytes of stack that the database's threads get: of the limit that the process began with.
fn stack_bytes() -> Result<u64, Shortage> {
    let (soft, _) = limit(Resource::RLIMIT_STACK)?;
    if soft < limits::STACK_BYTES {
        let doing = format!("reserving stacks of {} KiB for threads", limits::STACK_BYTES >> 10);
        return Err(Shortage::of(doing, format!("the limit is {} KiB: raise it (`ulimit -s`)", soft >> 10)));
    }
    Ok(if soft == RLIM_INFINITY { UNLIMITED_STACK_BYTES } else { soft })
}

/// RocksDB's answer to an allocation that is refused is an abort, or that it waits forever; and Rust's is an abort too.
fn memory(needs: &Needs) -> Result<(), Shortage> {
    let stacks = (limits::DATABASE_THREADS as u64).saturating_mul(stack_bytes()?);
    let writable = needs.writable_bytes.saturating_add(stacks);
    at_least(Resource::RLIMIT_DATA, 'd', writable)?;
    let arenas = needs.threads.min(8 * cores()) as u64;
    at_least(Resource::RLIMIT_AS, 'v', writable.saturating_add(arenas * limits::ARENA_BYTES))
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn at_least(resource: Resource, flag: char, needed: u64) -> Result<(), Shortage> {
    let (soft, _) = limit(resource)?;
    if soft >= needed {
        return Ok(());
    }
    let doing = format!("reserving {} MiB of address space, which may be needed", needed >> 20);
    Err(Shortage::of(doing, format!("the limit is {} MiB: raise it (`ulimit -{flag}`)", soft >> 20)))
}

fn files(needed: u64) -> Result<(), Shortage> {
    let (soft, hard) = limit(Resource::RLIMIT_NOFILE)?;
    let doing = || format!("reserving {needed} file descriptors, which may be needed");
    if soft >= needed {
        return Ok(());
    }
    if hard < needed {
        return Err(Shortage::of(doing(), format!("the limit of file descriptors is {hard}: raise it (`ulimit -n`)")));
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard).map_err(|error| Shortage::new(doing(), error.into()))
}

fn are_granted(threads: usize) -> Result<(), Shortage> {
    let doing = || format!("starting the {threads} threads that may be needed");
    threads::are_granted(threads).map_err(|error| Shortage::new(doing(), error))
}

fn limit(resource: Resource) -> Result<(u64, u64), Shortage> {
    getrlimit(resource).map_err(|error| Shortage::new(format!("reading the limit {resource:?}"), error.into()))
}
