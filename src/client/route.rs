//! From the server's name to a socket towards one of its addresses.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{UdpSocket, lookup_host};

use super::ConnectError;

/// The server's name and which of its addresses is in use.
#[derive(Debug)]
pub(super) struct Route {
    server: String,
    addresses: Vec<SocketAddr>,
    chosen: usize,
}

impl Route {
    /// Resolves the name and opens a socket towards the first address that has one.
    pub(super) async fn open(server: String) -> Result<(Self, UdpSocket), ConnectError> {
        let addresses = match resolve(&server).await {
            Ok(addresses) => addresses,
            Err(source) => return Err(ConnectError::Resolve { server, source }),
        };
        let mut failure = None;
        for (chosen, &address) in addresses.iter().enumerate() {
            match socket_to(address).await {
                Ok(socket) => return Ok((Self { server, addresses, chosen }, socket)),
                // The first address is the preferred one, so its failure is the one to tell.
                Err(source) => _ = failure.get_or_insert(ConnectError::Socket { server: address, source }),
            }
        }
        let nowhere = || ConnectError::Resolve { server, source: io::ErrorKind::NotFound.into() };
        Err(failure.unwrap_or_else(nowhere))
    }

    /// From now on the name is this one.
    pub(super) fn set_server(&mut self, server: String) {
        self.server = server;
        self.addresses.clear();
        self.chosen = 0;
    }

    /// Resolves the name anew and opens a socket towards the address after the one in use (towards the same, if it is
    /// the only one). Tells whether the address is another one. On error the route is as it was.
    pub(super) async fn next(&mut self) -> io::Result<(UdpSocket, bool)> {
        let before = self.address();
        // A resolver that is away (the network is down) is no reason to forget what is known.
        let addresses = match resolve(&self.server).await {
            Ok(addresses) => addresses,
            Err(error) if self.addresses.is_empty() => return Err(error),
            Err(_) => self.addresses.clone(),
        };
        let start = before.and_then(|address| addresses.iter().position(|&a| a == address)).map_or(0, |at| at + 1);
        let mut failure = io::ErrorKind::NotFound.into();
        for step in 0..addresses.len() {
            let chosen = (start + step) % addresses.len();
            match socket_to(addresses[chosen]).await {
                Ok(socket) => {
                    (self.addresses, self.chosen) = (addresses, chosen);
                    return Ok((socket, self.address() != before));
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The address in use.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.addresses.get(self.chosen).copied()
    }

    pub(super) fn has_alternatives(&self) -> bool {
        self.addresses.len() > 1
    }
}

async fn resolve(server: &str) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = lookup_host(server).await?.collect();
    if addresses.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(addresses) }
}

/// A connected socket: the kernel drops what comes from elsewhere, and tells when nobody listens there.
async fn socket_to(server: SocketAddr) -> io::Result<UdpSocket> {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    Ok(socket)
}
