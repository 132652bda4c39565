//! One exchange with a child: records go in, answers come out, both at once, since either pipe may be full.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::answer::{Answer, Verdict, excerpt};
use super::child::Child;
use super::{Name, name};
use crate::limits;
use crate::model::Record;
use crate::process::handler::Outcomes;
use crate::record_json::Formatter;

/// After so long without anything it is looked whether the child is there at all: another process may hold its pipes open.
const TICK: Duration = Duration::from_millis(200);

/// Why a child is not to be given anything any more.
#[derive(Debug)]
pub(super) enum Failure {
    /// It has ended, or has closed the pipe through which it reads or answers.
    Ended,
    /// It gave no answer for the whole timeout.
    Silent,
    /// It wrote what is no answer to what it was asked; the text says what.
    Babble(String),
    /// The system refuses to read or to write.
    Io(io::Error),
}

/// A record of the exchange is in one of these states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The child was not given it.
    Kept,
    /// The child was given it, or part of its line.
    Outstanding,
    Answered,
}

/// Records go to the child and answers come back, until this ends.
pub(super) struct Exchange<'a, 'r> {
    records: &'a [Record<'r>],
    /// Which records are given, in order.
    indexes: &'a [usize],
    formatter: &'a mut Formatter,
    outcomes: &'a mut Outcomes,
    /// The states stand in the order of the records.
    states: Vec<State>,
    /// How many of `indexes` have a line in `lines`, or had.
    given: usize,
    answered: usize,
    lines: Vec<u8>,
    written: usize,
    /// Of a line of the child's whose end is still to come.
    heard: Vec<u8>,
    /// Room for what is read.
    piece: Vec<u8>,
}

