//! Which challenge a user gets. A stranger gets one as well, of the kind that a listed user would get, and fails at
//! the end like a wrong password, so that nobody can find out which names exist.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use super::{
    Method, Secret, Settings,
    scram::{self, ITERATIONS_DEFAULT, SALT_BYTES, Verifier},
};

/// How a user is to prove who they are.
#[derive(Debug)]
pub enum Challenge<'a> {
    /// Nothing to prove (trust).
    None,
    /// Check the answer with `md5::verify`; without a secret no answer is right.
    Md5 {
        /// What is known of the user; `None` = nothing that md5 could check.
        secret: Option<&'a Secret>,
    },
    /// Check the exchange with this verifier; of an unknown user it is made up, and no proof fits.
    Scram(Verifier),
}

/// Why a user cannot get in whatever they answer. For the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name is in neither `[users]` nor the users file, and no server that was asked knows it.
    #[error("there is no such user, or it may not log in")]
    UnknownUser,
    /// The secret is empty, or there is none.
    #[error("the user has no password")]
    NoPassword,
    /// An md5 hash is stored and the method is SCRAM-SHA-256.
    #[error("only an md5 hash of the password is known, which SCRAM-SHA-256 cannot use")]
    Md5HashUnderScram,
    /// What is stored begins like a verifier and is none.
    #[error("the SCRAM verifier of the user is malformed")]
    MalformedVerifier,
}

/// The users and how each proves who they are. Made anew when the settings change.
pub struct Directory {
    method: Method,
    seed: [u8; 32],
    users: BTreeMap<String, Arc<KnownUser>>,
    /// The challenge of each user who can log in, in the order of their names: what a stranger's is modelled on.
    shapes: Vec<ChallengeShape>,
    /// That of the first user who was looked up and can log in: what a stranger's is modelled on when nobody is listed.
    learnt: OnceLock<ChallengeShape>,
}

/// Somebody whose secret is known.
pub struct KnownUser {
    secret: Secret,
    proof: Proof,
}

impl KnownUser {
    /// What they prove themselves with. A password or an md5 hash may also log in to servers in their name.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// What a user's answer is checked against.
enum Proof {
    Md5,
    Scram(Verifier),
    /// The verifier of a password costs 4096 rounds of HMAC (about 2 ms): made when the user first logs in.
    ScramLater(OnceLock<Verifier>),
    Never(Refusal),
}

/// What of a challenge can be seen by someone who does not know the password.
#[derive(Clone, Copy)]
enum ChallengeShape {
    Md5,
    Scram { iterations: u32, salt_bytes: usize },
}

impl Directory {
    /// `seed` makes the salts of passwords and of strangers. It must be secret; a stranger's salt is the same each time
    /// as long as the seed is, so one that is drawn anew at each start tells those who compare across starts which
    /// salts were stored.
    pub fn new(settings: Settings, seed: [u8; 32]) -> Directory {
        let method = settings.method;
        let users: BTreeMap<_, _> = settings
            .users
            .into_iter()
            .map(|(name, secret)| {
                let proof = proof_for(method, &secret);
                (name, Arc::new(KnownUser { secret, proof }))
            })
            .collect();
        let shapes = users.values().filter_map(|user| user.proof.shape()).collect();
        Directory { method, seed, users, shapes, learnt: OnceLock::new() }
    }

    /// For other settings, with the same salts.
    pub fn renewed(&self, settings: Settings) -> Directory {
        Directory::new(settings, self.seed)
    }

    /// Whoever has this name in `[users]` or the users file.
    pub fn listed(&self, user: &str) -> Option<&Arc<KnownUser>> {
        self.users.get(user)
    }

    /// Somebody who is not listed, with the secret that was looked up.
    pub fn looked_up(&self, secret: Secret) -> KnownUser {
        let proof = proof_for(self.method, &secret);
        if let Some(shape) = proof.shape() {
            self.learnt.get_or_init(|| shape);
        }
        KnownUser { secret, proof }
    }

