//! What SHOW HELP says.

use super::show::Show;

const COMMANDS: [(&str, &str); 16] = [
    (
        "EXPLAIN ROUTE DATABASE app USER alice SELECT 1",
        "say where a statement would go that such a client sends now, and why; nothing runs. Without DATABASE it is the only one, without USER it is you",
    ),
    (
        "PAUSE [app]",
        "let running transactions end, close their server connections, and let all further ones wait; done when all are closed",
    ),
    ("RESUME [app]", "end PAUSE, KILL or SUSPEND"),
    ("DISABLE app", "let nobody else log in to the database"),
    ("ENABLE app", "end DISABLE"),
    ("RECONNECT [app]", "close each server connection as soon as nobody uses it, and open new ones"),
    ("WAIT_CLOSE [app]", "wait until RECONNECT has closed all"),
    ("KILL [app]", "disconnect all clients and close all server connections at once; new clients wait for RESUME"),
    ("KILL_CLIENT 7", "disconnect one client, by its id in SHOW CLIENTS"),
    ("SUSPEND", "PAUSE, and accept no connections, until RESUME or until this session ends"),
    ("SHUTDOWN", "end at once"),
    ("SHUTDOWN WAIT_FOR_SERVERS", "end when the running transactions have ended; the same as SIGTERM"),
    ("SHUTDOWN WAIT_FOR_CLIENTS", "accept no connections any more, and end when all clients have left"),
    ("SET log.level = 'debug'", "set the level of the log; other settings are not changed here"),
    ("RELOAD DRY RUN", "say what RELOAD would change, from what to what, and what needs a restart; nothing changes"),
    ("RELOAD", "read the configuration again; says what has changed, and what needs a restart"),
];

/// All of it.
pub fn text() -> String {
    let mut text = String::from("\n");
    for show in Show::ALL {
        text.push_str(&format!("\tSHOW {}\n\t\t{}\n", show.name(), show.about()));
    }
    text.push_str(
        "\tSHOW POOLS WHERE cl_waiting > 0 AND database ~ '^app' ORDER BY maxwait DESC LIMIT 10\n\
         \t\tEach SHOW takes conditions (= <> < <= > >= ~ ~* !~ !~* LIKE ILIKE IN, IS NULL), an order and a limit.\n\
         \tSELECT database, cl_active FROM pools WHERE cl_active > 0\n\
         \t\tThe same, with some of the columns.\n",
    );
    for (command, about) in COMMANDS {
        text.push_str(&format!("\t{command}\n\t\t{about}.\n"));
    }
    text
}
