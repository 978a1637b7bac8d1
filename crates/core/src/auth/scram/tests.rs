//! Both sides against each other, against PostgreSQL's stored form, and against everything that may be tampered with.

use proptest::prelude::*;

use super::{
    super::{Credential, Error, Secret},
    *,
};

/// The example of RFC 7677, part 3: user `user`, password `pencil`.
pub(super) mod rfc_7677 {
    pub const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    pub const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    pub const SERVER_FIRST: &[u8] =
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    pub const CLIENT_FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    pub const SERVER_FINAL: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
}

/// Made by PostgreSQL 15.18 for the password `correct horse`.
const PLAIN_ASCII: &str = "SCRAM-SHA-256$4096:wpqejCk8AZk/aoVFdUCE1w==$SiAt5zuiRwaEdvE+CTZ/VIMsYVJeBBbCnqlkj31maec=:ItXrfhj8eHt8NGvJ3F2Q5X3NmO1DVIXqVMO3KuM/Xk8=";
/// The same for `I`, a soft hyphen, `X` and a Roman numeral nine, which SASLprep makes `IXIX`.
const PREPARED: &str = "SCRAM-SHA-256$4096:flJ7ALaoR8KR9Gxo20vv0g==$8G055WLsWTF5vhSeRnGT48VIdFA6Nt67OUYIxYr+wRM=:rzdbEDMrEUAALs0hEVZ+6wxOLNgkD7ZKyxjYs8GrPp0=";

const CLIENT_NONCE: [u8; 18] = [1; 18];
const SERVER_NONCE: [u8; 18] = [2; 18];

fn password(text: &str) -> Credential {
    Credential::Secret(Secret::Plain(text.to_owned()))
}

/// One iteration, so that thousands of exchanges take a moment.
fn quick_verifier() -> Verifier {
    Verifier::derive("sesame", b"salt and pepper!", 1)
}

/// A whole exchange; the server's view of it, and the client's.
fn exchange(verifier: Verifier, credential: Credential) -> Result<Proven, Error> {
    let client = ClientExchange::new(&credential, CLIENT_NONCE)?;
    let (server, server_first) = ServerExchange::new(verifier, SERVER_NONCE).first(&client.first())?;
    let (client, client_final) = client.respond(&server_first)?;
    let proven = server.last(&client_final)?;
    client.finish(&proven.server_final)?;
    Ok(proven)
}

#[test]
fn the_right_password_opens_what_postgresql_stored() {
    for (stored, text) in [(PLAIN_ASCII, "correct horse"), (PREPARED, "I\u{AD}X\u{2168}"), (PREPARED, "IXIX")] {
        let proven = exchange(Verifier::parse(stored).unwrap(), password(text)).unwrap();
        assert!(proven.server_final.starts_with(b"v="));
    }
}

#[test]
fn derived_verifiers_are_those_of_postgresql() {
    let stored = Verifier::parse(PLAIN_ASCII).unwrap();
    let derived = Verifier::derive("correct horse", stored.salt(), stored.iterations());
    assert_eq!((derived.stored_key, derived.server_key), (stored.stored_key, stored.server_key));
}

#[test]
fn a_wrong_password_is_refused() {
    for text in ["Correct horse", "correct horse ", PLAIN_ASCII] {
        let refused = exchange(Verifier::parse(PLAIN_ASCII).unwrap(), password(text));
        assert_eq!(refused.unwrap_err(), Error::WrongProof);
    }
}

#[test]
fn keys_of_an_exchange_log_in_to_the_same_verifier_only() {
    let stored = || Verifier::parse(PLAIN_ASCII).unwrap();
    let keys = exchange(stored(), password("correct horse")).unwrap().credential();
    let again = exchange(stored(), keys.clone()).unwrap();
    assert!(again.credential() == keys);
    let resalted = Verifier::derive("correct horse", b"another salt", 4096);
    assert_eq!(exchange(resalted, keys.clone()).unwrap_err(), Error::KeysDoNotFit);
    let slower = Verifier::derive("correct horse", stored().salt(), 4097);
    assert_eq!(exchange(slower, keys.clone()).unwrap_err(), Error::KeysDoNotFit);
    let changed = Verifier::derive("another", stored().salt(), 4096);
    assert_eq!(exchange(changed, keys).unwrap_err(), Error::WrongProof);
}

