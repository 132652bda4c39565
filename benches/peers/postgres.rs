//! PostgreSQL: an `INSERT` a message or a `COPY` a window, each of them a transaction
//! (<https://www.postgresql.org/docs/current/protocol-flow.html>). The messages are those of the crate `postgres-protocol`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::IsNull;
use postgres_protocol::message::{backend, frontend};

use crate::protocol::{self, Connect, Connection, Protocol, Reply, Slots, Taken};

/// One column and no index: the least that a row costs.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS bench (payload bytea NOT NULL)";
const INSERT: &str = "INSERT INTO bench VALUES ($1)";
const COPY: &str = "COPY bench FROM STDIN (FORMAT binary)";
/// The log's files of what was loaded before are used again, as they are by a server that has run for a while.
const CHECKPOINT: &str = "CHECKPOINT";
/// The prepared `INSERT` has this name.
const PREPARED: &str = "put";
/// Signature, no flags, no extension: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format".
const COPY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In place of a number of columns: no more rows.
const COPY_END: [u8; 2] = (-1_i16).to_be_bytes();
/// Connecting, and making the table, take no longer.
const SET_UP: Duration = Duration::from_secs(30);
/// The status byte of ReadyForQuery while no transaction is open.
const IDLE: u8 = b'I';

/// How the messages of a connection become rows, and when they are acked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    /// A statement and a transaction for each.
    Insert,
    /// A statement and a transaction for as many as the window holds.
    Copy,
}

/// A server that has the table, and lets the user `postgres` in without a password.
pub(crate) struct Postgres {
    by: By,
}

impl Postgres {
    /// Creates the table unless it is there, and writes down what the server has only in its log.
    ///
    /// # Errors
    /// The server cannot be reached or refuses that.
    pub(crate) fn set_up(server: SocketAddr, by: By) -> io::Result<Self> {
        let mut session = Session::open(server)?;
        for statement in [TABLE, CHECKPOINT] {
            let mut query = BytesMut::new();
            frontend::query(statement, &mut query)?;
            session.ask(&query)?;
        }
        Ok(Self { by })
    }
}

impl Connect for Postgres {
    fn connect(&self, server: SocketAddr, window: usize) -> io::Result<Connection> {
        let mut session = Session::open(server)?;
        let protocol: Box<dyn Protocol> = match self.by {
            By::Insert => {
                let mut prepare = BytesMut::new();
                frontend::parse(PREPARED, INSERT, [], &mut prepare)?;
                frontend::sync(&mut prepare);
                session.ask(&prepare)?;
                Box::new(Inserts::new(window))
            }
            By::Copy => Box::new(Copies::new(window)),
        };
        session.stream.set_read_timeout(None)?;
        Ok(Connection { stream: session.stream, input: session.input, protocol })
    }
}

/// A connection that waits for each answer.
struct Session {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Session {
    fn open(server: SocketAddr) -> io::Result<Self> {
        let stream = protocol::open(server)?;
        stream.set_read_timeout(Some(SET_UP))?;
        let mut session = Self { stream, input: Vec::new() };
        let mut hello = BytesMut::new();
        let who = [("user", "postgres"), ("database", "postgres"), ("application_name", "peer_load")];
        frontend::startup_message(who, &mut hello)?;
        session.ask(&hello)?;
        Ok(session)
    }

    /// Sends, and waits until the server is ready for more.
    fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)?;
        let mut refusal = None;
        loop {
            while let Some(message) = Message::read(&self.input).map_err(io::Error::other)? {
                let (tag, len) = (message.tag, message.len);
                match tag {
                    backend::ERROR_RESPONSE_TAG => refusal = Some(message.words()),
                    // Anything but "it is well" is a question for a password.
                    backend::AUTHENTICATION_TAG if message.body != [0; 4] => {
                        return Err(io::Error::other("the server asks for a password"));
                    }
                    _ => {}
                }
                self.input.drain(..len);
                if let Some(words) = refusal.take_if(|_| tag == backend::READY_FOR_QUERY_TAG) {
                    return Err(io::Error::other(words));
                }
                if tag == backend::READY_FOR_QUERY_TAG {
                    return Ok(());
                }
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece)? {
                // It says why before it closes.
                0 => return Err(refusal.map_or_else(|| ErrorKind::UnexpectedEof.into(), io::Error::other)),
                len => self.input.extend_from_slice(&piece[..len]),
            }
        }
    }
}

/// A message of the server's.
struct Message<'a> {
    tag: u8,
    body: &'a [u8],
    /// Its bytes with tag and length.
    len: usize,
}

