//! Asks and answers (PROTOCOL.md#answers): raw datagrams to the real program, behind which a service answers when a test lets it.

mod bounds;
mod crashes;
mod example;
mod holds;
mod refused;
mod rules;
mod sinks;

use crate::common::server::{Home, Server};
use crate::common::service::Service;
use crate::common::wire::Wire;

/// Nothing is written but what is asked for: an answer that waits for a checkpoint would never come.
const CONFIG: &str = "checkpoint_interval = \"1h\"\n";

/// A server that a service answers for, in mode `record`.
struct Place {
    server: Server,
    service: Service,
    home: Home,
}

impl Place {
    fn new() -> Self {
        Self::with(CONFIG)
    }

    fn with(toml: &str) -> Self {
        let service = Service::start();
        let home = Home::with_config(toml);
        let server = home.serve_sinks(&[&service.sink()]);
        Self { server, service, home }
    }

    /// The server is killed, and starts again.
    fn restart(self) -> Self {
        let Self { server, service, home } = self;
        server.kill();
        let server = home.serve_sinks(&[&service.sink()]);
        Self { server, service, home }
    }

    fn wire(&self, client: u64) -> Wire {
        Wire::new(&self.server, client)
    }

    /// Asks with a payload that the service holds back, as the next message of a client.
    fn ask_held(&self, wire: &Wire, seq: u64, payload: &[u8]) {
        self.service.hold(payload);
        assert_eq!(wire.ask_ack(&wire.asking(seq, payload)).floor, seq);
    }
}