#[test]
fn mocks_are_steady_and_accept_nobody() {
    let mock = |user: &str, seed: u8| Verifier::mock(user, &[seed; 32]);
    assert_eq!(mock("a", 1).salt(), mock("a", 1).salt());
    assert_ne!(mock("a", 1).salt(), mock("b", 1).salt());
    assert_ne!(mock("a", 1).salt(), mock("a", 2).salt());
    assert_eq!((mock("a", 1).salt().len(), mock("a", 1).iterations()), (16, 4096));
    assert_eq!(exchange(mock("a", 1), password("sesame")).unwrap_err(), Error::WrongProof);
}

#[test]
fn verifiers_are_checked() {
    let key = "A".repeat(43) + "=";
    let good = format!("SCRAM-SHA-256$4096:c2FsdA==${key}:{key}");
    assert!(Verifier::parse(&good).is_ok());
    for (from, to) in [
        ("4096", "0"),
        ("4096", "-1"),
        ("4096", "+4096"),
        ("4096", ""),
        ("4096", "2147483648"),
        ("4096", "4096 "),
        ("c2FsdA==", ""),
        ("c2FsdA==", "c2FsdA"),
        ("c2FsdA==", "c2FsdB=="),
        ("$A", "$"),
        (":A", ":"),
        ("$A", ":A"),
        ("256$", "1$"),
    ] {
        assert!(Verifier::parse(&good.replace(from, to)).is_err(), "{from} → {to}");
    }
    assert!(Verifier::parse(&format!("{good}\n")).is_err());
}

#[test]
fn first_messages_are_checked() {
    let refusal = |message: &str| ServerExchange::new(quick_verifier(), SERVER_NONCE).first(message.as_bytes()).err();
    for good in ["n,,n=,r=x", "y,,n=user,r=x", "n,,n=*,r=x,x=extension"] {
        assert_eq!(refusal(good), None, "{good}");
    }
    let malformed = [
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=",
        "n,,r=x",
        "n,,n=u,r=",
        "n,,n=u,r=x,",
        "n,,n=u,r=ä",
        "n,,n=u,r=a b",
        "z,,n=u,r=x",
        "n,x,n=u,r=x",
        "n,,1=u,r=x",
        ",,n=u,r=x",
    ];
    for message in malformed {
        assert!(matches!(refusal(message), Some(Error::Malformed(_))), "{message}");
    }
    assert_eq!(refusal("p=tls-server-end-point,,n=,r=x"), Some(Error::ChannelBindingNotOffered));
    assert_eq!(refusal("n,a=root,n=,r=x"), Some(Error::AuthorizationIdentity));
    assert_eq!(refusal("n,,m=x,n=,r=x"), Some(Error::MandatoryExtension));
    assert_eq!(refusal("n,,n=,r=x,m=x"), Some(Error::MandatoryExtension));
    let long = format!("n,,n=,r={}", "x".repeat(1017));
    assert_eq!(refusal(&long), Some(Error::MessageTooLong { bytes: 1025, limit: 1024 }));
}

#[test]
fn a_recorded_proof_is_worth_nothing_in_another_exchange() {
    let client = ClientExchange::new(&password("sesame"), CLIENT_NONCE).unwrap();
    let (first, server) = (client.first(), |nonce| ServerExchange::new(quick_verifier(), nonce));
    let (_, server_first) = server(SERVER_NONCE).first(&first).unwrap();
    let (_, recorded) = client.respond(&server_first).unwrap();
    let (replayed, _) = server([3; 18]).first(&first).unwrap();
    assert_eq!(replayed.last(&recorded).unwrap_err(), Error::NonceMismatch);
    // With the nonce mended, the proof no longer fits.
    let (replayed, server_first) = server([3; 18]).first(&first).unwrap();
    let recorded = String::from_utf8(recorded).unwrap();
    let proof = &recorded[recorded.find(",p=").unwrap()..];
    let nonce = std::str::from_utf8(attributes::split_at_comma(&server_first).unwrap().0).unwrap();
    assert_eq!(replayed.last(format!("c=biws,{nonce}{proof}").as_bytes()).unwrap_err(), Error::WrongProof);
}

/// The last message of a good exchange whose first began with `header`.
fn last_message(header: &str) -> (ServerExpectFinal, String) {
    let client = ClientExchange::new(&password("sesame"), CLIENT_NONCE).unwrap();
    let first = String::from_utf8(client.first()).unwrap().replacen("n,,", header, 1);
    let (server, server_first) = ServerExchange::new(quick_verifier(), SERVER_NONCE).first(first.as_bytes()).unwrap();
    let (_, last) = client.respond(&server_first).unwrap();
    (server, String::from_utf8(last).unwrap())
}

