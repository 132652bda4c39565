//! What need not hold a commit up: the witness, table files that trimming has emptied, the write-ahead log; and whether all
//! files are where they were.

use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::host::file_modes::is_shortage;
use crate::journal::StorageError;
use crate::journal::database::{Database, Sidecar as _};
use crate::journal::recovery::Witness;
use crate::journal::store::quiet::Quiet;
use crate::journal::store::{Shared, database_error};
use crate::limits::RESERVE_BYTES;
use crate::model::Offset;

/// How often the housekeeping looks at the write-ahead log.
const TEND_INTERVAL: Duration = Duration::from_millis(100);
/// How often it looks whether all files are there. Those whose loss harms at once it looks for each time.
pub(in crate::journal) const LOOK_INTERVAL: Duration = Duration::from_millis(800);
/// What to do about files that are gone.
const LOST_ADVICE: &str = "files of a running server must be left alone. Nothing more is acked. Put back what was there, or \
                           look with `duragram journal verify` before the next start";

/// The thread that does what need not hold a commit up: about once a second the witness and the removal of table files that
/// trimming has emptied, and between these the choice of a write-ahead log that was filled before.
pub(super) struct HousekeepingThread {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl HousekeepingThread {
    pub(super) fn start<D: Database>(
        shared: Arc<Shared<D>>,
        mut housekeeping: Housekeeping,
        interval: Duration,
    ) -> Result<Self, StorageError> {
        let (stop, stopped) = channel();
        let run = move || {
            let (mut done_at, mut looked_at) = (Instant::now(), Instant::now());
            // What is there now is what must stay.
            housekeeping.is_all_there(&shared, true);
            let between = TEND_INTERVAL.min(interval);
            let mut quiet = Quiet::new(Instant::now());
            while matches!(stopped.recv_timeout(between), Err(RecvTimeoutError::Timeout)) {
                let all = housekeeping.missed || looked_at.elapsed() >= LOOK_INTERVAL;
                if all {
                    looked_at = Instant::now();
                }
                if !housekeeping.is_all_there(&shared, all) {
                    continue;
                }
                tend_log(&shared);
                if quiet.is_rest_due(shared.store.sequence(), Instant::now()) && has_room(&shared) {
                    quiet.rest(&shared);
                }
                if done_at.elapsed() >= interval {
                    done_at = Instant::now();
                    housekeeping.run(&shared);
                }
            }
            let again = |housekeeping: &mut Housekeeping| {
                std::thread::sleep(between);
                housekeeping.is_all_there(&shared, true)
            };
            if housekeeping.is_all_there(&shared, true) || again(&mut housekeeping) {
                housekeeping.witness(&shared);
            }
        };
        let thread = std::thread::Builder::new().name("housekeeping".into()).spawn(run);
        let thread = thread.map_err(|error| StorageError::new("starting the journal's housekeeping thread", error))?;
        Ok(Self { stop, thread })
    }

    /// Waits until it has written the last witness.
    pub(super) fn stop(self) {
        let Self { stop, thread } = self;
        drop(stop);
        if thread.join().is_err() {
            tracing::error!("the journal's housekeeping thread panicked; the witness may be old");
        }
    }
}

/// What the housekeeping has done so far.
pub(in crate::journal) struct Housekeeping {
    witnessed: Witness,
    /// It could not be written the last time.
    behind: bool,
    cleared: Offset,
    /// Something was missing at the last look.
    missed: bool,
    /// Something is not where it was: nothing is written any more to what lies there now.
    lost: bool,
}

impl Housekeeping {
    /// Writes the first witness, and begins from it.
    pub(in crate::journal) fn begin<D: Database>(shared: &Shared<D>) -> Result<Self, StorageError> {
        let witnessed = shared.witness();
        shared.dir.write_witness(witnessed).map_err(|error| StorageError::new("writing the witness", error))?;
        Ok(Self { witnessed, behind: false, cleared: Offset(0), missed: false, lost: false })
    }

    /// Whether the journal's files are where they were; poisons the journal when they are not. With `all`, also looks for those
    /// that only the next start, or a reader, would miss.
    ///
    /// What is missing must be missing at two looks in a row: there are file systems in which a name is gone for a moment while
    /// its file is replaced, or while their server begins anew, and a false alarm would end a server that has lost nothing.
    pub(in crate::journal) fn is_all_there<D: Database>(&mut self, shared: &Shared<D>, all: bool) -> bool {
        if self.lost {
            return false;
        }
        let lost = shared.dir.lost().or_else(|| shared.store.lost(all));
        // After an attempt that failed nobody knows which one is there; it is written anew as soon as that is possible.
        let witness = || (all && !self.behind).then(|| shared.dir.lost_witness(self.witnessed)).flatten();
        let Some(lost) = lost.or_else(witness) else {
            self.missed = false;
            return true;
        };
        if mem::replace(&mut self.missed, true) {
            self.lost = true;
            drop(shared.fail("looking after the journal's files".into(), format!("{lost}; {LOST_ADVICE}")));
        }
        false
    }

    /// What is due about once a second.
    pub(in crate::journal) fn run<D: Database>(&mut self, shared: &Shared<D>) {
        // A power cut brings back what is below, as long as its trimming is not synced.
        let low = shared.trimmed();
        self.witness(shared);
        if low > self.cleared {
            match shared.store.delete_files_below(low) {
                Ok(()) => self.cleared = low,
                Err(error) => {
                    drop(shared.fail_with(database_error::<D>("deleting emptied table files".into(), &error)))
                }
            }
        }
    }

    fn witness<D: Database>(&mut self, shared: &Shared<D>) {
        let witness = shared.witness();
        if witness != self.witnessed || self.behind {
            // Else a disk that has begun to fail would go unnoticed until it loses a commit.
            match shared.dir.write_witness(witness) {
                Ok(()) => (self.witnessed, self.behind) = (witness, false),
                // Whoever fills the disk up while new data is refused must not end the server.
                Err(error) if is_shortage(&error) => {
                    if !self.behind {
                        tracing::warn!(%error, "the witness cannot be written for now; it is tried again");
                    }
                    self.behind = true;
                }
                Err(error) => drop(shared.fail("writing the witness".into(), error)),
            }
        }
    }
}

/// Beginning another log writes table files, for which there must be room.
fn tend_log<D: Database>(shared: &Shared<D>) {
    if has_room(shared) {
        // What fails has poisoned the journal.
        drop(shared.tend_log());
    }
}

fn has_room<D: Database>(shared: &Shared<D>) -> bool {
    shared.dir.free_bytes().is_ok_and(|free| free >= *RESERVE_BYTES.start())
}
