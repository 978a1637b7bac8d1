//! How connections of clients are encrypted (PostgreSQL manual, "SSL Session Encryption").

use std::{fmt, path::PathBuf, sync::Arc, time::SystemTime};

use rustls::{
    RootCertStore, ServerConfig,
    client::verify_server_name,
    crypto::{CryptoProvider, ring},
    pki_types::ServerName,
    server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use super::tls::{ALPN, ReadFiles, TlsMistake, TlsMode, TlsVersion, mistake, versions};

/// The first byte of a TLS handshake, with which no startup packet begins.
pub const HANDSHAKE: u8 = 0x16;

/// Files and words about TLS to clients, as the configuration has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTlsFiles {
    pub mode: TlsMode,
    /// Each with the certificates that lead to an authority behind it. The first one that names the host for which a client
    /// asks is shown, else the first.
    pub certificates: Vec<PathBuf>,
    /// The key of each.
    pub private_keys: Vec<PathBuf>,
    /// Authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// Clients' certificates that have been revoked.
    pub crl: Option<PathBuf>,
    pub min_protocol: TlsVersion,
    pub max_protocol: TlsVersion,
}

impl Default for ClientTlsFiles {
    fn default() -> ClientTlsFiles {
        ClientTlsFiles {
            mode: TlsMode::default(),
            certificates: Vec::new(),
            private_keys: Vec::new(),
            client_ca: None,
            crl: None,
            min_protocol: TlsVersion::V1_2,
            max_protocol: TlsVersion::V1_3,
        }
    }
}

/// When a file was changed last, and how long it is.
pub type Stamp = Option<(SystemTime, u64)>;

impl ClientTlsFiles {
    /// Of all files, to notice that one has changed.
    pub fn stamps(&self) -> Vec<Stamp> {
        let paths = self.certificates.iter().chain(&self.private_keys).chain(&self.client_ca).chain(&self.crl);
        let stamp =
            |path: &PathBuf| std::fs::metadata(path).and_then(|about| Ok((about.modified()?, about.len()))).ok();
        paths.map(stamp).collect()
    }
}

/// How connections of clients are encrypted, with all files read.
#[derive(Clone, Default)]
pub struct ClientTls {
    files: ClientTlsFiles,
    config: Option<Arc<ServerConfig>>,
    /// Of what was read, to tell whether it is the same.
    sum: u64,
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &ClientTls) -> bool {
        self.files == other.files && self.sum == other.sum
    }
}

impl Eq for ClientTls {}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

impl ClientTls {
    /// Reads the files. Without a certificate there is no TLS, which not every mode takes.
    ///
    /// # Errors
    /// What is wrong with them first.
    pub fn new(files: ClientTlsFiles) -> Result<ClientTls, TlsMistake> {
        if files.mode == TlsMode::Disable || files.mode <= TlsMode::Prefer && files.certificates.is_empty() {
            return Ok(ClientTls { files, ..ClientTls::default() });
        }
        let mut read = ReadFiles::default();
        let provider = Arc::new(ring::default_provider());
        let shown = shown(&files, &provider, &mut read)?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions(files.min_protocol, files.max_protocol))
            .map_err(|_| mistake("max_protocol", "is below min_protocol", "let them name a version at least"))?;
        let builder = if files.mode >= TlsMode::VerifyCa {
            builder.with_client_cert_verifier(authorities(&files, provider, &mut read)?)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_cert_resolver(Arc::new(Shown(shown)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Who comes back need not shake hands anew, and nothing is kept here for that.
        config.ticketer = ring::Ticketer::new().map_err(|error| mistake("mode", error, "report this"))?;
        Ok(ClientTls { files, config: Some(Arc::new(config)), sum: read.sum() })
    }

    pub fn files(&self) -> &ClientTlsFiles {
        &self.files
    }

    /// What handshakes need; nothing when there is no TLS.
    pub fn config(&self) -> Option<&Arc<ServerConfig>> {
        self.config.as_ref()
    }

    /// Whether nobody gets in over TCP without TLS.
    pub fn is_required(&self) -> bool {
        self.config.is_some() && self.files.mode >= TlsMode::Require
    }
}

/// The certificates with their keys.
fn shown(
    files: &ClientTlsFiles,
    provider: &CryptoProvider,
    read: &mut ReadFiles,
) -> Result<Vec<Arc<CertifiedKey>>, TlsMistake> {
    if files.certificates.is_empty() {
        return Err(mistake(
            "certificate",
            "is missing, and the mode asks for TLS",
            "name a file in PEM, and its private_key",
        ));
    }
    if files.certificates.len() != files.private_keys.len() {
        return Err(mistake("private_key", "is not there for each certificate", "name as many keys as certificates"));
    }
    let pairs = files.certificates.iter().zip(&files.private_keys);
    pairs
        .map(|(certificate, key)| {
            let chain = read.certificates("certificate", certificate)?;
            let path = key;
            let key = provider.key_provider.load_private_key(read.key(key)?);
            let key = key.map_err(|error| mistake("private_key", error, "name a key of RSA, ECDSA or Ed25519"))?;
            let shown = CertifiedKey::new(chain, key);
            if let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) = shown.keys_match() {
                let what = format!("{} does not belong to {}", path.display(), certificate.display());
                return Err(mistake("private_key", what, "name the key that the certificate was made for"));
            }
            Ok(Arc::new(shown))
        })
        .collect()
}

/// Who looks at the certificates of clients.
fn authorities(
    files: &ClientTlsFiles,
    provider: Arc<CryptoProvider>,
    read: &mut ReadFiles,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsMistake> {
    const MEND: &str = "name a file of certificates in PEM";
    let Some(ca) = &files.client_ca else {
        return Err(mistake("client_ca", "is missing, and the mode asks for clients' certificates", MEND));
    };
    let mut roots = RootCertStore::empty();
    for certificate in read.certificates("client_ca", ca)? {
        roots.add(certificate).map_err(|error| mistake("client_ca", error, MEND))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(crl) = &files.crl {
        let revoked = read.revoked(crl)?;
        builder = builder.with_crls(revoked).only_check_end_entity_revocation().allow_unknown_revocation_status();
    }
    builder.build().map_err(|error| mistake("client_ca", error, MEND))
}

/// Certificates, of which the one is shown that names the host for which a client asks (server name indication), else the
/// first.
#[derive(Debug)]
struct Shown(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let names = |key: &&Arc<CertifiedKey>| {
            let parsed = key.end_entity_cert().and_then(ParsedCertificate::try_from);
            name.as_ref().is_some_and(|name| parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok()))
        };
        let first = if self.0.len() > 1 { self.0.iter().find(names) } else { None };
        first.or(self.0.first()).cloned()
    }
}
