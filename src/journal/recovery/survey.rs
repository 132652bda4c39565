//! The survey of a directory: verifies each record in it, and hands what is good to a visitor.
//!
//! What it checks beyond each record's own checksum is what no storage can know: that the blocks follow each other without
//! hole from the lowest entry kept, each naming the checksum of the one before it, and that the journal reaches as far as
//! checkpoint, lanes, sinks and witness say. So a log whose tail the storage dropped in silence is found out.

use super::chain::Chain;
use super::facts::{Bad, CheckpointFact, DatabaseFact, Facts, Format, LastWrite, WitnessFact};
use super::reading::Reading;
use super::scan::Scan;
use super::table::{Outcome, decide};
use super::walk::{Item, walk};
use crate::journal::database::{Cursor as _, DEAD, Database, JOURNAL, META, Witness, block_key};
use crate::journal::error::{Damage, DamageKind, DamagePlace};
use crate::journal::mask::unmask;
use crate::journal::meta::{self, ANSWERS_KEYS, CHECKPOINT_KEY, CheckpointState, MetaRecord, RecentRecord};
use crate::journal::{Block, Extent, Replay};
use crate::model::{AnswersRecord, AskRecord, ClientRecord, DeadLetter, DeadLetterId, Offset, SessionRecord};

/// What lies behind the last write that a storage has delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tail {
    /// Nothing lies behind it: no write was interrupted.
    Clean,
    /// Writes of which none was known to be durable when the last of them began: a crash has interrupted them.
    Torn(Torn),
    /// A whole write that says that one before it was durable, which is not whole.
    GoodAfterBad {
        /// The file, by its path in the data directory.
        file: String,
        /// Where the good one begins, in bytes.
        at: u64,
    },
    /// The log does not go on where the rest of the database ends: what was written in between is missing.
    Gap {
        /// So many changes are there before the gap.
        in_tables: u64,
    },
}

/// Writes that a crash has interrupted before any of them was acked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Torn {
    /// The file, by its path in the data directory.
    pub file: String,
    /// Where the first of them that is seen begins in the file, in bytes.
    pub at: u64,
    /// So many of them are whole, and given up with the first: they were under way together with it.
    pub whole: u64,
}

/// A data directory, as far as it was read without its database.
pub(in crate::journal) struct Directory<'a, D> {
    /// The format, by its marker.
    pub format: Format,
    /// `None` when there is none; an error when it is not what was written.
    pub witness: Result<Option<Witness>, String>,
    /// Opened for reading; nothing on the disk has changed. `None` when there is none; an error when it cannot be opened.
    pub database: Result<Option<&'a D>, Damage>,
    /// What the database's log holds behind the last write that it has delivered; an error when that cannot be read.
    pub tail: Result<Tail, String>,
    /// How much of the blocks is read.
    pub reading: Reading<'a>,
}

/// Something good that a survey came by.
pub(in crate::journal) enum Visit<'a> {
    /// A session as the last checkpoint or a later commit wrote it.
    Session(SessionRecord),
    /// The epochs of a client in sealed mode.
    Client(ClientRecord),
    /// The limit of the server's counter.
    CounterLimit(u64),
    /// A message whose sender wants an answer, as the last checkpoint wrote it.
    Ask(AskRecord),
    /// What was answered with one commit: behind all blocks, in the order of their numbers.
    Answers(AnswersRecord),
    /// A key by which a dialect knows a message again.
    Recent(RecentRecord),
    /// A block; they come in their order.
    Block {
        /// The block was read, and its checksum fits.
        block: &'a Block,
        /// It holds entries that the checkpoint does not include.
        since_checkpoint: bool,
    },
    /// A dead letter that is kept.
    Dead(DeadLetter),
}

impl<'a> Visit<'a> {
    /// What a start hands to the session code, if it is of that.
    pub(in crate::journal) fn replay(self) -> Option<Replay<'a>> {
        match self {
            Self::Session(session) => Some(Replay::Session(session)),
            Self::Client(client) => Some(Replay::Client(client)),
            Self::CounterLimit(limit) => Some(Replay::CounterLimit(limit)),
            Self::Ask(ask) => Some(Replay::Ask(ask)),
            Self::Answers(answers) => Some(Replay::Answers(answers)),
            Self::Block { block, since_checkpoint: true } => Some(Replay::Block(block)),
            // No version has written a recent key so far.
            Self::Block { .. } | Self::Dead(_) | Self::Recent(_) => None,
        }
    }
}

