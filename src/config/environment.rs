//! Which variables of the environment are settings of ours, and which only begin like them.
//!
//! Orchestrators put variables into a container for every service beside it: for one called `duragram-admin`, Kubernetes
//! makes DURAGRAM_ADMIN_PORT, DURAGRAM_ADMIN_SERVICE_HOST and more; Dockerfiles set DURAGRAM_VERSION. What is certainly ours
//! is the exact name of a key. The rest is none of our business and stops nothing, but is reported, since a misspelt name is
//! among them.

use std::ffi::{OsStr, OsString};

use super::keys::PREFIX;
use super::nearest::nearest;
use super::{KEYS, Key};

/// Variables with the prefix that the command line itself reads.
const OTHER_VARIABLES: &[&str] = &["DURAGRAM_CONFIG", "DURAGRAM_SERVER", "DURAGRAM_KEY_FILE"];

/// The one that would hide damage forever, and so is refused (see [`super::Config::accept_loss`]).
pub(super) const ACCEPT_LOSS: &str = "DURAGRAM_ACCEPT_LOSS";

/// Whether a variable counts as set: an empty one does not, nor one of blanks alone.
pub(crate) fn is_set(value: &OsStr) -> bool {
    value.to_str().is_none_or(|value| !value.trim().is_empty())
}

/// The variable's value, if it is set.
pub(crate) fn value_of(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| is_set(value))
}

/// The key whose variable this is.
pub(super) fn key_of(variable: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.variable() == variable)
}

/// A line that names the variables which begin like ours and are none, if there are any.
pub(super) fn strangers(environment: &[(OsString, OsString)]) -> Option<String> {
    let known: Vec<String> = KEYS.iter().map(|key| short(&key.variable()).to_owned()).collect();
    let mut names: Vec<String> = environment
        .iter()
        .filter_map(|(name, value)| name.to_str().filter(|name| name.starts_with(PREFIX) && is_set(value)))
        .filter(|name| !OTHER_VARIABLES.contains(name) && *name != ACCEPT_LOSS && key_of(name).is_none())
        .map(|name| match nearest(short(name), &known) {
            Some(near) if !is_service_link(short(name)) => format!("{name} (did you mean {PREFIX}{near}?)"),
            _ => name.to_owned(),
        })
        .collect();
    names.sort_unstable();
    match names.len() {
        0 => None,
        1 => Some(format!("a variable that is no setting of duragram is ignored: {}", names[0])),
        _ => Some(format!("variables that are no settings of duragram are ignored: {}", names.join(", "))),
    }
}

fn short(variable: &str) -> &str {
    variable.strip_prefix(PREFIX).unwrap_or(variable)
}

/// Whether Kubernetes or Docker makes such a name, after the prefix, for a service or a linked container: then it is no
/// misspelling.
fn is_service_link(name: &str) -> bool {
    let ends = |end: &str| name == end || name.strip_suffix(end).is_some_and(|rest| rest.ends_with('_'));
    let numbered_port = name.split("PORT_").skip(1).any(|rest| {
        let (number, protocol) = rest.split_once('_').unwrap_or((rest, ""));
        let protocol = protocol.split('_').next().unwrap_or_default();
        number.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].contains(&protocol)
    });
    let contains = |part: &str| name.starts_with(part) || name.contains(&format!("_{part}"));
    ["PORT", "SERVICE_HOST", "SERVICE_PORT", "NAME"].into_iter().any(ends)
        || numbered_port
        || contains("SERVICE_PORT_")
        || contains("ENV_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(names: &[&str]) -> String {
        let environment: Vec<_> = names.iter().map(|name| (OsString::from(name), OsString::from("1"))).collect();
        strangers(&environment).unwrap_or_default()
    }

    #[test]
    fn no_key_has_a_name_that_an_orchestrator_makes() {
        for key in KEYS {
            assert!(!is_service_link(short(&key.variable())), "{}", key.name);
        }
    }

    #[test]
    fn names_that_orchestrators_make_are_reported_without_a_guess() {
        for name in [
            "DURAGRAM_PORT",
            "DURAGRAM_SERVICE_HOST",
            "DURAGRAM_SERVICE_PORT",
            "DURAGRAM_SERVICE_PORT_UDP",
            "DURAGRAM_PORT_7117_UDP",
            "DURAGRAM_PORT_7117_UDP_ADDR",
            "DURAGRAM_PORT_7117_UDP_PROTO",
            "DURAGRAM_ADMIN_PORT",
            "DURAGRAM_ADMIN_SERVICE_HOST",
            "DURAGRAM_ADMIN_SERVICE_PORT_HTTP",
            "DURAGRAM_UDP_PORT_7117_UDP_PORT",
            "DURAGRAM_LISTEN_PORT",
            "DURAGRAM_NAME",
            "DURAGRAM_ENV_PATH",
        ] {
            assert_eq!(reported(&[name]), format!("a variable that is no setting of duragram is ignored: {name}"));
        }
    }

    #[test]
    fn a_misspelt_setting_is_reported_with_the_one_that_is_meant_and_all_in_one_line() {
        assert_eq!(
            reported(&[
                "DURAGRAM_WINDOWS",
                "DURAGRAM_CHANELS",
                "DURAGRAM_VERSION",
                "DURAGRAM_DATA",
                "DURAGRAM_SERVER",
                "PATH"
            ]),
            "variables that are no settings of duragram are ignored: DURAGRAM_CHANELS (did you mean DURAGRAM_CHANNELS?), \
             DURAGRAM_VERSION, DURAGRAM_WINDOWS (did you mean DURAGRAM_WINDOW?)"
        );
        assert_eq!(reported(&["DURAGRAM_DATA", "DURAGRAMMAR", "DURAGRAM_ACCEPT_LOSS"]), "");
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        assert!(!is_set(OsStr::new("")) && !is_set(OsStr::new(" \t")) && is_set(OsStr::new("0")));
        let empty = [(OsString::from("DURAGRAM_VERSION"), OsString::new())];
        assert_eq!(strangers(&empty), None);
    }
}
