//! Addresses as people write them: `IP:PORT` to listen on, `HOST:PORT` to send to, IPv6 in brackets, with an interface where
//! the address is link-local (`[fe80::1%eth0]:7117`, RFC 4007 §11).
//!
//! The standard library reads an interface's number after the `%`, not its name; here both are understood. What can never be
//! an address is told apart from a name that only does not resolve now.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs as _};

/// The longest name of a host (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;
/// The longest part of a host's name between two dots.
const LABEL_BYTES_MAX: usize = 63;
/// The longest name of a network interface on Linux (IFNAMSIZ, less its final 0).
const INTERFACE_BYTES_MAX: usize = 15;

/// Reads `IP:PORT`. The error says what is wrong, and how to write it where that can be guessed.
pub fn literal(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong =
        || format!("{text:?} is no address; write IP:PORT, such as 127.0.0.1:7117, [::1]:7117 or [fe80::1%eth0]:7117");
    let (host, port) = split(text)?;
    let host = ip(host)?.ok_or_else(wrong)?;
    let port = port.ok_or_else(|| format!("{text:?} lacks its port: write {}", host.with_port("PORT")))?;
    Ok(host.at(port.parse().map_err(|_| format!("{port:?} is no port: it is a number from 0 to 65535"))?))
}

/// Where a server is: a host, by address or name, and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerName {
    host: Host,
    port: u16,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Host {
    Ip(Ip),
    Name(String),
}

/// An address without its port; `scope` is 0 but for a link-local address with an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ip {
    ip: IpAddr,
    scope: u32,
}

impl ServerName {
    /// Reads `HOST:PORT`, or `HOST` alone with the port that is usual. An error is for good: no resolver will ever know it.
    pub fn parse(text: &str, usual_port: u16) -> Result<Self, String> {
        let (host, port) = split(text)?;
        let port = match port {
            None => usual_port,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| format!("{text:?}: {port:?} is no port: it is a number from 1 to 65535"))?,
        };
        let host = match ip(host)? {
            Some(ip) => Host::Ip(ip),
            None => Host::Name(name(host).map_err(|problem| format!("{text:?} is no HOST:PORT: {problem}"))?),
        };
        Ok(Self { host, port })
    }

    /// Its address, where it has one and no name.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.host {
            Host::Ip(ip) => Some(ip.at(self.port)),
            Host::Name(_) => None,
        }
    }

    /// Its addresses now. Blocks while a resolver is asked.
    ///
    /// # Errors
    /// What the resolver said; it may say something else later.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Host::Ip(ip) => Ok(vec![ip.at(self.port)]),
            Host::Name(name) => {
                let addresses: Vec<SocketAddr> = (name.as_str(), self.port).to_socket_addrs()?.collect();
                if addresses.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(addresses) }
            }
        }
    }
}

impl Ip {
    fn at(self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(ip) => (ip, port).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.scope).into(),
        }
    }

    fn with_port(self, port: impl fmt::Display) -> String {
        match self.ip {
            IpAddr::V4(ip) => format!("{ip}:{port}"),
            IpAddr::V6(ip) if self.scope == 0 => format!("[{ip}]:{port}"),
            IpAddr::V6(ip) => format!("[{ip}%{}]:{port}", self.scope),
        }
    }
}