impl<'a> Message<'a> {
    /// Reads the one that the input begins with; `None` when it is not whole yet.
    fn read(input: &'a [u8]) -> Result<Option<Self>, String> {
        let header = backend::Header::parse(input).map_err(|error| error.to_string())?;
        // The length counts itself, but not the tag.
        let whole = header.and_then(|header| Some((header.tag(), 1 + usize::try_from(header.len()).ok()?)));
        Ok(whole.and_then(|(tag, len)| Some(Self { tag, body: input.get(5..len)?, len })))
    }

    /// What an error says: fields that end with zeros, each behind its letter; `C` is the code, `M` the message.
    fn words(&self) -> String {
        let field = |letter: u8| {
            let found = self.body.split(|byte| *byte == 0).find(|field| field.first() == Some(&letter));
            String::from_utf8_lossy(found.map_or(&[][..], |field| &field[1..])).into_owned()
        };
        format!("{} ({})", field(b'M'), field(b'C'))
    }
}

/// One `INSERT` for each message.
struct Inserts {
    request: BytesMut,
    replies: Transactions,
}

impl Inserts {
    fn new(window: usize) -> Self {
        Self { request: BytesMut::new(), replies: Transactions::new(window, 1, "INSERT 0 1".to_owned()) }
    }
}

impl Protocol for Inserts {
    fn write_request(&mut self, _slot: usize, payload: &[u8], out: &mut Vec<u8>) {
        self.request.clear();
        let as_it_is = |payload: &[u8], request: &mut BytesMut| {
            request.extend_from_slice(payload);
            Ok(IsNull::No)
        };
        // Binary, both ways. The end of the transaction is asked for with each, so that each has its own.
        let bound = frontend::bind("", PREPARED, [1], [payload], as_it_is, [], &mut self.request);
        let executed = frontend::execute("", 0, &mut self.request);
        assert!(bound.is_ok() && executed.is_ok(), "a payload is shorter than 2 GiB");
        frontend::sync(&mut self.request);
        out.extend_from_slice(&self.request);
    }

    fn take_reply(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Option<Taken>, String> {
        self.replies.take(input)
    }
}

/// One `COPY` for as many messages as the window holds. A window is filled at once, since all of it is acked at once.
struct Copies {
    window: usize,
    /// Messages that the open `COPY` has.
    rows: usize,
    data: Vec<u8>,
    request: BytesMut,
    replies: Transactions,
}

impl Copies {
    fn new(window: usize) -> Self {
        let replies = Transactions::new(window, window, format!("COPY {window}"));
        Self { window, rows: 0, data: Vec::new(), request: BytesMut::new(), replies }
    }
}

impl Protocol for Copies {
    fn write_request(&mut self, _slot: usize, payload: &[u8], out: &mut Vec<u8>) {
        if self.rows == 0 {
            self.data.clear();
            self.data.extend_from_slice(COPY_HEAD);
        }
        let len = i32::try_from(payload.len()).expect("a payload is shorter than 2 GiB");
        self.data.extend_from_slice(&1_i16.to_be_bytes());
        self.data.extend_from_slice(&len.to_be_bytes());
        self.data.extend_from_slice(payload);
        self.rows += 1;
        if self.rows < self.window {
            return;
        }
        self.rows = 0;
        self.data.extend_from_slice(&COPY_END);
        self.request.clear();
        // Statement and data together: the server reads on by itself when it is ready for them.
        let asked = frontend::query(COPY, &mut self.request);
        let data = frontend::CopyData::new(&self.data[..]).ok().filter(|_| asked.is_ok());
        data.expect("a window is shorter than 2 GiB").write(&mut self.request);
        frontend::copy_done(&mut self.request);
        out.extend_from_slice(&self.request);
    }

    fn take_reply(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Option<Taken>, String> {
        self.replies.take(input)
    }
}

/// What comes back: transactions that end, each of a number of messages.
struct Transactions {
    slots: Slots,
    messages: usize,
    /// The tag of a statement that has stored so many.
    complete: String,
    /// How the open transaction has gone so far, or why it fails.
    outcome: Option<Result<(), String>>,
    /// Messages of the transaction that ended last which are not told yet.
    untold: usize,
}

impl Transactions {
    fn new(window: usize, messages: usize, complete: String) -> Self {
        Self { slots: Slots::new(window), messages, complete, outcome: None, untold: 0 }
    }

