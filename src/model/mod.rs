//! The words that every part of the server shares: what names an entry, a session, a lane; time; peers; an entry and its
//! records; what is kept on disk beside them; the names of sinks.
//!
//! This module knows nobody but the protocol's own types.

mod ask;
mod ask_report;
mod channels;
mod dead_letter;
mod durability;
mod entry;
mod ids;
mod lane_message;
mod peer;
mod record;
mod sink;
mod sink_spec;
mod sink_url;
mod stored;
mod time;

pub use ask::{AnswerRecord, AnswersRecord, AskId, AskRecord, LaneAnswer, Processed};
pub use ask_report::{AskState, AskTotals, AskView, AsksReport, AsksRequest, ClientAsks};
pub use channels::{ChannelSet, parse_channels};
pub use dead_letter::{DeadLetter, DeadLetterId};
pub use durability::DurabilityLevel;
pub use entry::{Entry, EntryKind, EntryMeta};
pub use ids::{DialectId, Lane, Offset, SessionId, parse_client_id};
pub use lane_message::LaneMessage;
pub(crate) use peer::canonical;
pub use peer::{Local, Peer};
pub(crate) use record::records_of;
pub use record::{Content, Record};
pub use sink::{
    BacklogConfig, BatchConfig, ExecTarget, HttpAuth, HttpMode, HttpTarget, MqttTarget, NatsAuth, NatsTarget,
    PostgresPayload, PostgresTarget, RedisTarget, Secret, SinkConfig, SinkId, SinkStart, SinkTarget, TlsConfig,
    WhenFull,
};
pub(crate) use sink_spec::POSTGRES_PARAMETERS;
pub use sink_spec::SinkSpecError;
pub(crate) use sink_url::SinkUrl;
pub use stored::{ClientRecord, FormerLanes, Instance, JournalId, LaneMark, SessionRecord, SinkLoss, SinkRecord};
pub use time::{Clock, Now, SystemClock};
