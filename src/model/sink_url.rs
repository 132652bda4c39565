//! The parts of a sink's URL, of which none is ever shown: who writes a password into one, against the rules, shall not find it
//! in a log.

/// A URL in its parts, none of them decoded.
#[derive(Clone, Copy)]
pub(crate) struct SinkUrl<'a> {
    /// This stands before `://`, and says which sink it is.
    pub(crate) scheme: &'a str,
    /// The user's name stands before `@`; `None` where there is none.
    pub(crate) user: Option<&'a str>,
    /// A password stands in it, which is refused everywhere.
    pub(crate) has_password: bool,
    /// `HOST[:PORT]`, several separated by commas.
    pub(crate) hosts: &'a str,
    /// What follows the slash after the hosts.
    pub(crate) path: &'a str,
    query: &'a str,
}

impl<'a> SinkUrl<'a> {
    /// The parts of a URL; `None` for what has no scheme, no host, or a port that is no number.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let (user, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
            Some((user, password)) => (Some(user).filter(|user| !user.is_empty()), password),
            None => (None, ""),
        };
        let mut url = Self { scheme, user, has_password: !password.is_empty(), hosts, path, query };
        url.has_password |= url.parameters().any(|(name, _)| matches!(name.as_str(), "password" | "passwd" | "pass"));
        let written = text.chars().all(|c| !c.is_whitespace() && !c.is_control());
        (written && hosts.split(',').all(is_host)).then_some(url)
    }

    /// The parameters after the question mark, decoded.
    pub(crate) fn parameters(self) -> impl Iterator<Item = (String, String)> + use<'a> {
        self.query.split('&').filter(|part| !part.is_empty()).map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decoded(name), decoded(value))
        })
    }
}

/// Whether a text is a host's name or address, with a port or without.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    !host.is_empty() && !host.contains('@') && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

/// What a part of a URL stands for: `%2F` is a slash. What is no such escape stays as it is.
pub(crate) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escape = after.get(..2).filter(|_| first == b'%').and_then(|digits| str::from_utf8(digits).ok());
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_its_parts_and_several_hosts() {
        let url = SinkUrl::parse("postgres://ingest@db1:5433,[::1]:5432,db3/app?a=1&b=x%2Fy&c").unwrap();
        assert_eq!((url.scheme, url.user, url.path), ("postgres", Some("ingest"), "app"));
        assert_eq!((url.hosts, url.has_password), ("db1:5433,[::1]:5432,db3", false));
        let parameters: Vec<_> = url.parameters().collect();
        assert_eq!(parameters, [("a", "1"), ("b", "x/y"), ("c", "")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_password_is_seen_wherever_it_stands() {
        for text in ["a://u:p@h", "a://:p@h", "a://h/db?password=p", "a://u:a@b@h/x"] {
            assert!(SinkUrl::parse(text).unwrap().has_password, "{text}");
        }
        for text in ["a://u@h", "a://u:@h", "a://h/db?password_file=p"] {
            assert!(!SinkUrl::parse(text).unwrap().has_password, "{text}");
        }
    }

    #[test]
    fn what_names_no_host_is_no_url() {
        for text in
            ["", "h", "a://", "a:///x", "a://h:port", "a://h:0", "a://h1,,h2", "a://[::1", "a://u:p/w@h/x", "a://h x"]
        {
            assert!(SinkUrl::parse(text).is_none(), "{text}");
        }
    }
}
