//! The admin API as the command line calls it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use ureq::http::StatusCode;
use ureq::http::header::AUTHORIZATION;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, RequestBuilder, http};
use zeroize::Zeroizing;

use super::Failure;
use crate::admin::{TOKEN_FILE, Token};
use crate::client::address::ServerName;
use crate::config::{ADMIN_PORT, Config, environment, is_loopback};
use crate::limits;

/// Where the running server's admin interface is.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// Admin address of the running server: HOST:PORT; HOST is a name or an address, IPv6 in brackets: [fe80::1%eth0]:7118
    #[arg(long = "admin", value_name = "ADDR", env = "DURAGRAM_ADMIN", default_value = "127.0.0.1:7118")]
    address: String,

    /// File with the admin token, which every change needs, and everything at an address that other machines reach
    /// [default: admin-token in DURAGRAM_DATA or ./duragram-data, for a server on this machine]
    #[arg(long, value_name = "FILE", env = "DURAGRAM_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

impl AdminArgs {
    /// As the server's configuration says where it usually is, `data` names no file.
    fn named_token_file(&self) -> Option<&PathBuf> {
        self.admin_token_file.as_ref().filter(|path| path.as_os_str() != "data")
    }

    /// Where the interface is now.
    fn addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        let text = self.address.as_str();
        // As it stands in the server's own environment or on its command line.
        if text == "off" {
            return Err(Failure::not_done(
                "the server's admin interface is off (admin is \"off\", by --admin or DURAGRAM_ADMIN), so there is nothing to \
                 ask; name one that is on with --admin IP:PORT",
            ));
        }
        if text.ends_with(":0") {
            return Err(Failure::usage(format_args!(
                "--admin {text}: port 0 lets the server take a free one; its ready line says which, name that one"
            )));
        }
        let name = ServerName::parse(text, ADMIN_PORT)
            .map_err(|problem| Failure::usage(format_args!("--admin {text}: {problem}")))?;
        name.resolve().map_err(|error| Failure::not_done(format_args!("--admin {text} cannot be resolved: {error}")))
    }

    /// The value of the header that shows the token; `None` when none was named and there is none in the usual place.
    fn authorization(&self, addresses: &[SocketAddr]) -> Result<Option<Zeroizing<String>>, Failure> {
        let named = self.named_token_file();
        let path = match named {
            Some(path) => path.clone(),
            // The token of a server here is nothing that another machine's should hear.
            None if !addresses.iter().all(is_loopback) => return Ok(None),
            None => {
                let data = environment::value_of("DURAGRAM_DATA");
                data.map_or_else(|| Config::default().data, PathBuf::from).join(TOKEN_FILE)
            }
        };
        // Whoever may read it may use it: whose it is concerns the server alone.
        let mut text = Zeroizing::new(Vec::with_capacity(limits::ADMIN_TOKEN_BYTES + 1));
        let read =
            File::open(&path).and_then(|file| file.take(limits::ADMIN_TOKEN_BYTES as u64).read_to_end(&mut text));
        match (read, named) {
            (Ok(_), _) => {}
            (Err(_), None) => return Ok(None),
            (Err(error), Some(_)) => return Err(Failure::usage(format_args!("{}: {error}", path.display()))),
        }
        let token = Token::parse(&text)
            .ok_or_else(|| Failure::usage(format_args!("{} holds no admin token", path.display())))?;
        // Printable ASCII, as a token is.
        Ok(Some(Zeroizing::new(format!("Bearer {}", String::from_utf8_lossy(token.expose())))))
    }
}

/// Knows one host, whatever it is called.
#[derive(Debug)]
struct Fixed(Vec<SocketAddr>);

impl Resolver for Fixed {
    fn resolve(
        &self,
        _uri: &http::Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        // As many as ureq's own resolver gives at most.
        self.0.iter().take(16).for_each(|address| addresses.push(*address));
        if self.0.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum ApiFailure {
    /// No server answered, for this reason.
    Unreachable(String),
    /// The server refused, and said why.
    Refused { status: StatusCode, message: String },
}

impl ApiFailure {
    /// Whether the same call may succeed later: there is no server now, or it is starting, stopping or full.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            // Another journal came there between two calls.
            Self::Refused { status, .. } => status.is_server_error() || *status == StatusCode::CONFLICT,
        }
    }
}

