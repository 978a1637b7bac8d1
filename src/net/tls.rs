//! How connections to servers are encrypted: libpq's `sslmode` and what belongs to it (PostgreSQL manual, "SSL Support").

use std::{
    fmt, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Address, Stream, Tcp, encrypted::Encrypted};
use poolhouse_core::wire::startup;

/// What PostgreSQL wants to hear in direct negotiation (manual, "SSL Session Encryption").
pub const ALPN: &[u8] = b"postgresql";

/// libpq's `sslmode`: whether there is TLS, and what of the server's certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum TlsMode {
    /// Without TLS.
    Disable,
    /// With TLS only when the server does not take a login without it.
    Allow,
    /// With TLS when the server has it.
    #[default]
    Prefer,
    /// With TLS, whoever the server is; with a certificate authority as `VerifyCa`.
    Require,
    /// With TLS, and a certificate of an authority that is trusted.
    VerifyCa,
    /// The same, and the certificate names the host.
    VerifyFull,
}

/// What rustls calls the versions from one to another.
pub fn versions(least: TlsVersion, most: TlsVersion) -> Vec<&'static SupportedProtocolVersion> {
    let spoken = [(TlsVersion::V1_2, &TLS12), (TlsVersion::V1_3, &TLS13)];
    let within = spoken.into_iter().filter(|(version, _)| (least..=most).contains(version));
    within.map(|(_, known)| known).collect()
}

/// Files and words about TLS to servers, as the configuration has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub mode: TlsMode,
    /// Certificates of authorities in PEM; `system` stands for those that the system trusts.
    pub ca: Option<PathBuf>,
    /// Lists of certificates that have been revoked.
    pub crl: Option<PathBuf>,
    /// The client certificate, for servers that ask for one, and its key.
    pub certificate: Option<PathBuf>,
    pub private_key: Option<PathBuf>,
    /// TLS from the first byte, without asking the server (PostgreSQL 17).
    pub direct: bool,
    /// The server is told which host is meant (server name indication).
    pub sni: bool,
    pub min_protocol: TlsVersion,
    pub max_protocol: TlsVersion,
}

impl Default for TlsFiles {
    fn default() -> TlsFiles {
        TlsFiles {
            mode: TlsMode::default(),
            ca: None,
            crl: None,
            certificate: None,
            private_key: None,
            direct: false,
            sni: true,
            min_protocol: TlsVersion::V1_2,
            max_protocol: TlsVersion::V1_3,
        }
    }
}

/// A version of the protocol. Older ones are not spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// The word for the authorities that the system trusts.
pub const SYSTEM: &str = "system";

/// Why TLS cannot be as the configuration says: about which key, what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsMistake {
    pub key: &'static str,
    pub what: String,
    pub mend: &'static str,
}

/// How connections to the servers of a cluster are encrypted, with all files read.
#[derive(Clone)]
pub struct ServerTls {
    files: TlsFiles,
    config: Option<Arc<ClientConfig>>,
    /// Of what was read, to tell whether it is the same.
    sum: u64,
}

impl PartialEq for ServerTls {
    fn eq(&self, other: &ServerTls) -> bool {
        self.files == other.files && self.sum == other.sum
    }
}

impl Eq for ServerTls {}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

impl Default for ServerTls {
    fn default() -> ServerTls {
        ServerTls { files: TlsFiles { mode: TlsMode::Disable, ..TlsFiles::default() }, config: None, sum: 0 }
    }
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with them first.
    pub fn new(files: TlsFiles) -> Result<ServerTls, TlsMistake> {
        if files.mode == TlsMode::Disable {
            return Ok(ServerTls { files, ..ServerTls::default() });
        }
        if files.direct && files.mode < TlsMode::Require {
            const MEND: &str = "write a mode of \"require\" or more, or leave negotiation at \"postgres\"";
            return Err(mistake("negotiation", "is \"direct\", which leaves no way to go without TLS", MEND));
        }
        let mut read = ReadFiles::default();
        let provider = Arc::new(ring::default_provider());
        let verifier = verifier(&files, &provider, &mut read)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(files.min_protocol, files.max_protocol))
            .map_err(|_| mistake("max_protocol", "is below min_protocol", "let them name a version at least"))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match (&files.certificate, &files.private_key) {
            (Some(certificate), Some(key)) => {
                let chain = read.certificates("certificate", certificate)?;
                let key = read.key(key)?;
                let mend = "name the key that the certificate was made for";
                builder.with_client_auth_cert(chain, key).map_err(|error| mistake("private_key", error, mend))?
            }
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(mistake("private_key", "is missing beside `certificate`", "name its file")),
            (None, Some(_)) => return Err(mistake("certificate", "is missing beside `private_key`", "name its file")),
        };
        config.enable_sni = files.sni;
        if files.direct {
            config.alpn_protocols = vec![ALPN.to_vec()];
        }
        Ok(ServerTls { files, config: Some(Arc::new(config)), sum: read.sum })
    }

    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    pub fn mode(&self) -> TlsMode {
        self.files.mode
    }
}

