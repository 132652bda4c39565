//! What a client is, before it begins.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(feature = "sealed")]
use duragram_proto::client::Sealing;
use duragram_proto::client::{AskConfig, Client as Machine, ClientConfig, Slot};
use duragram_proto::codec::{DATAGRAM_LEN_MAX, DATAGRAM_LEN_RECOMMENDED, MIN_LEN, SEALED_MIN_LEN};
#[cfg(feature = "sealed")]
use duragram_proto::seal::{ClientKey, CounterStart};
use duragram_proto::{ClientId, Epoch};

use super::batching::Batching;
use super::core::{ASK_CONFIG, Core, HeapMachine, ask_memory};
use super::driver::Driver;
use super::route::Route;
use super::shared::Shared;
use super::{Client, ConnectError};

/// Messages that a client can hold, at most: what the machine's slots can name.
const WINDOW_MAX: usize = 65_536;
/// Payload bytes that a client can hold, at most.
const BUFFER_BYTES_MAX: usize = 1 << 30;

/// Describes a client and begins it. Made by [`Client::builder`].
#[derive(Clone, Debug)]
#[must_use = "it does nothing before `connect`"]
pub struct Builder {
    server: String,
    client: ClientId,
    #[cfg(feature = "sealed")]
    key: Option<ClientKey>,
    epoch: Option<Epoch>,
    window: usize,
    buffer_bytes: usize,
    datagram_bytes_max: usize,
    batching: Batching,
    retry_interval_max: Duration,
    asks: AskConfig,
}

impl Builder {
    pub(super) fn new(server: String) -> Self {
        Self {
            server,
            client: ClientId(RandomState::new().hash_one(())),
            #[cfg(feature = "sealed")]
            key: None,
            epoch: None,
            window: 1024,
            buffer_bytes: 2 << 20,
            datagram_bytes_max: DATAGRAM_LEN_RECOMMENDED,
            batching: Batching::Off,
            retry_interval_max: Duration::from_secs(10),
            asks: ASK_CONFIG,
        }
    }

    /// Who the client is. Random by default, which is right for a program that runs once; a device has a number.
    pub fn client_id(mut self, id: u64) -> Self {
        self.client = ClientId(id);
        self
    }

    /// The key that this client id shares with the server: speaks sealed mode, and hears nothing else
    /// (PROTOCOL.md#sealed-client). Without one the client speaks plain. The 32 bytes stand in a key file as 64 hexadecimal digits.
    #[cfg(feature = "sealed")]
    pub fn key(mut self, key: ClientKey) -> Self {
        self.key = Some(key);
        self
    }

    /// This run's number, which this client id must never have used before; with a key, above all that it has used. By
    /// default the server gives one. If it was used before, every record fails ([`super::SendError::EpochUsed`]); to find
    /// out, the first message goes alone.
    pub fn epoch(mut self, epoch: Epoch) -> Self {
        self.epoch = Some(epoch);
        self
    }

    /// Messages that may be unacked at once, 1 to 65,536; 1,024 by default. With batching a message holds many records.
    pub fn window(mut self, messages: usize) -> Self {
        self.window = messages;
        self
    }

    /// Bytes of payload that may be unacked at once; 2 MiB by default. A record that is longer is refused.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// The longest UDP payload to send; 1,200 bytes by default, which every path takes without fragmenting.
    pub fn datagram_bytes_max(mut self, bytes: usize) -> Self {
        self.datagram_bytes_max = bytes;
        self
    }

    /// Whether small records share datagrams; off by default.
    pub fn batching(mut self, batching: Batching) -> Self {
        self.batching = batching;
        self
    }

    /// The longest interval between two tries while the server is away; 10 seconds by default.
    pub fn retry_interval_max(mut self, interval: Duration) -> Self {
        self.retry_interval_max = interval;
        self
    }