    /// The challenge for a user by this name, known or not. The first call for one whose password is stored in plain
    /// text takes about 2 ms under SCRAM.
    pub fn challenge<'a>(&self, user: &str, known: Option<&'a KnownUser>) -> Challenge<'a> {
        if self.method == Method::Trust {
            return Challenge::None;
        }
        let Some(known) = known else {
            return self.mock_challenge(user);
        };
        match &known.proof {
            Proof::Md5 => Challenge::Md5 { secret: Some(&known.secret) },
            Proof::Scram(verifier) => Challenge::Scram(verifier.clone()),
            Proof::ScramLater(cell) => Challenge::Scram(cell.get_or_init(|| self.derived(user, &known.secret)).clone()),
            Proof::Never(_) => self.mock_challenge(user),
        }
    }

    /// Whether [`Directory::challenge`] would take those milliseconds, which are not for a thread that has others to serve.
    pub fn has_to_derive(&self, known: &KnownUser) -> bool {
        matches!(&known.proof, Proof::ScramLater(cell) if self.method != Method::Trust && cell.get().is_none())
    }

    /// Why this user's challenge cannot be passed; None when it can (or when nothing needs to be proved).
    pub fn refusal(&self, known: Option<&KnownUser>) -> Option<Refusal> {
        if self.method == Method::Trust {
            return None;
        }
        match known.map(|known| &known.proof) {
            None => Some(Refusal::UnknownUser),
            Some(Proof::Never(refusal)) => Some(*refusal),
            Some(Proof::Md5 | Proof::Scram(_) | Proof::ScramLater(_)) => None,
        }
    }

    fn derived(&self, user: &str, secret: &Secret) -> Verifier {
        let password = secret.password().expect("only users with a password have their verifier made");
        Verifier::derive(password, &scram::made_up_salt(user, &self.seed, SALT_BYTES), ITERATIONS_DEFAULT)
    }

    fn mock_challenge<'a>(&self, user: &str) -> Challenge<'a> {
        match self.mock_shape(user) {
            ChallengeShape::Md5 => Challenge::Md5 { secret: None },
            ChallengeShape::Scram { iterations, salt_bytes } => {
                Challenge::Scram(Verifier::mock_shaped(user, &self.seed, iterations, salt_bytes))
            }
        }
    }

    /// The shape of a listed user's challenge, the same one for the same name. So strangers get each kind of challenge
    /// as often as listed users do, and a rare kind (another iteration count, SCRAM under md5) betrays no name.
    fn mock_shape(&self, user: &str) -> ChallengeShape {
        let drawn = scram::keyed_number(user, &self.seed);
        let index = usize::try_from(drawn % self.shapes.len().max(1) as u64).unwrap_or_default();
        match self.shapes.get(index).or(self.learnt.get()) {
            Some(shape) => *shape,
            None if self.method == Method::Md5 => ChallengeShape::Md5,
            None => ChallengeShape::Scram { iterations: ITERATIONS_DEFAULT, salt_bytes: SALT_BYTES },
        }
    }
}

impl Proof {
    fn shape(&self) -> Option<ChallengeShape> {
        match self {
            Proof::Md5 => Some(ChallengeShape::Md5),
            Proof::Scram(verifier) => {
                Some(ChallengeShape::Scram { iterations: verifier.iterations(), salt_bytes: verifier.salt().len() })
            }
            Proof::ScramLater(_) => {
                Some(ChallengeShape::Scram { iterations: ITERATIONS_DEFAULT, salt_bytes: SALT_BYTES })
            }
            Proof::Never(_) => None,
        }
    }
}

impl fmt::Debug for KnownUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownUser").field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("method", &self.method).field("users", &self.users.len()).finish()
    }
}

