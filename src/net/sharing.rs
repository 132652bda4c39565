//! Two servers on one port would each get a part of the datagrams, and each would keep sessions of its own: whatever the
//! sockets' options permit, the second one is refused.
//!
//! Sockets that the server binds itself see to that when they are bound ([`super::bind`]). Those that were bound by someone
//! else may share an address with others' sockets (SO_REUSEPORT, SO_REUSEADDR), or may be in two servers' hands at once.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::fstat;
use socket2::SockRef;

/// Makes sure that datagrams to these sockets, which someone else has bound, come to this process alone.
///
/// # Errors
/// Another process serves one of them, or has one of its own on the same address.
pub fn refuse_sharing(sockets: &[UdpSocket]) -> io::Result<()> {
    let mut own = Vec::new();
    for socket in sockets {
        claim(socket)?;
        own.push(fstat(socket)?.st_ino);
    }
    // Best effort: where `/proc` cannot be read nothing is known of others.
    let others = [("udp", false), ("udp6", true)].into_iter().flat_map(|(file, v6)| {
        let text = fs::read_to_string(format!("/proc/self/net/{file}")).unwrap_or_default();
        parse(&text, v6)
    });
    let others: Vec<_> = others.filter(|other| !own.contains(&other.inode)).collect();
    for socket in sockets {
        let address = socket.local_addr()?;
        // Others may serve the same address on other devices.
        let on_device = getsockopt(socket, sockopt::BindToDevice).is_ok_and(|device| !device.is_empty());
        let both = address.is_ipv6() && !SockRef::from(socket).only_v6().unwrap_or(true);
        if let Some(other) = others.iter().find(|other| !on_device && overlap(&address, both, &other.address)) {
            return Err(in_use(format!(
                "another socket is bound to {}, by a program of user {}, and would get a part of the datagrams; end that \
                 program",
                other.address, other.user
            )));
        }
    }
    Ok(())
}

/// A lock on the socket itself, which the kernel takes back when this process ends: an answer to whether another process
/// that was given the same socket serves it. Closing any descriptor of the socket would give it up; the server closes none
/// before it ends.
fn claim(socket: &UdpSocket) -> io::Result<()> {
    let lock = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(socket.as_fd(), FcntlArg::F_SETLK(&lock)) {
        Err(Errno::EAGAIN | Errno::EACCES) => Err(in_use(
            "another server serves this very socket, and each of the two would get a part of the datagrams; stop it"
                .into(),
        )),
        // A kernel that does not lock sockets tells nothing.
        _ => Ok(()),
    }
}

fn in_use(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, problem)
}

/// A line of `/proc/net/udp`: a socket that takes datagrams from anyone.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Bound {
    address: SocketAddr,
    user: u32,
    inode: u64,
}

fn parse(text: &str, v6: bool) -> Vec<Bound> {
    text.lines().skip(1).filter_map(|line| bound(line, v6)).collect()
}

fn bound(line: &str, v6: bool) -> Option<Bound> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let &[_, local, remote, _, _, _, _, user, _, inode, ..] = &fields[..] else { return None };
    // One that is connected takes from its peer only.
    if socket_address(remote, v6)?.port() != 0 {
        return None;
    }
    Some(Bound { address: socket_address(local, v6)?, user: user.parse().ok()?, inode: inode.parse().ok()? })
}

/// The bytes of an address are written as numbers of 32 bits in the machine's own order.
fn socket_address(text: &str, v6: bool) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = if v6 {
        let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
        Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()
    } else {
        word(0)?.into()
    };
    Some((ip, port).into())
}

/// Whether datagrams to `own`, which takes IPv4 and IPv6 if `both`, might go to another socket. One of IPv4 comes before one of
/// both.
fn overlap(own: &SocketAddr, both: bool, other: &SocketAddr) -> bool {
    let (own_ip, other_ip) = (own.ip().to_canonical(), other.ip().to_canonical());
    let same_family = own_ip.is_ipv4() == other_ip.is_ipv4() || both && other_ip.is_ipv4();
    own.port() == other.port()
        && same_family
        && (own_ip == other_ip || own_ip.is_unspecified() || other_ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_list_names_sockets_as_they_were_bound() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let socket = UdpSocket::bind(address).unwrap();
            let (address, inode) = (socket.local_addr().unwrap(), fstat(&socket).unwrap().st_ino);
            let file = if address.is_ipv6() { "udp6" } else { "udp" };
            let text = fs::read_to_string(format!("/proc/self/net/{file}")).unwrap();
            let found = parse(&text, address.is_ipv6()).into_iter().find(|bound| bound.inode == inode);
            assert_eq!(found.map(|bound| bound.address), Some(address), "{text}");
        }
    }

    #[test]
    fn one_that_is_connected_is_no_rival() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:9").unwrap();
        let inode = fstat(&socket).unwrap().st_ino;
        let text = fs::read_to_string("/proc/self/net/udp").unwrap();
        assert!(text.contains(&format!(" {inode} ")));
        assert!(parse(&text, false).iter().all(|bound| bound.inode != inode));
    }

    #[test]
    fn who_takes_whose_datagrams() {
        let taken = |own: &str, both, other: &str| super::overlap(&own.parse().unwrap(), both, &other.parse().unwrap());
        let overlap = |own: &str, other: &str| taken(own, false, other);
        assert!(overlap("0.0.0.0:5", "127.0.0.1:5") && overlap("[::1]:5", "[::]:5"));
        assert!(overlap("10.0.0.1:5", "[::ffff:10.0.0.1]:5"));
        assert!(!overlap("10.0.0.1:5", "10.0.0.2:5") && !overlap("10.0.0.1:5", "10.0.0.1:6"));
        assert!(!overlap("0.0.0.0:5", "[::]:5") && !overlap("[::]:5", "10.0.0.1:5"));
        assert!(taken("[::]:5", true, "0.0.0.0:5") && taken("[::]:5", true, "10.0.0.1:5"));
    }
}
