//! TLS for every sink that connects to something: rustls, with ring. Certificates are read at each connect, so that rotated
//! ones are taken without a restart.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::host::secret_file;
use crate::limits;
use crate::model::TlsConfig;
use crate::process::handler::HandlerError;

/// What TLS is made of here. No other is named, so that nothing depends on what a library installs as the process's default.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What a connection that is made now trusts, and shows.
///
/// # Errors
/// A file is not there, others could read the key, or one holds something else.
pub(super) fn client_config(tls: &TlsConfig) -> Result<ClientConfig, HandlerError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities(tls)? {
        // The machine's store may hold some that rustls does not take; one that was named must be good.
        if let (Err(error), Some(path)) = (roots.add(certificate), &tls.ca_file) {
            return Err(HandlerError::new(format_args!("{}: {error}", path.display())));
        }
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(HandlerError::new)?
        .with_root_certificates(roots);
    match (&tls.cert_file, &tls.key_file) {
        (Some(certificate), Some(key)) => {
            let failed = |error| HandlerError::new(format_args!("{}: {error}", certificate.display()));
            config.with_client_auth_cert(certificates(certificate)?, private_key(key)?).map_err(failed)
        }
        _ => Ok(config.with_no_client_auth()),
    }
}

/// The certificate authorities, for libraries that put together their own configuration.
pub(super) fn authorities(tls: &TlsConfig) -> Result<Vec<CertificateDer<'static>>, HandlerError> {
    let Some(path) = &tls.ca_file else {
        let native = rustls_native_certs::load_native_certs();
        return match native.certs.is_empty() {
            false => Ok(native.certs),
            true => Err(HandlerError::new(
                "this machine has no certificate authorities: install its package (ca-certificates), or name a file (tls.ca_file)",
            )),
        };
    };
    certificates(path)
}

/// The certificates in a PEM file: at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, HandlerError> {
    let failed = |error: &dyn std::fmt::Display| HandlerError::new(format_args!("{}: {error}", path.display()));
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => Err(failed(&"there is no certificate in it (PEM)")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(failed(&error)),
    }
}

/// The private key in a PEM file that nobody else can read.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, HandlerError> {
    let pem = secret_file::read(path, limits::SECRET_BYTES).map_err(HandlerError::new)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        HandlerError::new(format_args!("{}: there is no private key in it (PEM): {error}", path.display()))
    })
}