/// Method md5 with a SCRAM verifier does SCRAM, as in PostgreSQL.
fn proof_for(method: Method, secret: &Secret) -> Proof {
    match (secret, method) {
        (Secret::Plain(password), _) if password.is_empty() => Proof::Never(Refusal::NoPassword),
        (Secret::Plain(_), Method::ScramSha256) => Proof::ScramLater(OnceLock::new()),
        (Secret::Md5(_), Method::ScramSha256) => Proof::Never(Refusal::Md5HashUnderScram),
        (Secret::Plain(_) | Secret::Md5(_), Method::Md5 | Method::Trust) => Proof::Md5,
        (Secret::Scram(text), _) => match Verifier::parse(text) {
            Ok(verifier) => Proof::Scram(verifier),
            Err(_) => Proof::Never(Refusal::MalformedVerifier),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Credential, md5};

    /// Made by PostgreSQL 15 for `correct horse`.
    const SCRAM: &str = "SCRAM-SHA-256$4096:wpqejCk8AZk/aoVFdUCE1w==$SiAt5zuiRwaEdvE+CTZ/VIMsYVJeBBbCnqlkj31maec=:ItXrfhj8eHt8NGvJ3F2Q5X3NmO1DVIXqVMO3KuM/Xk8=";

    fn directory(method: Method, users: &[(&str, &str)]) -> Directory {
        let users = users.iter().map(|(name, text)| ((*name).to_owned(), Secret::parse(text).unwrap())).collect();
        Directory::new(Settings { method, users, ..Settings::default() }, [5; 32])
    }

    fn challenge<'a>(directory: &'a Directory, user: &str) -> Challenge<'a> {
        directory.challenge(user, directory.listed(user).map(|known| &**known))
    }

    fn refusal(directory: &Directory, user: &str) -> Option<Refusal> {
        directory.refusal(directory.listed(user).map(|known| &**known))
    }

    fn logs_in(directory: &Directory, user: &str, password: &str) -> bool {
        let credential = Credential::Secret(Secret::Plain(password.to_owned()));
        match challenge(directory, user) {
            Challenge::None => true,
            Challenge::Md5 { secret } => {
                let answer = credential.md5_answer(user, [9; 4]).unwrap();
                secret.is_some_and(|secret| md5::verify(secret, user, [9; 4], answer.as_bytes()))
            }
            Challenge::Scram(verifier) => {
                let client = credential.scram_exchange([1; 18]).unwrap();
                let (server, first) = scram::ServerExchange::new(verifier, [2; 18]).first(&client.first()).unwrap();
                let (_, last) = client.respond(&first).unwrap();
                server.last(&last).is_ok()
            }
        }
    }

    #[test]
    fn listed_users_log_in_with_their_password_only() {
        let hash = md5::hash("hashed", "sesame");
        let users = [("plain", "sesame"), ("hashed", hash.as_str()), ("scram", SCRAM), ("empty", "")];
        let md5 = directory(Method::Md5, &users);
        let scram = directory(Method::ScramSha256, &users);
        for (user, password, under_md5, under_scram) in [
            ("plain", "sesame", true, true),
            ("plain", "other", false, false),
            ("hashed", "sesame", true, false),
            ("scram", "correct horse", true, true),
            ("scram", SCRAM, false, false),
            ("stranger", "sesame", false, false),
        ] {
            assert_eq!(logs_in(&md5, user, password), under_md5, "md5 {user} {password}");
            assert_eq!(logs_in(&scram, user, password), under_scram, "scram {user} {password}");
        }
        assert!(matches!(challenge(&md5, "scram"), Challenge::Scram(_)));
        assert!(matches!(challenge(&scram, "hashed"), Challenge::Scram(_)));
    }

    #[test]
    fn refusals_say_why() {
        let hash = md5::hash("hashed", "sesame");
        let scram = directory(Method::ScramSha256, &[("hashed", hash.as_str()), ("empty", ""), ("plain", "sesame")]);
        assert_eq!(refusal(&scram, "hashed"), Some(Refusal::Md5HashUnderScram));
        assert_eq!(refusal(&scram, "empty"), Some(Refusal::NoPassword));
        assert_eq!(refusal(&scram, "stranger"), Some(Refusal::UnknownUser));
        assert_eq!(refusal(&scram, "plain"), None);
        let damaged = Settings {
            method: Method::ScramSha256,
            users: BTreeMap::from([("damaged".to_owned(), Secret::Scram("SCRAM-SHA-256$".to_owned()))]),
            ..Settings::default()
        };
        assert_eq!(refusal(&Directory::new(damaged, [0; 32]), "damaged"), Some(Refusal::MalformedVerifier));
    }

    #[test]
    fn trust_lets_anybody_in() {
        let trust = directory(Method::Trust, &[("plain", "sesame")]);
        for user in ["plain", "stranger"] {
            assert!(matches!(challenge(&trust, user), Challenge::None));
            assert_eq!(refusal(&trust, user), None);
        }
    }

    #[test]
    fn verifiers_are_made_once() {
        let directory = directory(Method::ScramSha256, &[("plain", "sesame")]);
        let Challenge::Scram(first) = challenge(&directory, "plain") else { panic!("not scram") };
        let Proof::ScramLater(cell) = &directory.users["plain"].proof else { panic!("not kept") };
        assert_eq!(cell.get().unwrap().salt(), first.salt());
    }

    #[test]
    fn strangers_get_a_steady_challenge_of_a_listed_shape() {
        let slow = SCRAM.replace("4096", "10000");
        let directory = directory(Method::ScramSha256, &[("slow", slow.as_str())]);
        let seen = |user: &str| match challenge(&directory, user) {
            Challenge::Scram(verifier) => (verifier.iterations(), verifier.salt().to_vec()),
            _ => panic!("not scram"),
        };
        assert_eq!(seen("stranger"), seen("stranger"));
        assert_ne!(seen("stranger").1, seen("another").1);
        assert_eq!((seen("stranger").0, seen("stranger").1.len()), (10_000, 16));
    }

    #[test]
    fn those_who_are_looked_up_log_in_as_the_listed_do_and_strangers_look_like_them() {
        for method in [Method::Md5, Method::ScramSha256] {
            let directory = directory(method, &[]);
            let slow = directory.looked_up(Secret::parse(&SCRAM.replace("4096", "10000")).unwrap());
            let iterations = |challenge: Challenge<'_>| match challenge {
                Challenge::Scram(verifier) => verifier.iterations(),
                _ => panic!("not scram"),
            };
            assert_eq!(iterations(directory.challenge("slow", Some(&slow))), 10_000);
            assert_eq!(iterations(directory.challenge("stranger", None)), 10_000);
            let empty = directory.looked_up(Secret::Plain(String::new()));
            assert_eq!(directory.refusal(Some(&empty)), Some(Refusal::NoPassword));
            assert_eq!(directory.refusal(None), Some(Refusal::UnknownUser));
            assert_eq!(directory.refusal(Some(&slow)), None);
        }
    }

    #[test]
    fn strangers_get_every_kind_of_challenge_under_md5() {
        let mixed = directory(Method::Md5, &[("plain", "sesame"), ("scram", SCRAM)]);
        let scrams =
            (0..200).filter(|n| matches!(challenge(&mixed, &format!("stranger {n}")), Challenge::Scram(_))).count();
        assert!((60..140).contains(&scrams), "{scrams} of 200");
        let empty = directory(Method::Md5, &[]);
        assert!(matches!(challenge(&empty, "stranger"), Challenge::Md5 { secret: None }));
    }
}