/// Host, without its brackets, and port, if there is one.
fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(format!("{text:?} is no address: write {:?}, without {scheme}://", rest.trim_end_matches('/')));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| format!("{text:?} lacks its closing bracket"))?;
        if !host.contains(':') {
            return Err(format!("{text:?}: only an IPv6 address stands in brackets"));
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(format!("{text:?}: a colon and the port follow the bracket")),
        };
    }
    match text.split_once(':') {
        // Whether its last group is a port cannot be known.
        Some((_, rest)) if rest.contains(':') => {
            let guess = match text.rsplit_once(':') {
                Some((host, port)) if is_ipv6(host) && !is_ipv6(text) => format!("[{host}]:{port}"),
                Some((host, port)) if is_ipv6(host) => format!("[{text}]:PORT or [{host}]:{port}"),
                _ if is_ipv6(text) => format!("[{text}]:PORT"),
                _ => "[::1]:PORT".to_owned(),
            };
            Err(format!("{text:?} has several colons: an IPv6 address stands in brackets, {guess}"))
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

fn is_ipv6(text: &str) -> bool {
    text.split_once('%').map_or(text, |(ip, _)| ip).parse::<Ipv6Addr>().is_ok()
}

/// An address, perhaps with its interface; `None` for what is none, such as a name.
fn ip(host: &str) -> Result<Option<Ip>, String> {
    if let Some((ip, interface)) = host.split_once('%') {
        let ip: Ipv6Addr =
            ip.parse().map_err(|_| format!("{host:?}: only an IPv6 address has an interface after a %"))?;
        return Ok(Some(Ip { ip: ip.into(), scope: scope(interface)? }));
    }
    if host.contains(':') {
        let ip: Ipv6Addr = host.parse().map_err(|_| format!("{host:?} is no IPv6 address"))?;
        return Ok(Some(Ip { ip: ip.into(), scope: 0 }));
    }
    Ok(host.parse().ok().map(|ip| Ip { ip: IpAddr::V4(ip), scope: 0 }))
}

/// The number of an interface that is named or numbered.
fn scope(interface: &str) -> Result<u32, String> {
    if let Ok(number) = interface.parse() {
        return Ok(number);
    }
    let is_name = !interface.is_empty()
        && interface.len() <= INTERFACE_BYTES_MAX
        && interface.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'%' | b':'));
    // The system's resolver knows interfaces by their names after a link-local address.
    let found = is_name.then(|| (format!("fe80::1%{interface}").as_str(), 0).to_socket_addrs().ok()).flatten();
    match found.and_then(|mut addresses| addresses.next()) {
        Some(SocketAddr::V6(address)) if address.scope_id() != 0 => Ok(address.scope_id()),
        _ => Err(format!("this machine has no network interface {interface:?} (`ip link` lists them)")),
    }
}

