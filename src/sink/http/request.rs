//! What requests carry: their headers, names and bodies.

use std::borrow::Cow;
use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use ureq::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use ureq::http::request::Builder;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};

use super::super::name::RecordName;
use crate::model::{Content, HttpMode, HttpTarget, JournalId, Record};
use crate::process::handler::HandlerError;

/// The media type of lines of JSON.
const LINES: &str = "application/x-ndjson";

/// Headers that are ours, beside all that begin with `duragram-`.
const OURS: [&str; 7] = [
    "content-type",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "expect",
    "idempotency-key",
];

/// Makes the requests of one sink.
pub(super) struct Requests {
    uri: Uri,
    /// Those that all requests have.
    headers: HeaderMap,
    journal: JournalId,
    gzip: bool,
}

impl Requests {
    /// # Errors
    /// The URL or a header is none that can be sent; the error names it, and shows none of its value.
    pub(super) fn new(target: &HttpTarget, journal: JournalId) -> Result<Self, HandlerError> {
        let uri: Uri = target.url.parse().map_err(|error| HandlerError::new(format_args!("`url`: {error}")))?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        let host = uri.authority().is_some_and(|authority| !authority.host().is_empty());
        if !known || !host {
            return Err(HandlerError::new("`url` must be http://HOST[:PORT]/PATH or https://…"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(HandlerError::new("`url` must name no user and no password: use `auth`"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &target.headers {
            let failed = |why: &str| HandlerError::new(format_args!("`headers`: {name}: {why}"));
            let header: HeaderName = name.parse().map_err(|_| failed("is no name of a header"))?;
            let ours = OURS.contains(&header.as_str()) || header.as_str().starts_with("duragram-");
            if ours || (header == AUTHORIZATION && target.auth.is_some()) {
                return Err(failed("is set by the sink itself (see `content_type`, `gzip`, `auth`)"));
            }
            headers.append(header, value.parse().map_err(|_| failed("has a value that no header can carry"))?);
        }
        let content_type = match target.mode {
            HttpMode::Record => target.content_type.as_str(),
            HttpMode::Batch => LINES,
        };
        let content_type: HeaderValue = content_type
            .parse()
            .map_err(|_| HandlerError::new("`content_type` has a value that no header can carry"))?;
        headers.insert(CONTENT_TYPE, content_type);
        Ok(Self { uri, headers, journal, gzip: target.gzip })
    }

    /// Returns scheme, host and port, and no path: it may be shown to anyone.
    pub(super) fn origin(&self) -> String {
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}", self.uri.scheme_str().unwrap_or("http"))
    }

    /// A record's own request. The body of one that tells of a gap is empty.
    pub(super) fn record<'a>(&self, record: &Record<'a>) -> io::Result<(Builder, Cow<'a, [u8]>)> {
        let (gap, payload) = match record.content {
            Content::Payload(payload) => (None, payload),
            Content::Gap { from, to } => (Some(format!("{}-{}", from.0, to.0)), &[][..]),
        };
        let request = self
            .request(payload)
            .header("Duragram-Offset", format!("{}-{}", record.offset.0, record.index))
            .header("Duragram-Client", record.session.client.to_string())
            .header("Duragram-Epoch", record.session.epoch.value())
            .header("Duragram-Seq", record.seq.0)
            .header("Duragram-Channel", record.channel)
            .header("Idempotency-Key", quoted(&RecordName::of(self.journal, record).to_string()));
        let request = match gap {
            Some(gap) => request.header("Duragram-Gap", gap),
            None => request,
        };
        let request = if record.asks { request.header("Duragram-Ask", "1") } else { request };
        Ok((request, self.encode(payload)?))
    }

    /// The request of a batch with this key.
    pub(super) fn batch<'a>(&self, key: &str, lines: &'a [u8]) -> io::Result<(Builder, Cow<'a, [u8]>)> {
        Ok((self.request(lines).header("Idempotency-Key", quoted(key)), self.encode(lines)?))
    }

    /// What names a batch: its first and its last record, and a checksum of all their names, since what lies between may be missing
    /// when some of them were answered alone. So equal keys mean equal records, whose lines are the same.
    pub(super) fn key(&self, records: &[Record<'_>]) -> String {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return String::new() };
        let mut names = crc32fast::Hasher::new();
        for record in records {
            names.update(&record.offset.0.to_le_bytes());
            names.update(&record.index.to_le_bytes());
        }
        let first = RecordName::of(self.journal, first);
        format!("{first}..{}-{}-{:08x}", last.offset.0, last.index, names.finalize())
    }

    fn request(&self, body: &[u8]) -> Builder {
        let mut request = Request::post(self.uri.clone()).header("Duragram-Journal", self.journal.to_string());
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        if self.gzip && !body.is_empty() { request.header(CONTENT_ENCODING, "gzip") } else { request }
    }

    fn encode<'a>(&self, body: &'a [u8]) -> io::Result<Cow<'a, [u8]>> {
        if !self.gzip || body.is_empty() {
            return Ok(Cow::Borrowed(body));
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
        encoder.write_all(body)?;
        Ok(Cow::Owned(encoder.finish()?))
    }
}

/// A string of RFC 9651, which the draft of the header asks for (draft-ietf-httpapi-idempotency-key-header-07, section 2.1). Servers
/// that know nothing of that compare whole values, with which the quotes do no harm.
fn quoted(key: &str) -> String {
    format!("\"{key}\"")
}