    fn take(&mut self, input: &[u8]) -> Result<Option<Taken>, String> {
        if self.untold > 0 {
            return Ok(Some(Taken { len: 0, reply: self.tell()? }));
        }
        let Some(Message { tag, body, len }) = Message::read(input)? else { return Ok(None) };
        let reply = match tag {
            backend::BIND_COMPLETE_TAG | backend::COPY_IN_RESPONSE_TAG => Reply::Nothing,
            backend::NOTICE_RESPONSE_TAG | backend::PARAMETER_STATUS_TAG => Reply::Nothing,
            // Only of the statement: an `INSERT` is not committed yet.
            backend::COMMAND_COMPLETE_TAG if body.strip_suffix(&[0]) == Some(self.complete.as_bytes()) => {
                self.outcome = Some(Ok(()));
                Reply::Nothing
            }
            backend::ERROR_RESPONSE_TAG => {
                self.outcome = Some(Err(Message { tag, body, len }.words()));
                Reply::Nothing
            }
            backend::READY_FOR_QUERY_TAG if body == [IDLE] => {
                self.untold = self.messages;
                self.tell()?
            }
            _ => return Err(protocol::unexpected(&input[..len])),
        };
        Ok(Some(Taken { len, reply }))
    }

    /// What became of the next message of the transaction that has ended.
    fn tell(&mut self) -> Result<Reply, String> {
        let outcome = self.outcome.clone().ok_or("the end of a transaction without a statement")?;
        self.untold -= 1;
        if self.untold == 0 {
            self.outcome = None;
        }
        let slot = self.slots.next();
        Ok(match outcome {
            Ok(()) => Reply::Stored { slot },
            Err(why) => Reply::Refused { slot, why },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::tests::{all, refused, stored};

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let len = i32::try_from(4 + body.len()).unwrap();
        [&[tag][..], &len.to_be_bytes(), body].concat()
    }

    fn ready() -> Vec<u8> {
        message(b'Z', b"I")
    }

    fn error() -> Vec<u8> {
        message(b'E', b"SERROR\0C53100\0Mcould not extend file\0\0")
    }

    #[test]
    fn an_insert_is_acked_by_the_end_of_its_transaction_and_not_before() {
        let mut inserts = Inserts::new(2);
        let statement = [message(b'2', b""), message(b'C', b"INSERT 0 1\0")].concat();
        assert_eq!(all(&mut inserts, &statement), []);
        assert_eq!(all(&mut inserts, &ready()), [stored(0)]);
        assert_eq!(all(&mut inserts, &[statement, ready()].concat()), [stored(1)]);
    }

    #[test]
    fn an_insert_whose_commit_fails_is_not_acked() {
        let mut inserts = Inserts::new(1);
        let replies = [message(b'2', b""), message(b'C', b"INSERT 0 1\0"), error(), ready()].concat();
        assert_eq!(all(&mut inserts, &replies), [refused(0, "could not extend file (53100)")]);
    }

    #[test]
    fn a_copy_is_sent_when_its_window_is_full_and_acks_each_message_of_it() {
        let mut copies = Copies::new(3);
        let mut out = Vec::new();
        for payload in [&b"a"[..], b"bc"] {
            copies.write_request(0, payload, &mut out);
            assert!(out.is_empty());
        }
        copies.write_request(2, b"", &mut out);
        let rows =
            [&[0, 1, 0, 0, 0, 1][..], b"a", &[0, 1, 0, 0, 0, 2], b"bc", &[0, 1, 0, 0, 0, 0], &[0xff, 0xff]].concat();
        let sent = [
            message(b'Q', b"COPY bench FROM STDIN (FORMAT binary)\0"),
            message(b'd', &[COPY_HEAD, &rows].concat()),
            message(b'c', b""),
        ];
        assert_eq!(out, sent.concat());
        let replies = [message(b'G', &[1, 0, 1, 0, 1]), message(b'C', b"COPY 3\0"), ready()].concat();
        assert_eq!(all(&mut copies, &replies), [stored(0), stored(1), stored(2)]);
        let replies = [message(b'G', &[1, 0, 1, 0, 1]), error(), ready()].concat();
        let why = "could not extend file (53100)";
        assert_eq!(all(&mut copies, &replies), [refused(0, why), refused(1, why), refused(2, why)]);
    }

    #[test]
    fn what_the_server_must_not_say_ends_the_load() {
        for wrong in [
            message(b'C', b"COPY 2\0"),
            message(b'C', b"INSERT 0 1\0"),
            ready(),
            message(b'Z', b"T"),
            message(b'D', &[0, 0]),
            vec![b'C', 0, 0, 0, 3],
        ] {
            assert!(Copies::new(3).take_reply(&wrong, &mut Vec::new()).is_err(), "{wrong:?}");
        }
    }
}
