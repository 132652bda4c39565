//! What a server answered, as far as it is read.

use zeroize::Zeroizing;

use crate::limits;

/// An answer to a request.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) content_type: Option<String>,
    pub(super) retry_after: Option<String>,
    /// The server's own time: what it means by a date is measured from there.
    pub(super) date: Option<String>,
    pub(super) location: Option<String>,
    /// No more than what was asked for.
    pub(super) body: Vec<u8>,
    /// There is no more of it.
    pub(super) complete: bool,
}

/// What no error may show, even when the server repeats it: that which follows the scheme in `Authorization`.
#[derive(Default)]
pub(super) struct Hidden(Vec<Zeroizing<String>>);

impl Hidden {
    pub(super) fn new(secrets: impl IntoIterator<Item = Zeroizing<String>>) -> Self {
        Self(secrets.into_iter().filter(|secret| !secret.is_empty()).collect())
    }

    /// The start of a text that came from a server: what can be printed of it, on one line, without the secrets.
    pub(super) fn printable(&self, text: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(text).into_owned();
        for secret in &self.0 {
            text = text.replace(secret.as_str(), "***");
        }
        let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
        let line = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        line.chars().take(limits::HTTP_SAID_CHARS).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_said_is_shown_on_one_line_up_to_200_characters() {
        let hidden = Hidden::default();
        assert_eq!(hidden.printable(b"  no\r\nroom\x1b[31m left\0 \xff"), "no room [31m left \u{fffd}");
        assert_eq!(hidden.printable(&[b'x'; 10_000]).len(), 200);
        assert_eq!(hidden.printable(&"é".repeat(300).into_bytes()), "é".repeat(200));
    }

    #[test]
    fn a_secret_that_a_server_repeats_is_not_shown() {
        let hidden = Hidden::new([Zeroizing::new("s3cret".to_owned()), Zeroizing::new(String::new())]);
        assert_eq!(hidden.printable(b"token s3cret: s3cret is unknown"), "token ***: *** is unknown");
        // Not even its beginning, where the text is cut.
        let long = format!("{}s3cret", "x".repeat(197));
        assert_eq!(hidden.printable(long.as_bytes()), format!("{}***", "x".repeat(197)));
    }
}