/// What a survey found, all in all.
#[derive(Debug, Default)]
pub struct Survey {
    /// What the decision table decides by.
    pub facts: Facts,
    /// It sums up all that could be read.
    pub scan: Scan,
    /// Everything that is not what it was, in words: at least one finding for each fact that speaks against a start.
    pub damage: Vec<Damage>,
    /// The writes that a crash has torn, if there are any.
    pub torn: Option<Torn>,
}

impl Survey {
    /// Decides by the facts what a start does with this journal.
    pub fn outcome(&self) -> Outcome {
        decide(&self.facts)
    }

    /// The finding that explains a refusal of this kind.
    pub fn finding(&self, kind: DamageKind) -> Damage {
        let finding = self.damage.iter().find(|damage| damage.kind == kind).cloned();
        finding.unwrap_or_else(|| Damage::new(kind, DamagePlace::Database, kind.describe()))
    }
}

/// Reads everything and changes nothing. `visit` is given everything good.
pub(in crate::journal) fn survey<D: Database>(
    directory: &Directory<'_, D>,
    visit: &mut dyn FnMut(Visit<'_>),
) -> Survey {
    let mut survey = Survey::default();
    survey.format(directory.format);
    if matches!(directory.format, Format::Older(_) | Format::Newer(_)) {
        return survey;
    }
    let witness = survey.witness(&directory.witness);
    match directory.database {
        Ok(Some(database)) => survey.database(database, directory, witness, visit),
        Ok(None) => survey.no_database(&directory.witness),
        Err(ref damage) => survey.found(damage.clone()),
    }
    survey
}

impl Survey {
    /// Every fact against a start has its finding, and every finding its fact.
    fn found(&mut self, damage: Damage) {
        let facts = &mut self.facts;
        match damage.kind {
            DamageKind::Marker => facts.format = Format::Unreadable,
            DamageKind::DatabaseMissing => facts.database = DatabaseFact::Absent,
            DamageKind::DatabaseUnreadable => facts.database = DatabaseFact::Unreadable,
            DamageKind::GoodAfterBad => facts.bad = Bad::BeforeGood,
            DamageKind::LastBlock if facts.bad == Bad::None => facts.bad = Bad::Last,
            DamageKind::Hole => facts.hole = true,
            DamageKind::Chain => facts.chain_broken = true,
            DamageKind::BelowWitness => facts.witness = WitnessFact::Beyond,
            DamageKind::Checkpoint => facts.checkpoint = CheckpointFact::Missing,
            DamageKind::BelowCheckpoint => facts.checkpoint = CheckpointFact::Newer,
            DamageKind::Record => facts.record_bad = true,
            // Each has more than one fact, which its finder notes.
            DamageKind::Format | DamageKind::Witness | DamageKind::LastBlock => {}
        }
        self.damage.push(damage);
    }

    fn format(&mut self, format: Format) {
        self.facts.format = format;
        let marker = |kind, problem: &str| Damage::new(kind, DamagePlace::File("DURAGRAM"), problem);
        match format {
            Format::Unreadable => self.found(marker(DamageKind::Marker, "it is missing, or not what was written")),
            Format::Older(version) => {
                let problem = format!("it has format {version}, which no version of this program has written");
                self.found(marker(DamageKind::Format, &problem));
            }
            Format::Known | Format::Newer(_) => {}
        }
    }

    fn witness(&mut self, witness: &Result<Option<Witness>, String>) -> Option<Witness> {
        let finding = |problem: &str| Damage::new(DamageKind::Witness, DamagePlace::File("witness"), problem);
        match witness {
            Ok(Some(witness)) => {
                self.scan.witness = Some(witness.end());
                return Some(*witness);
            }
            Ok(None) => self.facts.witness = WitnessFact::Missing,
            Err(problem) => {
                self.facts.witness = WitnessFact::Damaged;
                self.found(finding(problem));
            }
        }
        None
    }

    fn no_database(&mut self, witness: &Result<Option<Witness>, String>) {
        self.facts.database = DatabaseFact::Absent;
        self.facts.last = LastWrite::Absent;
        let problem = match witness {
            Ok(None | Some(Witness::NotInService)) => return,
            Ok(Some(Witness::Durable { end, .. })) => {
                self.facts.witness = WitnessFact::Beyond;
                format!("it is missing, and the witness proves that entries below {end} were durable")
            }
            Err(damage) => format!("it is missing, and the witness is no help: {damage}"),
        };
        self.found(Damage::new(DamageKind::DatabaseMissing, DamagePlace::Database, problem));
    }

    fn database<D: Database>(
        &mut self,
        database: &D,
        directory: &Directory<'_, D>,
        witness: Option<Witness>,
        visit: &mut dyn FnMut(Visit<'_>),
    ) {
        if self.facts.witness == WitnessFact::Missing {
            // A database is never in its place before the first witness.
            self.found(Damage::new(DamageKind::Witness, DamagePlace::File("witness"), "it is missing"));
        }
        self.scan.changes = database.sequence();
        self.tail(&directory.tail);
        let checkpoint = self.meta(database, visit);
        self.blocks(database, checkpoint, directory.reading, visit);
        // A second walk, since who answered an entry must know it first, and since all answers together may be much memory.
        let (from, to) = ANSWERS_KEYS;
        self.records(database, &from, &to, &mut None, visit);
        self.facts.last = match self.scan.blocks {
            _ if self.torn.is_some() => LastWrite::Torn,
            0 => LastWrite::Absent,
            _ => LastWrite::Whole,
        };
        self.hold_against_claims(witness);
        self.dead_letters(database, visit);
    }

    fn tail(&mut self, tail: &Result<Tail, String>) {
        match tail {
            Ok(Tail::Clean) => {}
            Ok(Tail::Torn(torn)) => self.torn = Some(torn.clone()),
            Ok(Tail::GoodAfterBad { file, at }) => {
                let problem = format!(
                    "its write-ahead log is damaged before byte {at}, where a later write is whole and proves that it was durable"
                );
                let damage = Damage::new(DamageKind::GoodAfterBad, DamagePlace::Database, problem);
                self.found(Damage { byte: Some(*at), ..damage.in_files(vec![file.clone()]) });
            }
            Ok(Tail::Gap { in_tables }) => {
                let problem = format!(
                    "its write-ahead log does not go on after the {in_tables} changes that its table files hold: \
                     its MANIFEST has lost its end, or a log is missing"
                );
                self.found(Damage::new(DamageKind::GoodAfterBad, DamagePlace::Database, problem));
            }
            Err(error) => self.found(Damage::new(DamageKind::DatabaseUnreadable, DamagePlace::Database, error)),
        }
    }

    /// All records but answers. Returns the checkpoint; `None` when there is no good one.
    fn meta<D: Database>(&mut self, database: &D, visit: &mut dyn FnMut(Visit<'_>)) -> Option<CheckpointState> {
        let mut checkpoint = None;
        let (answers, behind) = ANSWERS_KEYS;
        self.records(database, &[0], &answers, &mut checkpoint, visit);
        self.records(database, &behind, &[0xff], &mut checkpoint, visit);
        let place = || DamagePlace::Record { family: META, key: CHECKPOINT_KEY.to_vec() };
        match &checkpoint {
            None => self.found(Damage::new(DamageKind::Checkpoint, place(), "there is no good checkpoint")),
            Some(state) if state.low > state.at => {
                self.found(Damage::new(DamageKind::Checkpoint, place(), "it lies below the lowest entry kept"));
            }
            Some(_) => {}
        }
        checkpoint
    }

    /// The records `from..to` of the family `meta`.
    fn records<D: Database>(
        &mut self,
        database: &D,
        from: &[u8],
        to: &[u8],
        checkpoint: &mut Option<CheckpointState>,
        visit: &mut dyn FnMut(Visit<'_>),
    ) {
        walk(database, META, from, to, &mut |item| match item {
            Item::Unreadable { .. } => self.found(bad_item(database, META, &item)),
            Item::Record(key, value) => match meta::decode(key, &value) {
                Err(error) => self.found(bad_record(database, META, key, error)),
                Ok(MetaRecord::Checkpoint(state)) => *checkpoint = Some(state),
                Ok(MetaRecord::Loss(loss)) => self.scan.losses.push(loss),
                Ok(MetaRecord::Client(client)) => visit(Visit::Client(client)),
                Ok(MetaRecord::CounterLimit(limit)) => visit(Visit::CounterLimit(limit)),
                Ok(MetaRecord::Recent(recent)) => visit(Visit::Recent(recent)),
                Ok(MetaRecord::Ask(ask)) => {
                    self.scan.asks += 1;
                    self.scan.asks_answered += u64::from(ask.answer.is_some());
                    visit(Visit::Ask(ask));
                }
                Ok(MetaRecord::Answers(answers)) => {
                    self.scan.answers += answers.answers.iter().filter(|ask| ask.answer.is_some()).count() as u64;
                    visit(Visit::Answers(answers));
                }
                Ok(MetaRecord::Session(session)) => {
                    self.scan.sessions += 1;
                    visit(Visit::Session(session));
                }
            },
        });
    }

    fn blocks<D: Database>(
        &mut self,
        database: &D,
        checkpoint: Option<CheckpointState>,
        reading: Reading<'_>,
        visit: &mut dyn FnMut(Visit<'_>),
    ) {
        let start = checkpoint.as_ref();
        let (low, at) = start.map_or_else(Default::default, |state| (state.low, state.at));
        let (mut from, mut chain) = (low, Chain::from(start, &self.scan.losses));
        if let (Some(start), Some(later)) = (start, reading.later(database, start)) {
            self.lowest(database, start);
            // The block there begins the chain: it is held against the one before it when that is read.
            let mut blocks = database.iterate(JOURNAL, &block_key(low), &KEY_LAST);
            blocks.seek_for_prev(&block_key(later.below));
            if let Some(first) = blocks.item().and_then(|(key, _)| key.try_into().ok()).map(u64::from_be_bytes) {
                from = Offset(first);
                chain = Chain::from(None, &self.scan.losses);
                self.scan.extents = later.extents;
                self.scan.unread_below = from;
            }
        }
        // Offset and chain of the first block that is there.
        let mut first = None;
        walk(database, JOURNAL, &block_key(from), &KEY_LAST, &mut |item| {
            let (key, value) = match item {
                Item::Record(key, value) => (key, value),
                Item::Unreadable { .. } => return chain.note(bad_item(database, JOURNAL, &item)),
            };
            let bad = |problem: &dyn std::fmt::Display| bad_record(database, JOURNAL, key, problem);
            let block = match Block::parse(value) {
                Ok(block) if key == block_key(block.first()) => block,
                Ok(_) => return chain.note(bad(&"the block belongs under another key")),
                Err(error) => return chain.note(bad(&error)),
            };
            let (found, used) = chain.follow(&block);
            if let Some(mut damage) = found {
                if damage.files.is_empty() {
                    damage.files = database.files_of(JOURNAL, key);
                }
                self.found(damage);
            }
            if !used {
                return;
            }
            first.get_or_insert((block.first(), block.previous_checksum()));
            if let Some(progress) = reading.progress {
                progress.add(block.size() as u64);
            }
            Extent::add(&mut self.scan.extents, &block);
            self.scan.blocks += 1;
            self.scan.entries += block.end().since(block.first());
            self.scan.block_bytes += block.size() as u64;
            visit(Visit::Block { block: &block, since_checkpoint: block.end() > at });
        });
        // Readers look for the block at or before an offset: RocksDB then touches what lies below, although it is trimmed.
        let mut below = database.iterate(JOURNAL, &block_key(low), &KEY_LAST);
        below.seek_for_prev(&block_key(low));
        if let Err(error) = below.status() {
            let problem = format!("cannot be read on down from here: {error}");
            self.found(bad_record(database, JOURNAL, &block_key(low), problem));
        }
        let (end, bad) = chain.finish();
        if let Some(bad) = bad {
            self.found(bad);
        }
        let (restart, low_previous_checksum) = first.unwrap_or((end, 0));
        let restarted =
            CheckpointState { at: restart, low: restart, low_previous_checksum, ..CheckpointState::default() };
        let checkpoint = checkpoint.unwrap_or(restarted);
        let scan = &mut self.scan;
        scan.end = end;
        scan.last_checksum = chain.last_checksum();
        (scan.checkpoint_at, scan.low, scan.lanes) = (checkpoint.at, checkpoint.low, checkpoint.lanes);
        (scan.former, scan.sinks) = (checkpoint.former, checkpoint.sinks);
        scan.low_previous_checksum = checkpoint.low_previous_checksum;
    }

    /// The lowest block that is kept, of a backlog that is not read from there on.
    fn lowest<D: Database>(&mut self, database: &D, checkpoint: &CheckpointState) {
        let low = checkpoint.low;
        let mut chain = Chain::from(Some(checkpoint), &self.scan.losses);
        let mut blocks = database.iterate(JOURNAL, &block_key(low), &KEY_LAST);
        blocks.seek(&block_key(low));
        let found = match (blocks.item(), blocks.status()) {
            (Some((key, value)), _) => match Block::parse(unmask(value)) {
                Ok(block) if key == block_key(block.first()) => chain.follow(&block).0,
                Ok(_) => Some(bad_record(database, JOURNAL, key, "the block belongs under another key")),
                Err(error) => Some(bad_record(database, JOURNAL, key, error)),
            },
            (None, Err(error)) => Some(bad_record(database, JOURNAL, &block_key(low), error)),
            // There is none at all: who reads what is above finds that.
            (None, Ok(())) => None,
        };
        if let Some(damage) = found {
            // Behind it there is more, as the table files say.
            let kind = if damage.kind == DamageKind::LastBlock { DamageKind::GoodAfterBad } else { damage.kind };
            self.found(Damage { kind, ..damage });
        }
    }

    fn hold_against_claims(&mut self, witness: Option<Witness>) {
        let end = self.scan.end;
        let mut short = false;
        for (kind, who, claimed) in self.scan.claims() {
            if claimed > end {
                short = true;
                let place = DamagePlace::Entries { from: end, to: Some(claimed) };
                self.found(Damage::new(kind, place, format!("missing: {who} proves that they were durable")));
            }
        }
        match witness {
            Some(Witness::Durable { changes, .. }) if changes > self.scan.changes && !short => {
                let missing = changes - self.scan.changes;
                let problem =
                    format!("its last {missing} changes are missing: the witness proves that they were durable");
                self.found(Damage::new(DamageKind::BelowWitness, DamagePlace::Database, problem));
            }
            _ => {}
        }
    }

    fn dead_letters<D: Database>(&mut self, database: &D, visit: &mut dyn FnMut(Visit<'_>)) {
        walk(database, DEAD, &DeadLetterId::FIRST.key(), &DeadLetterId::KEYS_END, &mut |item| match item {
            Item::Unreadable { .. } => self.found(bad_item(database, DEAD, &item)),
            Item::Record(key, value) => match DeadLetter::decode(key, &value) {
                Err(error) => self.found(bad_record(database, DEAD, key, error)),
                Ok(letter) => {
                    self.scan.dead.add(letter.id);
                    visit(Visit::Dead(letter));
                }
            },
        });
    }
}

/// Behind all keys of blocks: no block begins at the last of all offsets.
const KEY_LAST: [u8; 8] = [0xff; 8];

fn bad_record<D: Database>(database: &D, family: &'static str, key: &[u8], problem: impl std::fmt::Display) -> Damage {
    // Of a block, it is the last one until a good one follows.
    let kind = if family == JOURNAL { DamageKind::LastBlock } else { DamageKind::Record };
    let place = DamagePlace::Record { family, key: key.to_vec() };
    Damage::new(kind, place, problem).in_files(database.files_of(family, key))
}

fn bad_item<D: Database>(database: &D, family: &'static str, item: &Item<'_>) -> Damage {
    let (Item::Record(key, _) | Item::Unreadable { after: key, .. }) = item;
    let error = if let Item::Unreadable { error, .. } = item { error } else { "" };
    bad_record(database, family, key, format!("cannot be read on from here: {error}"))
}
