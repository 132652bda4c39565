//! What an operator asks of the sinks of a running server, and whether it is durable when the answer comes.

use duragram::model::Offset;
use duragram::process::{SinkAnswer, SinkControl};

use super::Seen;
use crate::core::Core;
use crate::rng::Rng;

/// A request, and whose sink it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Pause,
    Resume,
    Seek { to: u64, back: bool },
    Remove,
}

/// The requests of a life that were not answered yet.
pub(crate) struct Commands {
    control: SinkControl,
    waiting: Vec<(u128, Command, SinkAnswer)>,
}

impl Commands {
    pub(crate) fn new(control: SinkControl) -> Self {
        Self { control, waiting: Vec::new() }
    }

    /// Asks something of some sink, when all sinks are as the journal ends at `end` and begins at `low`.
    pub(crate) fn ask(&mut self, core: &mut Core, rng: &mut Rng) {
        let sinks = self.control.list();
        if sinks.is_empty() {
            return;
        }
        let sink = &sinks[rng.index(sinks.len())];
        let (name, id, at) = (sink.record.name.as_str(), sink.record.id.0, sink.record.mark.watermark.0);
        let command = match rng.below(8) {
            0 | 1 => Command::Pause,
            2..=4 => Command::Resume,
            5 | 6 => {
                let to = rng.below(sink.end.0 + 1);
                Command::Seek { to, back: to < at }
            }
            _ => Command::Remove,
        };
        self.send(core, name, id, command);
    }

    /// Lets every sink go on that was stopped.
    pub(crate) fn resume_all(&mut self, core: &mut Core) -> bool {
        let paused: Vec<_> =
            self.control.list().into_iter().filter(|sink| sink.configured && sink.record.paused).collect();
        paused.iter().for_each(|sink| self.send(core, &sink.record.name, sink.record.id.0, Command::Resume));
        !paused.is_empty()
    }

    fn send(&mut self, core: &mut Core, name: &str, id: u128, command: Command) {
        let asked = match command {
            Command::Pause => self.control.pause(name),
            Command::Resume => self.control.resume(name),
            Command::Seek { to, .. } => self.control.seek(name, Offset(to)),
            Command::Remove => self.control.remove(name),
        };
        core.trace.say(core.now_us, || format!("an operator asks sink {name} to {command:?}: {}", asked.is_ok()));
        // One that is not configured can be removed, and nothing else.
        if let Ok(answer) = asked {
            core.oracle.sink_is_asked(id, command);
            // What was asked for before may be taken back by this.
            self.waiting.retain(|(other, ..)| *other != id);
            self.waiting.push((id, command, answer));
        }
    }

    /// What has been answered by now must be durable.
    pub(crate) fn look(&mut self, core: &mut Core) {
        self.waiting.retain(|(id, command, answer)| match answer.try_recv() {
            Ok(()) => {
                core.oracle.request_is_durable(*id, *command);
                core.oracle.saw(match command {
                    Command::Pause => Seen::Paused,
                    Command::Resume => Seen::Resumed,
                    Command::Seek { back: true, .. } => Seen::SoughtBack,
                    Command::Seek { back: false, .. } => Seen::SoughtForward,
                    Command::Remove => Seen::Removed,
                });
                false
            }
            Err(error) => error.is_empty(),
        });
    }
}