/// A name that some resolver may know.
fn name(host: &str) -> Result<String, &'static str> {
    let relative = host.strip_suffix('.').unwrap_or(host);
    if relative.is_empty() {
        return Err("it names no host");
    }
    if host.len() > HOST_BYTES_MAX || relative.split('.').any(|label| label.len() > LABEL_BYTES_MAX) {
        return Err("the host's name is too long");
    }
    if relative.split('.').any(str::is_empty) {
        return Err("the host's name has an empty part");
    }
    if let Some(strange) = host.chars().find(|c| !c.is_alphanumeric() && !matches!(c, '-' | '_' | '.')) {
        return Err(if strange.is_whitespace() {
            "a host's name has no blanks"
        } else {
            "a host's name has letters, digits, hyphens and dots alone"
        });
    }
    let numbers = relative.split('.').filter(|label| label.bytes().all(|byte| byte.is_ascii_digit())).count();
    if numbers == 4 && relative.split('.').count() == 4 {
        return Err("it is no IPv4 address");
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loopback interface is there on every machine, under a name that differs.
    fn loopback_interface() -> (String, u32) {
        let names = std::fs::read_dir("/sys/class/net").expect("Linux").map(|entry| entry.unwrap().file_name());
        let name = names.map(|name| name.into_string().unwrap()).find(|name| name.starts_with("lo")).expect("loopback");
        let index = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).unwrap();
        (name, index.trim().parse().unwrap())
    }

    fn one(text: &str) -> SocketAddr {
        let name = ServerName::parse(text, 7117).unwrap_or_else(|problem| panic!("{problem}"));
        name.resolve().unwrap()[0]
    }

    #[test]
    fn an_interface_is_known_by_name_and_by_number_for_listening_and_as_a_servers() {
        let (name, index) = loopback_interface();
        for zone in [name.clone(), index.to_string()] {
            let text = format!("[fe80::1%{zone}]:7117");
            for address in [literal(&text).unwrap(), one(&text)] {
                let SocketAddr::V6(address) = address else { panic!("{address}") };
                assert_eq!((address.scope_id(), address.port()), (index, 7117));
                assert_eq!(address.ip().to_string(), "fe80::1");
            }
        }
        let shown = literal(&format!("[fe80::1%{name}]:7117")).unwrap().to_string();
        assert_eq!(literal(&shown).unwrap().to_string(), shown, "as it is shown it can be written");
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        for (text, named) in [
            ("[fe80::1%none7]:7117", "\"none7\""),
            ("[fe80::1%]:7117", "\"\""),
            ("[fe80::1%a/b]:1", "\"a/b\""),
            ("[fe80::1%a-name-much-too-long]:1", "a-name-much-too-long"),
        ] {
            for problem in [literal(text).unwrap_err(), ServerName::parse(text, 1).unwrap_err()] {
                assert!(problem.contains("no network interface") && problem.contains(named), "{problem}");
            }
        }
        assert!(literal("127.0.0.1%lo:7117").unwrap_err().contains("only an IPv6 address"));
    }

    #[test]
    fn a_server_is_an_address_or_a_name_with_or_without_its_port() {
        for (text, address) in [
            ("127.0.0.1:9", "127.0.0.1:9"),
            ("127.0.0.1", "127.0.0.1:7117"),
            ("[::1]:9", "[::1]:9"),
            ("[::1]", "[::1]:7117"),
            ("[::ffff:127.0.0.1]:9", "[::ffff:127.0.0.1]:9"),
        ] {
            assert_eq!(one(text).to_string(), address, "{text}");
        }
        assert!(one("localhost:9").ip().is_loopback());
        assert!(one("localhost").ip().is_loopback());
        for name in
            ["ingest.example.org.:7117", "a_b:1", "xn--bcher-kva.example:1", "bücher.example:1", "7:1", "127.1:1"]
        {
            ServerName::parse(name, 1).unwrap_or_else(|problem| panic!("{problem}"));
        }
    }

    #[test]
    fn what_can_never_be_a_server_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "names no host"),
            (":7117", "names no host"),
            ("no port in this", "no blanks"),
            ("http://host:7117/", "write \"host:7117\", without http://"),
            ("host/path:7117", "letters, digits"),
            ("a..b:7117", "empty part"),
            ("host:0", "from 1 to 65535"),
            ("host:65536", "from 1 to 65535"),
            ("host:", "from 1 to 65535"),
            ("host:http", "from 1 to 65535"),
            ("256.0.0.1:7117", "no IPv4 address"),
            ("[::1:7117", "closing bracket"),
            ("[::1]7117", "follow the bracket"),
            ("[host]:7117", "only an IPv6 address stands in brackets"),
            ("[::g]:7117", "no IPv6 address"),
            ("::1", "[::1]:PORT"),
            ("::1:7117", "[::1:7117]:PORT or [::1]:7117"),
            ("fe80::1%eth0", "[fe80::1%eth0]:PORT"),
        ] {
            let problem = ServerName::parse(text, 1).expect_err(text);
            assert!(problem.contains(reason), "{text:?}: {problem}");
        }
        let long = format!("{}.example:1", "a".repeat(64));
        assert!(ServerName::parse(&long, 1).unwrap_err().contains("too long"));
    }

    #[test]
    fn an_address_to_listen_on_is_no_name_and_has_a_port() {
        assert!(literal("localhost:7117").unwrap_err().contains("\"localhost:7117\" is no address; write IP:PORT"));
        assert!(literal("::1").unwrap_err().contains("[::1]:PORT"));
        assert!(literal("[::1]").unwrap_err().contains("lacks its port: write [::1]:PORT"));
        assert!(literal("10.0.0.1").unwrap_err().contains("lacks its port: write 10.0.0.1:PORT"));
        assert!(literal("10.0.0.1:70000").unwrap_err().contains("no port"));
        assert_eq!(literal("0.0.0.0:0").unwrap().port(), 0);
    }
}
