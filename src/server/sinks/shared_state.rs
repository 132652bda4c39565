//! What a lane's mark says of one sink in a journal of format 3 or older, in which all sinks went on together as lanes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The state of the sink of this name, out of that of all: a JSON object of base64 by name. `None` when it is in none, or the state
/// is something else: that of a handler that a program had embedded.
pub(super) fn state_of(name: &str, shared: &[u8]) -> Option<Vec<u8>> {
    let states: BTreeMap<String, String> = serde_json::from_slice(shared).ok()?;
    STANDARD.decode(states.get(name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sinks_state_is_found_under_its_name_and_nothing_in_what_is_none() {
        let shared = br#"{"a":"/wBh","b":"Yg==","c":"no base64"}"#;
        assert_eq!(state_of("a", shared), Some(b"\xff\0a".to_vec()));
        assert_eq!(state_of("b", shared), Some(b"b".to_vec()));
        for (name, state) in [("c", &shared[..]), ("d", shared), ("a", b"garbage"), ("a", b""), ("a", br#"{"a":1}"#)] {
            assert_eq!(state_of(name, state), None, "{name}");
        }
    }
}
