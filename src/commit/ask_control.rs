//! What operators ask about asks. These are the dialect's, on the committer's thread; whoever asks is on another one.
//!
//! A request waits in a queue with few places. The committer looks at it once with each commit, which takes two loads where nobody
//! asks, has the dialect answer it within that commit, and tells the asker when that has landed. So nothing is told that is not
//! durable, and nobody can make the committer do more than one such thing with each commit.

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::limits;
use crate::model::{AsksReport, AsksRequest};

/// Asks the committer about asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AskControl(Sender<Asked>);

/// Comes when what it says is durable. When it closes without an answer, the server has stopped.
pub type AsksAnswer = Receiver<AsksReport>;

/// Why a request about asks was not taken. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many requests about asks wait, or the server stops: try again")]
pub struct AsksNotAsked;

impl AskControl {
    /// Asks. An idle committer finds it within [`RECEIVE_WAIT_MS`](limits::RECEIVE_WAIT_MS).
    ///
    /// # Errors
    /// It was not asked.
    pub fn ask(&self, request: AsksRequest) -> Result<AsksAnswer, AsksNotAsked> {
        let (answer, answered) = bounded(1);
        self.0.try_send(Asked { request, answer }).map_err(|_| AsksNotAsked)?;
        Ok(answered)
    }
}

/// A request that waits for the committer.
#[derive(Debug)]
struct Asked {
    request: AsksRequest,
    answer: Sender<AsksReport>,
}

/// What the committer looks at for requests, which others make by `AskControl`.
#[derive(Debug)]
pub(super) struct AskRequests {
    waiting: Receiver<Asked>,
    control: AskControl,
}

/// What is to be told when a commit has landed.
#[derive(Debug)]
pub(super) struct Told {
    report: AsksReport,
    answer: Sender<AsksReport>,
}

impl Default for AskRequests {
    fn default() -> Self {
        let (ask, waiting) = bounded(limits::ASK_REQUESTS);
        Self { waiting, control: AskControl(ask) }
    }
}

impl AskRequests {
    /// What others make their requests by.
    pub(super) fn control(&self) -> AskControl {
        self.control.clone()
    }

    /// Has the next request answered, if one waits.
    pub(super) fn answer_next(&self, answer: impl FnOnce(AsksRequest) -> AsksReport) -> Option<Told> {
        if self.waiting.is_empty() {
            return None;
        }
        let Asked { request, answer: to } = self.waiting.try_recv().ok()?;
        Some(Told { report: answer(request), answer: to })
    }
}

/// What waits in a channel outlives its receiver: nobody would hear that no answer will come.
impl Drop for AskRequests {
    fn drop(&mut self) {
        self.waiting.try_iter().for_each(drop);
    }
}

impl Told {
    /// Tells whoever asked, once the commit that this rests on has landed.
    pub(super) fn tell(self) {
        // Whoever asked may have lost patience.
        let _nobody_waits = self.answer.try_send(self.report);
    }
}