#[test]
fn last_messages_are_checked() {
    let check = |from: &str, to: &str, expected: Error| {
        let (server, last) = last_message("n,,");
        let changed = last.replacen(from, to, 1);
        assert_ne!(changed, last, "{from}");
        assert_eq!(server.last(changed.as_bytes()).unwrap_err(), expected, "{from} → {to}");
    };
    check("c=biws", "c=eSws", Error::ChannelBindingChanged);
    check("c=biws", "c=", Error::ChannelBindingChanged);
    check("c=biws", "c=!", Error::Malformed("the channel binding is not base64"));
    check("r=", "r=x", Error::NonceMismatch);
    check(",p=", ",x=y,p=", Error::WrongProof);
    check(",p=", ",m=y,p=", Error::MandatoryExtension);
    check(",p=", ",q=", Error::Malformed("client-final-message has no proof"));
    check(",p=", ",p=A", Error::Malformed("the proof is not 32 bytes in base64"));
    let (server, last) = last_message("n,,");
    assert_eq!(
        server.last(format!("{last},x=y").as_bytes()).unwrap_err(),
        Error::Malformed("something follows the proof")
    );
}

#[test]
fn the_binding_flag_is_part_of_the_proof() {
    // Somebody on the way makes the client's n a y: the proof still says n.
    let (server, last) = last_message("y,,");
    assert_eq!(server.last(last.as_bytes()).unwrap_err(), Error::ChannelBindingChanged);
}

#[test]
fn debug_hides_everything() {
    let proven = exchange(quick_verifier(), password("sesame")).unwrap();
    assert_eq!(format!("{:?} {proven:?}", quick_verifier()), "Verifier(…) Proven(…)");
}

/// Some bytes of a message replaced, removed or added.
#[derive(Debug, Clone)]
struct Mutation {
    at: prop::sample::Index,
    remove: usize,
    add: Vec<u8>,
}

impl Mutation {
    fn apply(&self, message: &[u8]) -> Vec<u8> {
        let at = self.at.index(message.len() + 1);
        let end = (at + self.remove).min(message.len());
        [&message[..at], &self.add, &message[end..]].concat()
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let add = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..4),
        prop::sample::select(vec!["n", "y", "=", ",", "A", "m=", ",x=y", ",r=", "p=", "1"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    (any::<prop::sample::Index>(), 0..4_usize, add).prop_map(|(at, remove, add)| Mutation { at, remove, add })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn exchanges_with_the_same_password_succeed(text in ".{1,20}", salt: [u8; 9], iterations in 1..5_u32) {
        let verifier = Verifier::derive(&text, &salt, iterations);
        prop_assert!(exchange(verifier, password(&text)).is_ok());
    }

    #[test]
    fn a_changed_message_never_succeeds(which in 0..4_usize, mutation in mutation()) {
        let mut changed = false;
        let mut pass = |index: usize, message: Vec<u8>| {
            let passed = if index == which { mutation.apply(&message) } else { message.clone() };
            changed |= passed != message;
            passed
        };
        let result = (|| {
            let client = ClientExchange::new(&password("sesame"), CLIENT_NONCE)?;
            let first = pass(0, client.first());
            let (server, server_first) = ServerExchange::new(quick_verifier(), SERVER_NONCE).first(&first)?;
            let (client, client_final) = client.respond(&limit_iterations(pass(1, server_first)))?;
            let proven = server.last(&pass(2, client_final))?;
            client.finish(&pass(3, proven.server_final))
        })();
        prop_assert_eq!(result.is_ok(), !changed, "{:?}", result);
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>) {
        let _ = ServerExchange::new(quick_verifier(), SERVER_NONCE).first(&bytes);
        let (server, _) = last_message("n,,");
        prop_assert!(server.last(&bytes).is_err());
        let client = || ClientExchange::new(&password("sesame"), CLIENT_NONCE).unwrap();
        prop_assert!(client().respond(&bytes).is_err());
        let _ = Verifier::parse(&String::from_utf8_lossy(&bytes));
    }
}

/// A mutation can make the iteration count large: then the test would only be slow.
fn limit_iterations(server_first: Vec<u8>) -> Vec<u8> {
    match server_first.windows(3).position(|window| window == b",i=") {
        Some(at) if server_first.len() > at + 6 => server_first[..at + 6].to_vec(),
        _ => server_first,
    }
}
