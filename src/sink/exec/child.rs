//! The child process: how it is started, and how it is made sure that nothing of it is left.
//!
//! It is the first of a process group of its own, so that a signal reaches whatever it has started, and a terminal's signals reach
//! the server alone. The group is killed before the child is reaped: until then its number belongs to no other.

use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::last_words::LastWords;
use crate::limits;

/// What systemd says to the server alone.
const NOT_INHERITED: [&str; 6] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A child that runs, or has run.
pub(super) struct Child {
    /// `None` once it is reaped, or left to a thread that waits for it.
    process: Option<std::process::Child>,
    group: Pid,
    /// `None` once it was told that nothing more comes, or does not read any more.
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: ChildStdout,
    /// It has answered everything that it was asked once: it works as such.
    pub(super) has_answered: bool,
    last_words: LastWords,
    /// How it ended, once it is reaped.
    ending: Option<Ending>,
}

/// How a child has ended, for people to read: what stands behind "the child".
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// Nobody had to tell it.
    pub(super) by_itself: bool,
    status: String,
    last_words: String,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = if self.by_itself { "" } else { "was told to end: it " };
        write!(f, "{told}{}{}", self.status, self.last_words)
    }
}

impl Child {
    /// Starts `sh -c COMMAND`, with the server's environment but for what is withheld, and these variables.
    ///
    /// # Errors
    /// The system starts no process. Nothing is left of it.
    pub(super) fn start(
        command: &str,
        sink: &str,
        environment: &[(&str, String)],
        withheld: &[String],
    ) -> io::Result<Self> {
        let mut shell = if env_unblocks_signals() {
            let mut env = Command::new("env");
            env.args(["--default-signal", "sh"]);
            env
        } else {
            Command::new("sh")
        };
        shell.arg("-c").arg(command);
        for name in NOT_INHERITED.into_iter().chain(withheld.iter().map(String::as_str)) {
            shell.env_remove(name);
        }
        shell.envs(environment.iter().map(|(name, value)| (name, value)));
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut process = shell.spawn()?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let group = Pid::from_raw(i32::try_from(process.id()).map_err(io::Error::other)?);
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("it has no pipes"));
        };
        let prepared = non_blocking(stdin.as_fd())
            .and_then(|()| non_blocking(stdout.as_fd()))
            .and_then(|()| non_blocking(stderr.as_fd()))
            .and_then(|()| LastWords::listen(stderr, sink));
        match prepared {
            Ok(last_words) => Ok(Self {
                process: Some(process),
                group,
                stdin: Some(stdin),
                stdout,
                has_answered: false,
                last_words,
                ending: None,
            }),
            Err(error) => {
                let _gone_already = killpg(group, Signal::SIGKILL);
                reap_in_the_background(process);
                Err(error)
            }
        }
    }

    /// Whether the process that was started has ended. What it has started may go on.
    pub(super) fn has_ended(&self) -> bool {
        self.ending.is_some() || ended(self.group).is_some()
    }

    /// Tells it that nothing more comes, and lets it end by itself for as long as `patience`. Then it is told to end, and then it
    /// is killed, with all of its group.
    pub(super) fn stop(&mut self, patience: Duration) -> Ending {
        if let Some(ending) = &self.ending {
            return ending.clone();
        }
        self.stdin = None;
        let mut status = self.wait(patience);
        let by_itself = status.is_some();
        if !by_itself {
            self.signal(Signal::SIGTERM);
            status = self.wait(limits::EXEC_TERM_WAIT);
        }
        self.signal(Signal::SIGKILL);
        let status = status.or_else(|| self.wait(limits::EXEC_TERM_WAIT));
        match (self.process.take(), status) {
            // A zombie: this returns at once.
            (Some(mut process), Some(_)) => drop(process.wait()),
            (Some(process), None) => reap_in_the_background(process),
            (None, _) => {}
        }
        let status = match status {
            Some(WaitStatus::Exited(_, code)) => format!("ended with exit status {code}"),
            Some(WaitStatus::Signaled(_, signal, _)) => format!("was ended by {signal}"),
            _ => "could not even be killed".to_owned(),
        };
        let ending = Ending { by_itself, status, last_words: self.last_words.end() };
        self.ending.insert(ending).clone()
    }

    fn signal(&self, signal: Signal) {
        // An error says that nobody is left.
        let _nobody_left = killpg(self.group, signal);
    }

    /// Waits until the process has ended, and leaves it a zombie.
    fn wait(&self, at_most: Duration) -> Option<WaitStatus> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            match ended(self.group) {
                None if started.elapsed() < at_most => thread::sleep(pause),
                status => return status,
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stop(limits::EXEC_END_WAIT);
    }
}

/// How a process has ended that is not reaped.
fn ended(process: Pid) -> Option<WaitStatus> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(process), flags).ok().filter(|status| *status != WaitStatus::StillAlive)
}

/// A process that not even SIGKILL ends hangs in the kernel: it is waited for where nobody else waits.
fn reap_in_the_background(mut process: std::process::Child) {
    let reaper = thread::Builder::new().name("reaper".to_owned());
    if let Err(error) = reaper.spawn(move || drop(process.wait())) {
        tracing::warn!(%error, "a child that has ended stays in the list of processes until the server ends");
    }
}

fn non_blocking(pipe: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// The server blocks some signals, which a child inherits, and nothing that is safe can unblock them between fork and exec. GNU's
/// `env` can. Without it the child has those signals blocked, which harms few: they come of timers and of files' size limits.
fn env_unblocks_signals() -> bool {
    static IT_DOES: OnceLock<bool> = OnceLock::new();
    *IT_DOES.get_or_init(|| {
        let mut probe = Command::new("env");
        probe.args(["--default-signal", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    })
}
