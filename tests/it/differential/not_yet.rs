//! Scripts whose answers still differ from those of a direct connection, and why. A test fails when one of these is
//! equal, so that the list shrinks.

/// Name of the script, reason.
const NOT_YET: &[(&str, &str)] = &[
    ("cached plan must not change result type", HEALED),
    (
        "a custom setting that others have set",
        "PostgreSQL forgets the name of a custom setting only with the connection",
    ),
    ("reset in the extended protocol with startup parameters", STARTUP),
];

const HEALED: &str = "a statement that is prepared anew on another connection has the new columns, and says so";
const STARTUP: &str = "RESET goes to the value of the server connection first, and to the startup parameter afterwards";

/// Whether it depends on the server connections that the script gets if it differs.
pub fn only_sometimes(name: &str) -> bool {
    let by_chance = [
        "a custom setting of one transaction is empty afterwards",
        "a custom setting that others have set",
        "discard sequences",
        "cached plan must not change result type",
    ];
    by_chance.contains(&name)
}

/// Why a script is known to differ.
pub fn reason(name: &str) -> Option<&'static str> {
    NOT_YET.iter().find(|(known, _)| *known == name).map(|(_, reason)| *reason)
}
