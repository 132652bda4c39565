//! Which of this machine's addresses a datagram was sent to, so that its answer leaves from there: a client that has
//! asked one address does not listen to another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};

use crate::model::Local;

/// As a message to the kernel says it.
#[derive(Clone, Copy)]
pub(super) enum Source {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl Local {
    /// What the kernel tells of an IPv4 datagram; `None` when that is no address to answer from.
    pub(super) fn from_v4(info: &in_pktinfo) -> Option<Self> {
        let chosen = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
        // Of what came before the option was switched on the kernel has only what the header says.
        let asked = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
        let ip = if chosen.is_unspecified() { asked } else { chosen };
        Self::v4(ip, u32::try_from(info.ipi_ifindex).unwrap_or(0))
    }

    /// What the kernel tells of a datagram on an IPv6 socket, which may have come by IPv4.
    pub(super) fn from_v6(info: &in6_pktinfo) -> Option<Self> {
        match IpAddr::from(info.ipi6_addr.s6_addr).to_canonical() {
            IpAddr::V4(ip) => Self::v4(ip, info.ipi6_ifindex),
            IpAddr::V6(ip) if ip.is_multicast() => {
                Some(Self { ip: Ipv6Addr::UNSPECIFIED.into(), interface: info.ipi6_ifindex })
            }
            IpAddr::V6(ip) if ip.is_unspecified() => None,
            IpAddr::V6(ip) => {
                let interface = if ip.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                Some(Self { ip: ip.into(), interface })
            }
        }
    }

    fn v4(ip: Ipv4Addr, interface: u32) -> Option<Self> {
        let none = ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast();
        let interface = if ip.is_link_local() && interface != LOOPBACK { interface } else { 0 };
        (!none).then_some(Self { ip: ip.into(), interface })
    }

    /// For an answer by a socket of IPv6 if `v6`, else of IPv4; `None` when that socket has no such address.
    pub(super) fn source(self, v6: bool) -> Option<Source> {
        match (self.ip, v6) {
            (IpAddr::V4(ip), false) => Some(Source::V4(in_pktinfo {
                ipi_ifindex: i32::try_from(self.interface).unwrap_or(0),
                ipi_spec_dst: in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                ipi_addr: in_addr { s_addr: 0 },
            })),
            (IpAddr::V4(ip), true) => Some(self.v6_source(ip.to_ipv6_mapped())),
            (IpAddr::V6(ip), true) => Some(self.v6_source(ip)),
            (IpAddr::V6(_), false) => None,
        }
    }

    fn v6_source(self, ip: Ipv6Addr) -> Source {
        Source::V6(in6_pktinfo { ipi6_addr: in6_addr { s6_addr: ip.octets() }, ipi6_ifindex: self.interface })
    }
}

/// The loopback interface's index, by which everything comes that this machine sends to itself. No address of a link is
/// reached through it.
const LOOPBACK: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(chosen: &str, asked: &str, interface: i32) -> in_pktinfo {
        let addr = |text: &str| in_addr { s_addr: u32::from_ne_bytes(text.parse::<Ipv4Addr>().unwrap().octets()) };
        in_pktinfo { ipi_ifindex: interface, ipi_spec_dst: addr(chosen), ipi_addr: addr(asked) }
    }

    fn v6(asked: &str, interface: u32) -> in6_pktinfo {
        in6_pktinfo {
            ipi6_addr: in6_addr { s6_addr: asked.parse::<Ipv6Addr>().unwrap().octets() },
            ipi6_ifindex: interface,
        }
    }

    fn local(ip: &str, interface: u32) -> Option<Local> {
        Some(Local { ip: ip.parse().unwrap(), interface })
    }

    #[test]
    fn the_address_that_was_asked_is_the_one_to_answer_from() {
        assert_eq!(Local::from_v4(&v4("10.0.0.5", "10.0.0.5", 3)), local("10.0.0.5", 0));
        assert_eq!(Local::from_v4(&v4("10.0.0.5", "10.0.0.255", 3)), local("10.0.0.5", 0), "of a broadcast");
        assert_eq!(Local::from_v4(&v4("0.0.0.0", "10.0.0.5", 0)), local("10.0.0.5", 0), "queued before the option");
        assert_eq!(Local::from_v4(&v4("0.0.0.0", "255.255.255.255", 0)), None);
        assert_eq!(Local::from_v4(&v4("0.0.0.0", "224.0.0.1", 0)), None);
        assert_eq!(Local::from_v6(&v6("2001:db8::5", 3)), local("2001:db8::5", 0));
        assert_eq!(Local::from_v6(&v6("::ffff:10.0.0.5", 3)), local("10.0.0.5", 0));
        assert_eq!(Local::from_v6(&v6("ff02::1", 3)), local("::", 3), "a group is no address to answer from");
    }

    #[test]
    fn an_address_of_the_link_is_answered_by_its_interface() {
        assert_eq!(Local::from_v6(&v6("fe80::1", 7)), local("fe80::1", 7));
        assert_eq!(Local::from_v4(&v4("169.254.1.1", "169.254.1.1", 7)), local("169.254.1.1", 7));
        assert_eq!(Local::from_v4(&v4("169.254.1.1", "169.254.1.1", 1)), local("169.254.1.1", 0), "this machine's own");
    }
}
