//! Who processes a server's records: a handler of the program that embeds it, or the configured sinks.

use std::sync::Arc;

use crate::config::Config;
use crate::journal::{Journal, Opened};
use crate::metrics::Metrics;
use crate::model::{ChannelSet, LaneMark, SinkConfig};
use crate::process::{Cursor, HandlerFactory, LaneParts, Lanes, Progress};
use crate::server::error::Error;
use crate::server::parts::lane_config;
use crate::server::sinks::{Known, Planned, lane_config_of, plan};
use crate::server::waiting::Waiting;
use crate::sink::{self, Fifos};

/// Records are processed by handlers of the program, or by sinks.
pub(super) enum Processing {
    /// Handlers of the program, one for each of `lanes`.
    Embedded(HandlerFactory),
    /// Sinks, a lane each, and the FIFOs that they write to.
    Sinks(Vec<SinkConfig>, Fifos),
}

impl Processing {
    /// The step of a start in which it is made.
    pub(super) fn step(&self) -> String {
        match self {
            Self::Embedded(_) => "making the handlers".to_owned(),
            Self::Sinks(sinks, _) => {
                let names: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
                format!("opening the sinks ({})", names.join(", "))
            }
        }
    }

    /// The FIFOs that it will write to.
    pub(super) fn fifos(&self) -> Fifos {
        match self {
            Self::Embedded(_) => Fifos::default(),
            Self::Sinks(_, fifos) => fifos.clone(),
        }
    }

    /// Makes the lanes, each of which reports to `waiting` why it does not go on.
    ///
    /// # Errors
    /// A handler cannot be made, or a sink may not go on in this journal. Nothing has changed.
    pub(super) fn build<J: Journal>(
        self,
        config: &Config,
        opened: &Opened<J>,
        waiting: &Arc<Waiting>,
        metrics: &Metrics,
    ) -> Result<Lanes, Error> {
        match self {
            Self::Embedded(handlers) => embedded(config, handlers, opened, waiting, metrics),
            Self::Sinks(configured, fifos) => self::configured(config, configured, &fifos, opened, waiting, metrics),
        }
    }
}

/// An embedded handler goes on from its lanes' marks; in a journal that only sinks have processed, from the lowest entry kept.
fn embedded<J: Journal>(
    config: &Config,
    handlers: HandlerFactory,
    opened: &Opened<J>,
    waiting: &Arc<Waiting>,
    metrics: &Metrics,
) -> Result<Lanes, Error> {
    for record in &opened.sinks {
        let (sink, at) = (&record.name, record.mark.watermark);
        tracing::warn!(sink, %at, "the sink does not run in this program, and keeps its place until it is removed");
    }
    let lowest = LaneMark { watermark: opened.low, sink_state: Vec::new() };
    let lanes = match opened.lanes.is_empty() {
        true => vec![lowest; usize::from(config.lanes)],
        false => opened.lanes.clone(),
    };
    let parts = LaneParts {
        progress: Progress::resume(opened.end, &lanes, opened.former.clone(), config.lanes, metrics),
        journal: Arc::clone(&opened.reader),
        dead: Arc::clone(&opened.dead),
        metrics: metrics.clone(),
        config: lane_config(config),
        seed: rand::random(),
    };
    let mut handlers = Arc::clone(waiting).watch(None, handlers);
    Ok(Lanes::build_beside(&parts, &mut handlers, opened.sinks.clone())?)
}

/// Makes the lanes of the configured sinks, each of which reports to `waiting` why it does not go on.
///
/// # Errors
/// One may not go on in this journal, or cannot be opened. Nothing has changed.
fn configured<J: Journal>(
    config: &Config,
    mut sinks: Vec<SinkConfig>,
    fifos: &Fifos,
    opened: &Opened<J>,
    waiting: &Arc<Waiting>,
    metrics: &Metrics,
) -> Result<Lanes, Error> {
    let instance = opened.reader.instance().map_or(0, |instance| instance.number);
    let known = Known {
        sinks: &opened.sinks,
        lanes: &opened.lanes,
        former: &opened.former,
        low: opened.low,
        end: opened.end,
        instance,
    };
    let (planned, gone) = plan(&sinks, known)?;
    SinkConfig::withhold_secrets(&mut sinks);
    for record in &gone {
        let (sink, at) = (&record.name, record.mark.watermark);
        tracing::warn!(sink, %at, "the sink is not configured any more, and keeps its place until it is removed");
    }
    if opened.sinks.is_empty() && !opened.lanes.is_empty() {
        tracing::info!(lanes = opened.lanes.len(), "each sink goes on for itself from where all have come together");
    }
    let mailbox = Progress::new_mailbox();
    let seed: u64 = rand::random();
    let part = |(n, (sink, Planned { record, renumbered })): (u64, (SinkConfig, Planned))| {
        let channels = (!sink.channels.is_empty()).then(|| ChannelSet::of(sink.channels.iter().cloned().flatten()));
        let cursor = Cursor::new(&record, channels, sink.backlog, instance, metrics);
        let parts = LaneParts {
            progress: Progress::resume_sink(opened.end, renumbered, cursor, &mailbox, metrics),
            journal: opened.reader.clone(),
            dead: opened.dead.clone(),
            metrics: metrics.clone(),
            config: lane_config_of(config, &sink),
            seed: seed.wrapping_add(n),
        };
        let (name, fifos) = (sink.name.clone(), fifos.clone());
        let make: HandlerFactory = Box::new(move |start| sink::handler_with(&sink, start, &fifos));
        (parts, Arc::clone(waiting).watch(Some(name), make))
    };
    Ok(Lanes::build_sinks((0..).zip(sinks.into_iter().zip(planned)).map(part).collect(), gone)?)
}
