//! Opens connections: DNS is asked and certificates are read each time, so that neither a moved server nor a rotated certificate
//! needs a restart.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector, Transport, TransportAdapter,
    time,
};

use super::super::tls;
use crate::model::TlsConfig;
use crate::process::handler::HandlerError;

type Tcp = <TcpConnector as Connector<()>>::Out;

/// Asks DNS for nothing: ureq would do so for each request, and not only when it connects.
#[derive(Debug)]
pub(super) struct Later;

impl Resolver for Later {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}

/// Makes connections, over TLS where the URL says so.
#[derive(Clone, Debug)]
pub(super) struct Connecting {
    files: TlsConfig,
    known: Arc<Mutex<Known>>,
}

/// What the files held when they could be read.
#[derive(Debug, Default)]
struct Known {
    config: Option<Arc<ClientConfig>>,
    /// They cannot be read since, and that was logged.
    unreadable: bool,
}

impl Connecting {
    pub(super) fn new(files: TlsConfig) -> Self {
        Self { files, known: Arc::default() }
    }

    /// What a connection that is made now trusts and shows. While a file cannot be read that is what it was before: who replaces
    /// it may be half done.
    fn config(&self) -> Result<Arc<ClientConfig>, HandlerError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match (tls::client_config(&self.files), &known.config) {
            (Ok(mut config), _) => {
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let config = Arc::new(config);
                *known = Known { config: Some(Arc::clone(&config)), unreadable: false };
                Ok(config)
            }
            (Err(error), None) => Err(error),
            (Err(error), Some(config)) => {
                let config = Arc::clone(config);
                if !std::mem::replace(&mut known.unreadable, true) {
                    tracing::warn!(%error, "the certificates cannot be read; the sink goes on with those it has read before");
                }
                Ok(config)
            }
        }
    }
}

impl Connector<()> for Connecting {
    type Out = Either<Tcp, Tls>;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Self::Out>, Error> {
        let began = Instant::now();
        let addrs = DefaultResolver::default().resolve(details.uri, details.config, details.timeout)?;
        let to_connect = ConnectionDetails {
            uri: details.uri,
            addrs,
            config: details.config,
            request_level: details.request_level,
            resolver: details.resolver,
            now: time::Instant::now(),
            timeout: left(details.timeout, began.elapsed())?,
            current_time: Arc::clone(&details.current_time),
            run_connector: Arc::clone(&details.run_connector),
            register_shutdown: Arc::clone(&details.register_shutdown),
        };
        let tcp = Connector::<()>::connect(&TcpConnector::default(), &to_connect, None)?;
        let tcp = tcp.ok_or(Error::ConnectionFailed)?;
        if !details.needs_tls() {
            return Ok(Some(Either::A(tcp)));
        }
        let config = self.config().map_err(|error| Error::Other(Box::new(error)))?;
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host)
            .map_err(|_| Error::Tls("the host in the URL is no name that a certificate can hold"))?;
        let mut connection = ClientConnection::new(config, name)?;
        let mut socket = TransportAdapter::new(tcp, Arc::clone(&details.current_time));
        socket.set_timeout(left(details.timeout, began.elapsed())?);
        connection.complete_io(&mut socket)?;
        let stream = StreamOwned::new(connection, socket);
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Tls { buffers, stream })))
    }
}

/// What is left of the time for connecting. Nothing left is a timeout: the system takes zero for "as long as it takes".
fn left(timeout: NextTimeout, spent: Duration) -> Result<NextTimeout, Error> {
    match timeout.after {
        time::Duration::NotHappening => Ok(timeout),
        time::Duration::Exact(after) if after <= spent => Err(Error::Timeout(timeout.reason)),
        time::Duration::Exact(after) => Ok(NextTimeout { after: (after - spent).into(), ..timeout }),
    }
}

/// The connection is encrypted: the server has shown its certificate.
pub(super) struct Tls {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter<Tcp>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.stream.sock.inner())
    }
}

impl Transport for Tls {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
