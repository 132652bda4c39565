//! Where a broker is: what a URL says, and the sockets' addresses behind a name.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::thread;
use std::time::Duration;

use crossbeam_channel::bounded;

/// A broker as its URL names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Address {
    pub(super) host: String,
    port: u16,
    pub(super) is_encrypted: bool,
}

impl Address {
    /// Reads `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`.
    ///
    /// # Errors
    /// It is something else. A text that may hold a password is not repeated.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let expected = "url: mqtt://HOST[:PORT] or mqtts://HOST[:PORT] is expected";
        let (is_encrypted, authority) = match (url.strip_prefix("mqtt://"), url.strip_prefix("mqtts://")) {
            (Some(authority), _) => (false, authority),
            (_, Some(authority)) => (true, authority),
            _ => return Err(expected.to_owned()),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains('@') {
            return Err("url: user and password have keys of their own (user, password)".to_owned());
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or(expected)?)),
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
            return Err(expected.to_owned());
        }
        let port = match port {
            Some(port) => {
                port.parse().ok().filter(|&port| port != 0).ok_or("url: the port is no number from 1 to 65535")?
            }
            None => {
                if is_encrypted {
                    8883
                } else {
                    1883
                }
            }
        };
        Ok(Self { host: host.to_owned(), port, is_encrypted })
    }

    /// Asks for the addresses, no longer than `timeout`.
    ///
    /// # Errors
    /// There are none, or nobody says so in time.
    pub(super) fn resolve(&self, timeout: Duration) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        // The system's resolver has no timeout that a caller can set; the thread ends with the resolver's own.
        let (found, answer) = bounded(1);
        let target = (self.host.clone(), self.port);
        let ask = move || {
            let _nobody_waits = found.send(target.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
        };
        let failed = |error: &dyn std::fmt::Display| format!("the name {} cannot be resolved: {error}", self.host);
        thread::Builder::new().name("resolve".to_owned()).spawn(ask).map_err(|error| failed(&error))?;
        match answer.recv_timeout(timeout) {
            Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            Ok(Ok(_)) => Err(failed(&"it has no address")),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&format_args!("no answer within {timeout:?}"))),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_named_by_scheme_host_and_port() {
        for (url, host, port, is_encrypted) in [
            ("mqtt://broker", "broker", 1883, false),
            ("mqtts://broker/", "broker", 8883, true),
            ("mqtt://10.0.0.1:99", "10.0.0.1", 99, false),
            ("mqtts://[::1]:99", "::1", 99, true),
            ("mqtt://[fe80::1]", "fe80::1", 1883, false),
        ] {
            assert_eq!(Address::parse(url), Ok(Address { host: host.into(), port, is_encrypted }), "{url}");
        }
    }

    #[test]
    fn another_url_is_refused_and_a_password_in_it_not_repeated() {
        for url in [
            "",
            "broker",
            "http://broker",
            "mqtt://",
            "mqtt://a/b",
            "mqtt://a:0",
            "mqtt://a:b",
            "mqtt://[::1",
            "mqtt://[::1]9",
        ] {
            assert!(Address::parse(url).is_err(), "{url}");
        }
        let error = Address::parse("mqtt://user:s3cret@broker").unwrap_err();
        assert!(error.contains("user, password") && !error.contains("s3cret"), "{error}");
    }
}
