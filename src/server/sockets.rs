//! The sockets that the server listens on: bound by itself, or inherited from systemd, which has bound them.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::Error;
use crate::config::{Config, ConfigError, Problem};
use crate::net::{self, BoundSockets};

/// The sockets, and the addresses as they are reported. `inherited`: those of systemd; then `listen` and `receivers` are not
/// looked at.
pub(super) fn open(config: &Config, inherited: Vec<UdpSocket>) -> Result<(Vec<UdpSocket>, Vec<SocketAddr>), Error> {
    let mut sockets = Vec::new();
    let mut addresses = Vec::new();
    if inherited.is_empty() {
        for &address in &config.listen {
            let bound = net::bind(address, config.receivers, config.receive_buffer_bytes)
                .map_err(|source| Error::Bind { address, source })?;
            addresses.push(bound.addr);
            sockets.extend(taken(config, bound));
        }
    } else {
        tracing::info!(sockets = inherited.len(), "listening on sockets that were bound for this process");
        let named = |source| Error::System(io::Error::other(format!("looking at the sockets of LISTEN_FDS: {source}")));
        let bound: Vec<_> = inherited.iter().map(UdpSocket::local_addr).collect::<io::Result<_>>().map_err(named)?;
        for address in &bound {
            if let Some(message) = config.problem_of_listening_on(address) {
                let problem = Problem { key: "listen".to_owned(), place: Some("LISTEN_FDS".to_owned()), message };
                return Err(ConfigError { problems: vec![problem] }.into());
            }
        }
        net::refuse_sharing(&inherited).map_err(|source| Error::Bind { address: bound[0], source })?;
        for (socket, address) in inherited.into_iter().zip(&bound) {
            let alone = bound.iter().filter(|other| *other == address).count() == 1;
            let bound = net::adopt(socket, alone, config.receive_buffer_bytes)
                .map_err(|source| Error::Bind { address: *address, source })?;
            // Several that share an address are one to the reader.
            if !addresses.contains(&bound.addr) {
                addresses.push(bound.addr);
            }
            sockets.extend(taken(config, bound));
        }
    }
    if sockets.is_empty() {
        return Err(io::Error::other("there is no socket to listen on").into());
    }
    Ok((sockets, addresses))
}

fn taken(config: &Config, bound: BoundSockets) -> Vec<UdpSocket> {
    // The kernel counts its own overhead too and reports twice what was asked for.
    let granted = bound.receive_buffer_bytes / 2;
    if granted < config.receive_buffer_bytes {
        tracing::warn!(
            asked = config.receive_buffer_bytes,
            granted,
            "the kernel grants a smaller receive buffer; raise net.core.rmem_max if kernel drops are counted",
        );
    }
    bound.sockets
}
