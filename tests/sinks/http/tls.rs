//! The sink over TLS, with the certificates in `testdata/tls`, which its script `make` makes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duragram::model::HttpMode::Record;
use duragram::model::{HttpTarget, TlsConfig};
use duragram::process::Handler;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::super::support::lane::{drive, messages};
use super::server::{Response, Server};
use super::{PATIENCE, fault, open, present, target};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sinks/testdata/tls").join(name)
}

fn certificates(name: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(testdata(name)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// What the server shows, and whether it wants to see a certificate of the client.
fn server_config(wants_client: bool) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = if wants_client {
        let mut roots = RootCertStore::empty();
        roots.add(certificates("ca.pem").remove(0)).unwrap();
        builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap(),
        )
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from_pem_file(testdata("server.key")).unwrap();
    builder.with_single_cert(certificates("server.pem"), key).unwrap()
}

/// A copy of a file that nobody else can read, which git does not keep.
fn private(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    fs::copy(testdata(name), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn over_tls(server: &Server, host: &str, tls: TlsConfig) -> HttpTarget {
    let mut target = target(format!("https://{host}:{}/in", server.address().port()), Record);
    target.tls = tls;
    target
}

fn trusting(authority: &str) -> TlsConfig {
    TlsConfig { ca_file: Some(testdata(authority)), cert_file: None, key_file: None }
}

fn send_one(handler: &mut dyn Handler) {
    let message = messages(0, 1);
    assert_eq!(drive(handler, &[message[0].record()], 1, PATIENCE), []);
}

#[test]
fn a_server_whose_authority_is_named_is_trusted_by_its_name_and_its_address() {
    for host in ["localhost", "127.0.0.1"] {
        let server = Server::start_tls(server_config(false), |_| Response::status(200));
        let mut handler = open(over_tls(&server, host, trusting("ca.pem")));
        let messages = messages(0, 50);
        let records: Vec<_> = messages.iter().map(|message| message.record()).collect();
        assert_eq!(drive(&mut *handler, &records, 50, PATIENCE), []);
        let requests = server.requests();
        assert_eq!(requests.len(), 50);
        assert!(requests.iter().all(|request| request.connection == requests[0].connection), "it is kept");
        assert!(requests[0].header("host").starts_with(host));
    }
}

#[test]
fn a_server_of_another_authority_hears_nothing() {
    let server = Server::start_tls(server_config(false), |_| Response::status(200));
    let mut handler = open(over_tls(&server, "localhost", trusting("other-ca.pem")));
    let message = messages(0, 1);
    let (outcomes, _) = present(&mut *handler, &[message[0].record()]);
    let reason = fault(&outcomes);
    assert!(reason.contains("TLS") && reason.contains("`tls.ca_file`"), "{reason}");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_server_that_wants_a_certificate_gets_the_one_that_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_tls(server_config(true), |_| Response::status(200));
    let message = messages(0, 1);
    let (outcomes, _) = present(&mut *open(over_tls(&server, "localhost", trusting("ca.pem"))), &[message[0].record()]);
    // Whether the server's reason arrives depends on who closes first.
    assert!(!fault(&outcomes).is_empty());
    assert_eq!(server.requests().len(), 0);
    let mut tls = trusting("ca.pem");
    tls.cert_file = Some(testdata("client.pem"));
    tls.key_file = Some(private(directory.path(), "client.key"));
    send_one(&mut *open(over_tls(&server, "localhost", tls)));
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_key_of_another_certificate_waits_until_it_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_tls(server_config(true), |_| Response::status(200));
    let mut tls = trusting("ca.pem");
    let certificate = directory.path().join("client.pem");
    fs::copy(testdata("server.pem"), &certificate).unwrap();
    tls.cert_file = Some(certificate.clone());
    tls.key_file = Some(private(directory.path(), "client.key"));
    let mut handler = open(over_tls(&server, "localhost", tls));
    let message = messages(0, 1);
    let (outcomes, _) = present(&mut *handler, &[message[0].record()]);
    assert!(fault(&outcomes).contains(&certificate.display().to_string()), "{outcomes:?}");
    fs::copy(testdata("client.pem"), &certificate).unwrap();
    send_one(&mut *handler);
}

#[test]
fn certificates_are_read_at_each_connect_and_kept_while_they_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("ca.pem");
    fs::copy(testdata("ca.pem"), &authority).unwrap();
    // Each request needs a connection of its own.
    let server = Server::start_tls(server_config(false), |_| Response::status(200).header("Connection", "close"));
    let mut tls = trusting("ca.pem");
    tls.ca_file = Some(authority.clone());
    let mut handler = open(over_tls(&server, "localhost", tls));
    send_one(&mut *handler);
    fs::write(&authority, "half a file").unwrap();
    send_one(&mut *handler);
    fs::remove_file(&authority).unwrap();
    send_one(&mut *handler);
    // Another one that can be read counts from now on.
    fs::copy(testdata("other-ca.pem"), &authority).unwrap();
    let message = messages(0, 1);
    let (outcomes, _) = present(&mut *handler, &[message[0].record()]);
    assert!(fault(&outcomes).contains("TLS"), "{outcomes:?}");
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_server_that_speaks_no_tls_is_the_servers_fault_within_the_timeout() {
    let server = Server::start(|_| Response::status(200));
    let message = messages(0, 1);
    let target = over_tls(&server, "localhost", trusting("ca.pem"));
    let mut handler = super::try_open(target, std::time::Duration::from_millis(300)).unwrap();
    let (outcomes, took) = present(&mut *handler, &[message[0].record()]);
    assert!(!fault(&outcomes).is_empty() && took.as_secs() < 2, "{outcomes:?} after {took:?}");
}