    /// How answers are taken: how long the server may hold a request for one (20 seconds by default, which is also how long it
    /// takes to notice that one was lost), how much room for a body goes along, and whether this is a device that sleeps.
    pub fn asks(mut self, config: AskConfig) -> Self {
        self.asks = config;
        self
    }

    /// The client id, drawn or given.
    pub fn id(&self) -> ClientId {
        self.client
    }

    /// Starts the client's task on the current tokio runtime. Does not wait for the server: records are taken also while it
    /// is away, its name cannot be resolved, or no network leads there; [`Client::trouble`] tells.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing was started.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        self.check()?;
        let name = Route::parse(&self.server)
            .map_err(|problem| ConnectError::Server { server: self.server.clone(), problem })?;
        let route = Route::new(self.server.clone(), name);
        let core = Core::new(self.machine()?, self.batching);
        let shared = Arc::new(Shared::new(core));
        let driver = Driver::new(Arc::clone(&shared), route, self.datagram_bytes_max);
        let task = tokio::spawn(driver.run());
        Ok(Client::new(shared, task.abort_handle()))
    }

    /// What the machine is made of: seed and counter are of the operating system's randomness, so that no nonce and no counter
    /// was used before (PROTOCOL.md#sealed-counter).
    fn machine(&self) -> Result<HeapMachine, ConnectError> {
        let random = || getrandom::u64().map_err(|error| ConnectError::Random(error.to_string()));
        let (config, seed) = (self.machine_config(), random()?);
        let (slots, buffer) = (vec![Slot::EMPTY; self.window], vec![0; self.buffer_bytes]);
        let (asks, bodies) = ask_memory(self.datagram_bytes_max);
        #[cfg(feature = "sealed")]
        if let Some(key) = self.key.clone() {
            // A clock that stands before 1970 only makes answers of earlier runs come later.
            let unix_ms = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or_default());
            let sealing = Sealing { key, counter: CounterStart::random_at(random()?, unix_ms) };
            return Ok(Machine::sealed(config, sealing, slots, buffer, seed).with_asks(self.asks, asks, bodies));
        }
        Ok(Machine::new(config, slots, buffer, seed).with_asks(self.asks, asks, bodies))
    }

    fn is_sealed(&self) -> bool {
        #[cfg(feature = "sealed")]
        let sealed = self.key.is_some();
        #[cfg(not(feature = "sealed"))]
        let sealed = false;
        sealed
    }

    fn check(&self) -> Result<(), ConnectError> {
        let (shortest, lengths) =
            if self.is_sealed() { (SEALED_MIN_LEN + 1, "53 to 65,507") } else { (MIN_LEN + 1, "33 to 65,507") };
        let limits = [
            ("window", self.window, 1, WINDOW_MAX, "1 to 65,536"),
            ("buffer_bytes", self.buffer_bytes, 1, BUFFER_BYTES_MAX, "1 to 1,073,741,824"),
            ("datagram_bytes_max", self.datagram_bytes_max, shortest, DATAGRAM_LEN_MAX, lengths),
        ];
        match limits.into_iter().find(|&(_, value, least, most, _)| value < least || value > most) {
            Some((name, value, .., allowed)) => Err(ConnectError::Limit { name, value, allowed }),
            None => Ok(()),
        }
    }

    /// The machine's clock begins where [`Shared::new`] sets its origin, a moment later: good enough for the Unix time
    /// in seconds that it is for.
    fn machine_config(&self) -> ClientConfig {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut config = ClientConfig::new(self.client, self.epoch);
        // Whoever chose it may have chosen it before.
        config.epoch_doubted = true;
        config.unix_us_at_zero = u64::try_from(unix.as_micros()).ok();
        config.datagram_len_max = self.datagram_bytes_max;
        config.rto_max_us =
            u64::try_from(self.retry_interval_max.as_micros()).unwrap_or(u64::MAX).max(config.rto_min_us);
        config
    }
}
