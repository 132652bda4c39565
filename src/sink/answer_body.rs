//! What a child or a server says to who has asked: text, or base64 where it is none.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Reads the keys `answer` and `answer_base64` of what is said of a record; `None` where neither is there.
///
/// # Errors
/// Both are there, or the second holds no base64.
pub(super) fn read<'a>(
    answer: Option<Cow<'a, str>>,
    answer_base64: Option<Cow<'a, str>>,
) -> Result<Option<Cow<'a, [u8]>>, String> {
    Ok(match (answer, answer_base64) {
        (Some(_), Some(_)) => return Err("\"answer\" and \"answer_base64\" exclude each other".into()),
        (Some(Cow::Borrowed(text)), None) => Some(Cow::Borrowed(text.as_bytes())),
        (Some(Cow::Owned(text)), None) => Some(Cow::Owned(text.into_bytes())),
        (None, Some(text)) => {
            let bytes =
                STANDARD.decode(text.as_bytes()).map_err(|error| format!("\"answer_base64\" is no base64: {error}"))?;
            Some(Cow::Owned(bytes))
        }
        (None, None) => None,
    })
}