/// The one that holds now; RELOAD puts another one there.
pub type LiveTls = Arc<ArcSwap<ServerTls>>;

/// A connection with TLS or without it, as a mode wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    Plain,
    /// TLS, or plain when the server has none and `plain` says that this will do.
    Tls {
        plain: bool,
    },
}

impl ServerTls {
    /// What is tried first, and what after it when the server has not let us in.
    pub fn attempts(&self, address: &Address) -> (Attempt, Option<Attempt>) {
        if matches!(address, Address::Unix { .. }) || self.config.is_none() {
            return (Attempt::Plain, None);
        }
        match self.files.mode {
            TlsMode::Disable => (Attempt::Plain, None),
            TlsMode::Allow => (Attempt::Plain, Some(Attempt::Tls { plain: false })),
            TlsMode::Prefer => (Attempt::Tls { plain: true }, Some(Attempt::Plain)),
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => (Attempt::Tls { plain: false }, None),
        }
    }

    /// Connects. The caller bounds the time.
    ///
    /// # Errors
    /// Those of the socket, and of TLS.
    pub async fn connect(&self, address: &Address, tcp: Tcp, attempt: Attempt) -> io::Result<Stream> {
        let stream = Stream::connect(address, tcp).await?;
        match (attempt, &self.config, address, stream) {
            (Attempt::Tls { plain }, Some(config), Address::Tcp { host, .. }, Stream::Tcp(mut socket)) => {
                if !self.files.direct && !has_tls(&mut socket).await? {
                    return if plain { Ok(Stream::Tcp(socket)) } else { Err(refuses()) };
                }
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                let stream = Encrypted::to_server(socket, config.clone(), name).await?;
                if self.files.direct && stream.protocol() != Some(ALPN) {
                    let what = "the server does not speak PostgreSQL's protocol behind direct TLS";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                Ok(Stream::Encrypted(Box::new(stream)))
            }
            (.., stream) => Ok(stream),
        }
    }
}

/// Asks a server for TLS (manual, "SSL Session Encryption"). Exactly one byte is read: what follows it belongs to TLS, and
/// would be refused there (CVE-2021-23222).
async fn has_tls(socket: &mut TcpStream) -> io::Result<bool> {
    let mut out = Vec::new();
    startup::ssl_request(&mut out);
    socket.write_all(&out).await?;
    match socket.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // An error, whose words come from who knows whom (CVE-2024-10977).
        b'E' => Err(io::Error::new(io::ErrorKind::InvalidData, "the server answers a request for TLS with an error")),
        other => {
            let what = format!("the server answers a request for TLS with {other:#04x}");
            Err(io::Error::new(io::ErrorKind::InvalidData, what))
        }
    }
}

fn refuses() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the server has no TLS, and the configuration wants it")
}

pub fn mistake(key: &'static str, what: impl fmt::Display, mend: &'static str) -> TlsMistake {
    TlsMistake { key, what: what.to_string(), mend }
}