impl<'a, 'r> Exchange<'a, 'r> {
    pub(super) fn new(
        records: &'a [Record<'r>],
        indexes: &'a [usize],
        formatter: &'a mut Formatter,
        outcomes: &'a mut Outcomes,
    ) -> Self {
        let states = vec![State::Kept; records.len()];
        Self {
            records,
            indexes,
            formatter,
            outcomes,
            states,
            given: 0,
            answered: 0,
            lines: Vec::new(),
            written: 0,
            heard: Vec::new(),
            piece: vec![0; limits::EXEC_PIECE_BYTES],
        }
    }

    /// Ends when each record is answered, and else with the child's failure. Answers up to then are in the outcomes.
    pub(super) fn run(&mut self, child: &mut Child, timeout: Duration) -> Result<(), Failure> {
        // What a child says without having been asked must not pass for the answer to what it is asked next.
        self.listen(child)?;
        let mut deadline = Instant::now() + timeout;
        let mut is_over = false;
        while self.answered < self.indexes.len() {
            self.make_lines();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::Silent);
            }
            let (hears, takes) = self.wait(child, left.min(TICK))?;
            let before = self.answered;
            if hears {
                self.listen(child)?;
                // The others may take the child long. What it answers it has made durable.
                self.outcomes.tell_done();
            }
            if takes {
                self.write(child)?;
            }
            if self.answered > before {
                deadline = Instant::now() + timeout;
            } else if is_over && !hears {
                return Err(Failure::Ended);
            }
            // What a child has said before it ended counts: it is heard once more after that is known.
            is_over = child.has_ended() || (child.stdin.is_none() && !hears);
        }
        child.has_answered = true;
        // Part of a line is as unasked for as a whole one; the next exchange could not tell it from its own.
        if self.heard.is_empty() { Ok(()) } else { Err(self.babble(&self.heard, "what nobody has asked for")) }
    }

    /// Makes lines of the next records when the last ones are written.
    fn make_lines(&mut self) {
        if self.written < self.lines.len() {
            return;
        }
        self.lines.clear();
        self.written = 0;
        while self.lines.len() < limits::EXEC_PIECE_BYTES && self.given < self.indexes.len() {
            let i = self.indexes[self.given];
            self.formatter.line(&self.records[i], &mut self.lines);
            self.states[i] = State::Outstanding;
            self.given += 1;
        }
    }

    /// Waits until the child has said something, or takes something.
    fn wait(&self, child: &Child, at_most: Duration) -> Result<(bool, bool), Failure> {
        let stdin = child.stdin.as_ref().filter(|_| self.written < self.lines.len());
        let mut watched = vec![PollFd::new(child.stdout.as_fd(), PollFlags::POLLIN)];
        watched.extend(stdin.map(|stdin| PollFd::new(stdin.as_fd(), PollFlags::POLLOUT)));
        // Rounded up: a part of a millisecond must not become none, again and again.
        let at_most = PollTimeout::try_from(at_most + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, at_most) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(Failure::Io(error.into())),
        }
        let is_ready = |fd: Option<&PollFd<'_>>| fd.and_then(PollFd::any).unwrap_or(false);
        Ok((is_ready(watched.first()), is_ready(watched.get(1))))
    }

    /// Takes what the child has said, up to a piece.
    fn listen(&mut self, child: &mut Child) -> Result<(), Failure> {
        let read = match child.stdout.read(&mut self.piece) {
            Ok(0) => return Err(Failure::Ended),
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(error) => return Err(Failure::Io(error)),
        };
        let piece = std::mem::take(&mut self.piece);
        let taken = self.take_lines(&piece[..read]);
        self.piece = piece;
        taken
    }

    /// Takes the lines that end in this piece, and keeps the beginning of one that does not.
    fn take_lines(&mut self, piece: &[u8]) -> Result<(), Failure> {
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            if part.ends_with(b"\n") && self.heard.is_empty() {
                self.take(part)?;
                continue;
            }
            self.heard.extend_from_slice(part);
            if self.heard.len() > limits::EXEC_LINE_BYTES {
                let what = format!("a line of more than {} bytes", limits::EXEC_LINE_BYTES);
                return Err(self.babble(&self.heard, &what));
            }
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.heard);
                self.take(&line)?;
            }
        }
        Ok(())
    }

    /// Takes one line of the child as the answer to a record.
    fn take(&mut self, line: &[u8]) -> Result<(), Failure> {
        let answer =
            Answer::parse(line).map_err(|error| self.babble(line, &format!("a line that is no answer ({error})")))?;
        // The lane presents records in the order of their names.
        let asked: Name = (answer.offset, answer.index);
        let found = self.records.binary_search_by_key(&asked, name);
        let state = found.map_or(State::Kept, |i| self.states[i]);
        let (Ok(i), State::Outstanding) = (found, state) else {
            let what = match state {
                State::Answered => "a second answer to a record",
                State::Kept | State::Outstanding => "an answer to a record that it was not given",
            };
            return Err(self.babble(line, what));
        };
        match answer.verdict {
            Verdict::Done(None) => self.outcomes.done(i),
            Verdict::Done(Some(body)) => self.outcomes.done_with_what_fits(i, &body),
            Verdict::Retry(reason) => self.outcomes.retry(i, reason),
            Verdict::GiveUp(reason) => self.outcomes.give_up(i, reason),
        }
        self.states[i] = State::Answered;
        self.answered += 1;
        Ok(())
    }

    /// Gives the child what it takes.
    fn write(&mut self, child: &mut Child) -> Result<(), Failure> {
        let Some(stdin) = &mut child.stdin else { return Ok(()) };
        match stdin.write(&self.lines[self.written..]) {
            Ok(bytes) => self.written += bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // It may still answer what it was given.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => child.stdin = None,
            Err(error) => return Err(Failure::Io(error)),
        }
        Ok(())
    }

    /// Whether the child has answered something.
    pub(super) fn has_answers(&self) -> bool {
        self.answered > 0
    }

    fn babble(&self, line: &[u8], what: &str) -> Failure {
        Failure::Babble(format!("{what}: {}", excerpt(line)))
    }
}
