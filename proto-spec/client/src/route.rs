//! From the server's name to a socket towards one of its addresses.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

use crate::address::ServerName;

/// The port of a server whose name has none.
const USUAL_PORT: u16 = 7117;

/// The server's name and which of its addresses is in use.
#[derive(Debug)]
pub(super) struct Route {
    /// The name stands here as the caller gave it, for messages about it.
    server: String,
    name: Result<ServerName, String>,
    addresses: Vec<SocketAddr>,
    chosen: usize,
}

/// Why there is no way to the server now.
#[derive(Debug)]
pub(super) struct NoWay(pub(super) String);

impl Route {
    /// Resolves nothing yet: a name server may be slow.
    pub(super) fn new(server: String, name: ServerName) -> Self {
        Self { server, name: Ok(name), addresses: Vec::new(), chosen: 0 }
    }

    /// Reads a server's name. What is wrong then is wrong for good.
    pub(super) fn parse(server: &str) -> Result<ServerName, String> {
        ServerName::parse(server, USUAL_PORT)
    }

    /// From now on the name is this one.
    pub(super) fn set_server(&mut self, server: String) {
        self.name = Self::parse(&server);
        self.server = server;
        self.addresses.clear();
        self.chosen = 0;
    }

    /// Resolves the name anew and opens a socket towards the address after the one in use (towards the same, if it is
    /// the only one). Tells whether the address is another one. On error the route is as it was.
    pub(super) async fn next(&mut self) -> Result<(UdpSocket, bool), NoWay> {
        let before = self.address();
        // A resolver that is away (the network is down) is no reason to forget what is known.
        let addresses = match self.resolve().await {
            Ok(addresses) => addresses,
            Err(no_way) if self.addresses.is_empty() => return Err(no_way),
            Err(_) => self.addresses.clone(),
        };
        let start = before.and_then(|address| addresses.iter().position(|&a| a == address)).map_or(0, |at| at + 1);
        let mut failure = None;
        for step in 0..addresses.len() {
            let chosen = (start + step) % addresses.len();
            match socket_to(addresses[chosen]).await {
                Ok(socket) => {
                    (self.addresses, self.chosen) = (addresses, chosen);
                    return Ok((socket, self.address() != before));
                }
                // The first address is the preferred one, so its failure is the one to tell.
                Err(error) => {
                    _ = failure.get_or_insert_with(|| {
                        NoWay(format!("cannot open a UDP socket towards {}: {error}", addresses[chosen]))
                    });
                }
            }
        }
        Err(failure.unwrap_or_else(|| NoWay(format!("{:?} has no address", self.server))))
    }

    /// Returns the address in use; `None` before the name was resolved.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.addresses.get(self.chosen).copied()
    }

    pub(super) fn server(&self) -> &str {
        &self.server
    }

    pub(super) fn has_alternatives(&self) -> bool {
        self.addresses.len() > 1
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, NoWay> {
        let name = self.name.clone().map_err(NoWay)?;
        if let Some(address) = name.address() {
            return Ok(vec![address]);
        }
        let resolved = tokio::task::spawn_blocking(move || name.resolve()).await;
        let resolved = resolved.unwrap_or_else(|error| Err(io::Error::other(error)));
        resolved.map_err(|error| NoWay(format!("cannot resolve {:?}: {error}", self.server)))
    }
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
