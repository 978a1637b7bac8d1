//! What is counted, against what the client itself has sent and seen.

use poolhouse::testing::{Activity, Count, Figures};
use poolhouse_core::session::Mode;

use super::kit::{LabCluster, Message, PATIENCE, RawClient, Served, cluster, messages, wait_until};

fn started() -> LabCluster {
    let cluster = cluster().password_user("app", "secret").start().unwrap();
    cluster.node(0).query("CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app").unwrap();
    cluster
}

fn in_front(cluster: &LabCluster, mode: Mode) -> Served {
    Served::start(cluster, 1, |settings| {
        for database in settings.databases.values_mut() {
            (database.pool.size, database.session.mode) = (2, mode);
        }
    })
}

/// What a client has sent and seen since its login.
#[derive(Default)]
struct Seen {
    queries: u64,
    transactions: u64,
    sent: u64,
    received: u64,
    errors: u64,
}

impl Seen {
    fn run(&mut self, client: &mut RawClient, message: &[u8]) -> Vec<Message> {
        client.send(message);
        let answer = client.read_until_ready();
        self.sent += message.len() as u64;
        for message in &answer {
            self.received += message.body.len() as u64 + 5;
            if message.tag == b'Z' {
                self.queries += 1;
                self.transactions += u64::from(message.body == b"I");
            }
            self.errors += u64::from(message.tag == b'E');
        }
        answer
    }

    fn query(&mut self, client: &mut RawClient, sql: &str) {
        self.run(client, &messages::query(sql));
    }
}

fn figures(served: &Served) -> Figures {
    served.frontend.accounts.all().iter().fold(Figures::default(), |mut sum, account| {
        sum.merge(&account.figures());
        sum
    })
}

/// A load in which everything is known, in each mode. What a client's task has counted is there once it idles.
#[test]
fn a_known_load_is_counted_exactly() {
    let cluster = started();
    for mode in [Mode::Session, Mode::Transaction, Mode::Statement] {
        let served = in_front(&cluster, mode);
        let mut seen = Seen::default();
        let mut client = served.login();
        for _ in 0..5 {
            seen.query(&mut client, "SELECT 1");
        }
        seen.query(&mut client, "INSERT INTO ticket VALUES (1)");
        seen.query(&mut client, "SELEC 1");
        seen.query(&mut client, "SELECT 1; SELECT 2");
        if mode != Mode::Statement {
            for sql in ["BEGIN", "INSERT INTO ticket VALUES (2)", "SELECT count(*) FROM ticket", "COMMIT"] {
                seen.query(&mut client, sql);
            }
            for sql in ["BEGIN", "SELECT nothing", "SELECT 1", "ROLLBACK"] {
                seen.query(&mut client, sql);
            }
        }
        let parse = messages::parse("s", "SELECT $1::text");
        seen.run(&mut client, &[parse, messages::sync()].concat());
        for _ in 0..3 {
            let execute = [messages::bind("", "s", &[Some("x")]), messages::execute("", 0), messages::sync()];
            seen.run(&mut client, &execute.concat());
        }
        seen.query(&mut client, "SET poolhouse.explain = on");
        seen.query(&mut client, "SHOW poolhouse.rout");
        seen.query(&mut client, "SET poolhouse.explain = off");
        let counted = |count| figures(&served).count(count);
        wait_until("all is counted", PATIENCE, || counted(Count::Queries) >= seen.queries);
        let expected = [
            (Count::Queries, seen.queries),
            (Count::Transactions, seen.transactions),
            (Count::ClientReceived, seen.sent),
            (Count::ClientSent, seen.received),
            (Count::ClientParses, 1),
            (Count::Binds, 3),
        ];
        for (count, number) in expected {
            assert_eq!(counted(count), number, "{mode:?} {count:?}");
        }
        let all = figures(&served);
        assert_eq!(all.server_errors.total() + all.own_errors.total(), seen.errors, "{mode:?}");
        assert_eq!(all.own_errors.by_class().collect::<Vec<_>>(), [("42", 1)], "{mode:?}");
        // In session mode the login waits until the first server connection is open.
        assert_eq!(all.waits.count(), u64::from(mode == Mode::Session), "{mode:?}");
        let account = &served.frontend.accounts.all()[0];
        assert_eq!((&*account.database, &*account.user, account.logins()), ("postgres", "app", 1));
        drop(client);
        served.drain();
    }
}

/// Clients that have to wait for a server connection, and how long.
#[test]
fn waits_are_counted() {
    let cluster = started();
    let served = in_front(&cluster, Mode::Transaction);
    let [mut one, mut two, mut three] = [(); 3].map(|()| served.login());
    one.begin();
    two.begin();
    three.send(&messages::query("SELECT 1"));
    let waiting = || {
        served
            .frontend
            .registry
            .slots()
            .iter()
            .filter(|slot| matches!(slot.activity(), Activity::Waiting { .. }))
            .count()
    };
    wait_until("one waits", PATIENCE, || waiting() == 1);
    one.query("COMMIT");
    three.read_until_ready();
    wait_until("the wait is counted", PATIENCE, || figures(&served).waits.count() == 1);
    assert_eq!(waiting(), 0);
    two.query("COMMIT");
    drop([one, two, three]);
    served.drain();
}