/// Who looks at the certificates of servers.
fn verifier(
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
    read: &mut ReadFiles,
) -> Result<Arc<dyn ServerCertVerifier>, TlsMistake> {
    let verifies = files.mode >= TlsMode::VerifyCa || files.mode == TlsMode::Require && files.ca.is_some();
    if !verifies {
        return Ok(Arc::new(Checks { authorities: None, names: false, known: Vec::new(), provider: provider.clone() }));
    }
    const MEND: &str = "name a file of certificates in PEM, or \"system\"";
    let Some(ca) = &files.ca else {
        return Err(mistake(
            "ca",
            "is missing, and the mode asks for a certificate of an authority that is trusted",
            MEND,
        ));
    };
    let mut roots = RootCertStore::empty();
    let known = if ca == Path::new(SYSTEM) {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(mistake(
                "ca",
                "the system has no certificates of authorities",
                "install ca-certificates, or name a file",
            ));
        }
        Vec::new()
    } else {
        let certificates = read.certificates("ca", ca)?;
        for certificate in &certificates {
            // One that is no authority's may still be the server's own, which is compared as it is.
            let _ = roots.add(certificate.clone());
        }
        certificates
    };
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if let Some(crl) = &files.crl {
        builder =
            builder.with_crls(read.revoked(crl)?).only_check_end_entity_revocation().allow_unknown_revocation_status();
    }
    let authorities = builder.build().map_err(|error| mistake("ca", error, MEND))?;
    let names = files.mode == TlsMode::VerifyFull;
    Ok(Arc::new(Checks { authorities: Some(authorities), names, known, provider: provider.clone() }))
}

/// Files, as they are read.
#[derive(Default)]
pub struct ReadFiles {
    /// FNV-1a of all that was read.
    sum: u64,
}

const PEM: &str = "name a file in PEM, which begins with -----BEGIN";

impl ReadFiles {
    /// What has been read, as one number, to tell whether it is the same the next time.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    fn file(&mut self, key: &'static str, path: &Path) -> Result<Vec<u8>, TlsMistake> {
        let bytes = std::fs::read(path).map_err(|error| {
            mistake(key, format!("{} cannot be read: {error}", path.display()), "mend the path or its rights")
        })?;
        for byte in &bytes {
            self.sum = (self.sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(bytes)
    }

    /// Certificates in PEM, at least one.
    ///
    /// # Errors
    /// What is wrong with the file; `key` is that of the configuration.
    pub fn certificates(&mut self, key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsMistake> {
        let bytes = self.file(key, path)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(mistake(key, format!("{} holds no certificate", path.display()), PEM)),
            Err(error) => Err(mistake(key, format!("{} is no certificate: {error}", path.display()), PEM)),
        }
    }

    /// A private key that nobody else may read.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn key(&mut self, path: &Path) -> Result<PrivateKeyDer<'static>, TlsMistake> {
        let bytes = self.file("private_key", path)?;
        if let Ok(about) = std::fs::metadata(path) {
            // As libpq: its owner's alone, or root's with a group that may read it.
            let others = if about.uid() == 0 { 0o037 } else { 0o077 };
            if about.mode() & others != 0 {
                let what = format!("{} can be read by others (mode {:04o})", path.display(), about.mode() & 0o7777);
                return Err(mistake("private_key", what, "chmod 600, or 640 when it is root's"));
            }
        }
        PrivateKeyDer::from_pem_slice(&bytes)
            .map_err(|error| mistake("private_key", format!("{} is no private key: {error}", path.display()), PEM))
    }

    /// Lists of revoked certificates.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn revoked(&mut self, path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsMistake> {
        let bytes = self.file("crl", path)?;
        let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
        found.map_err(|error| {
            mistake("crl", format!("{} is no list of revoked certificates: {error}", path.display()), PEM)
        })
    }
}

/// What of a server's certificate is looked at. The signature of the handshake always is.
#[derive(Debug)]
struct Checks {
    /// Without them any certificate will do.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    /// Whether the certificate must name the host.
    names: bool,
    /// Certificates that are trusted as they are: a server's own, which no authority has signed, is among them when a file
    /// names that one.
    known: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Checks {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        match authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.names => Ok(ServerCertVerified::assertion()),
            Err(rustls::Error::InvalidCertificate(error)) if self.known.iter().any(|known| known == end_entity) => {
                self.verify_known(end_entity, server_name, error)
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl Checks {
    /// A certificate that is trusted as it is, though it cannot be led back to an authority: its own is an authority's
    /// (`CaUsedAsEndEntity`), as those are that `openssl req -x509` makes.
    fn verify_known(
        &self,
        end_entity: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
        error: CertificateError,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = || Err(rustls::Error::InvalidCertificate(error.clone()));
        let is_its_own = match &error {
            CertificateError::UnknownIssuer => true,
            CertificateError::Other(other) => other.to_string().contains("CaUsedAsEndEntity"),
            _ => false,
        };
        if !is_its_own {
            return refused();
        }
        if self.names {
            let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }
}
