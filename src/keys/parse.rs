//! The text of a key file, line by line. What a line holds may be a key: an error names the line and what is wrong with
//! it, and repeats nothing of it.

use std::collections::HashMap;
use std::fmt;
use std::str;

use duragram_proto::ClientId;
use duragram_proto::seal::{ClientKey, FleetKey, KEY_LEN};
use zeroize::Zeroizing;

use super::{Keys, Named};
use crate::limits;
use crate::model::{ChannelSet, parse_channels, parse_client_id};

/// A line that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LineError {
    /// The line's number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: LineProblem,
}

/// What is wrong with a line. Holds nothing of what stands there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LineProblem {
    /// The first word is not known.
    Word,
    /// Something outside of a comment is not ASCII text.
    NotText,
    /// The line ends before this word, which it needs.
    Missing(&'static str),
    /// Words after the last one that means something.
    Surplus,
    /// A word that should be a key is not its hexadecimal digits.
    Key,
    /// A word that should be a client id is none.
    ClientId,
    /// `fleet` in a client's line, and the file has no fleet key.
    NoFleet,
    /// A word that should be a list of channels is none.
    Channels,
    /// More different lists of channels than the server holds.
    ChannelLists,
    /// The same was said in this line.
    Twice(usize),
    /// More clients than the server holds keys of.
    TooMany,
    /// The file has no key at all; told of its last line.
    NoKey,
}

impl fmt::Display for LineProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word => f.write_str("begins with none of fleet, client, revoked and #"),
            Self::NotText => f.write_str("is not ASCII text"),
            Self::Missing(what) => write!(f, "lacks {what}"),
            Self::Surplus => f.write_str("has more words than it may have; a comment begins with #"),
            Self::Key => write!(f, "what should be a key is not {} hexadecimal digits", 2 * KEY_LEN),
            Self::ClientId => f.write_str(
                "what should be a client id is neither 16 hexadecimal digits, nor 0x and such digits, nor a number",
            ),
            Self::NoFleet => f.write_str("the client's key is to be derived, and the file has no fleet key"),
            Self::Channels => f.write_str("wants channels=N,N-M with numbers from 0 to 65535"),
            Self::ChannelLists => {
                write!(f, "one more than {} different lists of channels", limits::KEY_CHANNEL_LISTS)
            }
            Self::TooMany => write!(f, "one more than {} clients", limits::KEY_CLIENTS),
            Self::Twice(line) => write!(f, "was said already, in line {line}"),
            Self::NoKey => f.write_str("the file ends without a key"),
        }
    }
}

type Parsed<T> = Result<T, LineProblem>;

pub(super) fn parse(text: &[u8]) -> Result<Keys, LineError> {
    let mut reader = Reader::default();
    // A vector that grew would leave its keys behind in the memory that it had before.
    let clients = text.split(|&byte| byte == b'\n').filter(|line| line.trim_ascii_start().starts_with(b"c")).count();
    reader.clients.reserve_exact(clients.min(limits::KEY_CLIENTS));
    let mut last = 0;
    for (line, text) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        reader.line(line, text).map_err(|problem| LineError { line, problem })?;
        last = line;
    }
    reader.finish(last)
}

/// What was read so far, with the lines that said it.
#[derive(Default)]
struct Reader {
    fleet: Option<(usize, FleetKey)>,
    clients: Vec<Named>,
    revoked: Vec<ClientId>,
    channels: HashMap<Vec<(u16, u16)>, ChannelSet>,
}

impl Reader {
    fn line(&mut self, line: usize, text: &[u8]) -> Parsed<()> {
        let text = text.split(|&byte| byte == b'#').next().unwrap_or_default();
        if !text.is_ascii() {
            return Err(LineProblem::NotText);
        }
        let text = str::from_utf8(text).map_err(|_| LineProblem::NotText)?;
        let mut words = text.split_ascii_whitespace();
        match words.next() {
            None => return Ok(()),
            Some("fleet") => {
                let key = FleetKey::new(*key(words.next())?);
                if let Some((before, _)) = self.fleet {
                    return Err(LineProblem::Twice(before));
                }
                self.fleet = Some((line, key));
            }
            Some("client") => {
                let client = client(words.next())?;
                let key = match words.next() {
                    Some("fleet") => None,
                    word => Some(ClientKey::new(*key(word)?)),
                };
                let channels = words.next().map(|word| self.channels(word)).transpose()?;
                self.clients.push(Named { client, line, key, channels });
            }
            Some("revoked") => self.revoked.push(client(words.next())?),
            Some(_) => return Err(LineProblem::Word),
        }
        if words.next().is_some() {
            return Err(LineProblem::Surplus);
        }
        if self.clients.len().max(self.revoked.len()) > limits::KEY_CLIENTS {
            Err(LineProblem::TooMany)
        } else {
            Ok(())
        }
    }

    /// Clients with the same channels share one set: it takes 8 KiB.
    fn channels(&mut self, word: &str) -> Parsed<ChannelSet> {
        let list = word.strip_prefix("channels=").ok_or(LineProblem::Surplus)?;
        let ranges = list.split(',').map(parse_channels).collect::<Option<Vec<_>>>().ok_or(LineProblem::Channels)?;
        let mut bounds: Vec<(u16, u16)> = ranges.iter().map(|range| (*range.start(), *range.end())).collect();
        if bounds.iter().any(|(from, to)| from > to) {
            return Err(LineProblem::Channels);
        }
        bounds.sort_unstable();
        if !self.channels.contains_key(&bounds) && self.channels.len() == limits::KEY_CHANNEL_LISTS {
            return Err(LineProblem::ChannelLists);
        }
        let set = self.channels.entry(bounds).or_insert_with(|| ChannelSet::of(ranges.into_iter().flatten()));
        Ok(set.clone())
    }

    fn finish(mut self, last: usize) -> Result<Keys, LineError> {
        self.clients.sort_unstable_by_key(|named| (named.client, named.line));
        if let Some([before, named]) = self.clients.windows(2).find(|pair| pair[0].client == pair[1].client) {
            return Err(LineError { line: named.line, problem: LineProblem::Twice(before.line) });
        }
        // To revoke twice is harmless: scripts append.
        self.revoked.sort_unstable();
        self.revoked.dedup();
        if let (None, Some(named)) = (&self.fleet, self.clients.iter().find(|named| named.key.is_none())) {
            return Err(LineError { line: named.line, problem: LineProblem::NoFleet });
        }
        if self.fleet.is_none() && self.clients.is_empty() {
            return Err(LineError { line: last, problem: LineProblem::NoKey });
        }
        Ok(Keys { fleet: self.fleet.map(|(_, key)| key), clients: self.clients, revoked: self.revoked })
    }
}

fn client(word: Option<&str>) -> Parsed<ClientId> {
    parse_client_id(word.ok_or(LineProblem::Missing("the client id"))?).ok_or(LineProblem::ClientId)
}

fn key(word: Option<&str>) -> Parsed<Zeroizing<[u8; KEY_LEN]>> {
    let digits = word.ok_or(LineProblem::Missing("the key"))?.as_bytes();
    let mut key = Zeroizing::new([0; KEY_LEN]);
    if digits.len() != 2 * KEY_LEN {
        return Err(LineProblem::Key);
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low).ok_or(LineProblem::Key)?;
    }
    Ok(key)
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}
