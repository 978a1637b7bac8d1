//! A certificate authority of the tests' own.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use poolhouse_lab::throwaway::Throwaway;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// An authority, and a directory for what it makes.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    directory: Throwaway,
}

/// A certificate and its key, in PEM.
pub struct Signed {
    pub certificate: String,
    pub private_key: String,
}

/// The number of the certificates that [`Authority::revoked`] names.
pub const REVOKED: u64 = 77;

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key), directory: Throwaway::new().unwrap() }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for names and addresses, of which the first is the common name, too.
    pub fn sign(&self, names: &[&str]) -> Signed {
        self.sign_with(names, |_| {})
    }

    /// The same, with something else about it.
    pub fn sign_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let mut params = CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed { certificate: certificate.pem(), private_key: key.serialize_pem() }
    }

    /// A certificate that nobody but itself has signed.
    pub fn self_signed(names: &[&str]) -> Signed {
        let mut params = CertificateParams::new(names.iter().map(|name| name.to_string()).collect::<Vec<_>>()).unwrap();
        // As `openssl req -x509` makes them.
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Signed { certificate: params.self_signed(&key).unwrap().pem(), private_key: key.serialize_pem() }
    }

    pub fn expired(&self, names: &[&str]) -> Signed {
        self.sign_with(names, |params| params.not_after = date_time_ymd(2020, 1, 1))
    }

    /// A certificate with the number that is revoked.
    pub fn sign_to_be_revoked(&self, names: &[&str]) -> Signed {
        self.sign_with(names, |params| params.serial_number = Some(SerialNumber::from(REVOKED)))
    }

    /// The list of what is revoked.
    pub fn revoked(&self) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(REVOKED),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// A file of this text, that nobody else may read.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The authority's own certificate, as a file.
    pub fn ca(&self) -> PathBuf {
        self.file("ca.crt", &self.pem)
    }
}