impl From<ApiFailure> for Failure {
    fn from(failure: ApiFailure) -> Self {
        match failure {
            ApiFailure::Unreachable(message) | ApiFailure::Refused { message, .. } => Self::not_done(message),
        }
    }
}

/// A connection to the admin interface.
pub(super) struct Api {
    /// The server's address, as people are told it.
    address: String,
    /// Its URL without a path.
    url: String,
    agent: Agent,
    authorization: Option<Zeroizing<String>>,
    /// The operator has named the token: it is meant for this server, also where only reading is asked for. One that was found
    /// where it usually is goes out with changes alone, which a server on loopback takes by nothing else.
    named: bool,
}

impl Api {
    pub(super) fn new(args: &AdminArgs) -> Result<Self, Failure> {
        let config = Agent::config_builder()
            // A proxy that the environment names has no business with loopback.
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .build();
        let addresses = args.addresses()?;
        let authorization = args.authorization(&addresses)?;
        let named = args.named_token_file().is_some();
        // A URL has no place for an interface, so the address itself is handed to the connector.
        let url = addresses.first().map_or_else(String::new, |first| match first.ip() {
            IpAddr::V4(ip) => format!("http://{ip}:{}", first.port()),
            IpAddr::V6(ip) => format!("http://[{ip}]:{}", first.port()),
        });
        let agent = Agent::with_parts(config, DefaultConnector::new(), Fixed(addresses));
        Ok(Self { address: args.address.clone(), url, agent, authorization, named })
    }

    /// The address that it calls.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The JSON at a path.
    pub(super) fn get(&self, path: &str) -> Result<Value, ApiFailure> {
        self.json(self.reading(self.agent.get(self.url(path))).call())
    }

    /// The same with a query, whose values may hold anything.
    pub(super) fn get_by(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ApiFailure> {
        let request = self.agent.get(self.url(path)).query_pairs(query.iter().copied());
        self.json(self.reading(request).call())
    }

    /// Asks the server for a change, and returns its answer.
    pub(super) fn post(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ApiFailure> {
        let request = self.agent.post(self.url(path)).query_pairs(query.iter().copied());
        self.json(self.authorized(request).send_empty())
    }

    /// Asks for a change that needs more words than a query has.
    pub(super) fn post_json(&self, path: &str, query: &[(&str, &str)], body: &Value) -> Result<Value, ApiFailure> {
        let request = self.agent.post(self.url(path)).query_pairs(query.iter().copied());
        self.json(self.authorized(request).content_type("application/json").send(body.to_string()))
    }

    /// Asks the server to delete something, and returns its answer.
    pub(super) fn delete(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ApiFailure> {
        let request = self.agent.delete(self.url(path)).query_pairs(query.iter().copied());
        self.json(self.authorized(request).call())
    }

    /// The lines at a path, as they come.
    pub(super) fn lines(&self, path: &str) -> Result<BufReader<impl Read + use<>>, ApiFailure> {
        let answer = self.answer(self.reading(self.agent.get(self.url(path))).call())?;
        Ok(BufReader::with_capacity(64 * 1024, answer.into_body().into_reader()))
    }

    fn reading<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        if self.named { self.authorized(request) } else { request }
    }

    fn authorized<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value.as_str()),
            None => request,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn json(&self, result: Result<http::Response<Body>, ureq::Error>) -> Result<Value, ApiFailure> {
        let mut answer = self.answer(result)?;
        let text = answer.body_mut().read_to_string().map_err(|error| self.unreachable(&error))?;
        serde_json::from_str(&text).map_err(|_| ApiFailure::Refused {
            status: answer.status(),
            message: format!("what answers at {} is not duragram's admin interface", self.address),
        })
    }

    fn answer(&self, result: Result<http::Response<Body>, ureq::Error>) -> Result<http::Response<Body>, ApiFailure> {
        let mut answer = result.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let told =
            serde_json::from_str::<Value>(&text).ok().and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
        let message = told.unwrap_or_else(|| format!("the server at {} answered {status}", self.address));
        Err(ApiFailure::Refused { status, message })
    }

    fn unreachable(&self, error: &ureq::Error) -> ApiFailure {
        ApiFailure::Unreachable(format!(
            "no answer from the admin interface at {}: {error}; is the server running, is its --admin another?",
            self.address
        ))
    }
}
