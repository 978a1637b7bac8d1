//! Transaction blocks: BEGIN costs nothing before the first statement after it. That a client sees no difference is the differential tests' business.

use super::kit::{Cluster, Config, Message, PATIENCE, Pooler, RawClient, cluster, wait_until};

/// A view over inet_server_port(): a statement that names that function asks about a server, which is the primary.
const PORT: &str = "SELECT port FROM place";

fn replicated(replicas: usize) -> Cluster {
    let cluster = cluster().replicas(replicas).trust_user("app").start().unwrap();
    cluster.node(0).query("CREATE TABLE ticket (number int); GRANT ALL ON ticket TO app").unwrap();
    cluster.node(0).query("CREATE VIEW place AS SELECT inet_server_port() AS port; GRANT ALL ON place TO app").unwrap();
    cluster.catch_up().unwrap();
    cluster
}

fn in_front(cluster: &Cluster, settings: &[(&str, &str)]) -> Pooler {
    let config = Config::of_cluster(cluster).user("app", "secret");
    settings.iter().fold(config, |config, (key, value)| config.set(key, value)).start()
}

fn login(pooler: &Pooler) -> RawClient {
    RawClient::login(pooler.port(), "postgres", "app", "secret")
}

fn port(client: &mut RawClient) -> u16 {
    client.value(PORT).unwrap().parse().unwrap()
}

/// The last message is ReadyForQuery: the status that it tells.
fn status(answer: &[Message]) -> char {
    char::from(answer.last().unwrap().body[0])
}

fn code(answer: &[Message]) -> Option<String> {
    answer.iter().find(|message| message.tag == b'E').map(Message::sqlstate)
}

#[test]
fn a_block_holds_no_server_connection_before_its_first_statement() {
    let cluster = replicated(0);
    let pooler = in_front(&cluster, &[("pool.size", "1"), ("pool.checkout_timeout", "'300ms'")]);
    let (mut waiting, mut other) = (login(&pooler), login(&pooler));
    assert_eq!(status(&waiting.query("BEGIN")), 'T');
    assert_eq!(status(&other.query("BEGIN")), 'T');
    assert_eq!(code(&other.query("INSERT INTO ticket VALUES (1)")), None);
    // Now the only connection is taken: the error makes the transaction fail, as any other does.
    let refused = waiting.query("INSERT INTO ticket VALUES (2)");
    assert_eq!((code(&refused).as_deref(), status(&refused)), (Some("53300"), 'E'));
    other.query("COMMIT");
    let refused = waiting.query("INSERT INTO ticket VALUES (3)");
    assert_eq!((code(&refused).as_deref(), status(&refused)), (Some("25P02"), 'E'));
    let ended = waiting.query("COMMIT");
    assert_eq!((ended[0].text().as_str(), status(&ended)), ("ROLLBACK", 'I'));
    assert_eq!(other.value("SELECT string_agg(number::text, ',') FROM ticket").as_deref(), Some("1"));
    // And one of which no server ever hears is over at once.
    other.query("BEGIN");
    other.query("SELECT 1");
    waiting.query("BEGIN");
    assert_eq!(status(&waiting.query("SELECT 1")), 'E');
    let ended = waiting.query("ROLLBACK");
    assert_eq!((ended[0].text().as_str(), status(&ended)), ("ROLLBACK", 'I'));
}

#[test]
fn a_block_that_idles_is_ended_also_before_its_first_statement() {
    let cluster = replicated(0);
    let pooler = in_front(&cluster, &[("pool.idle_transaction_timeout", "'300ms'")]);
    let mut client = login(&pooler);
    client.query("BEGIN");
    let words = client.read_to_end();
    assert_eq!(code(&words).as_deref(), Some("25P03"));
}

#[test]
fn a_hint_on_begin_says_where_the_transaction_runs_and_one_inside_does_not() {
    let cluster = replicated(1);
    let (primary, replica) = (cluster.node(0).port(), cluster.node(1).port());
    let pooler = in_front(&cluster, &[("pool.size", "4")]);
    let mut client = login(&pooler);
    wait_until("reads reach a replica", PATIENCE, || port(&mut client) == replica);
    client.query("/* poolhouse: replica */ BEGIN");
    assert_eq!(port(&mut client), replica);
    client.query("COMMIT");
    client.query("BEGIN");
    assert_eq!(client.value(&format!("/* poolhouse: replica */ {PORT}")), Some(primary.to_string()));
    assert_eq!(code(&client.query("INSERT INTO ticket VALUES (1)")), None);
    client.query("COMMIT");
}

#[test]
fn a_block_that_has_not_begun_survives_the_loss_of_its_server() {
    let cluster = replicated(0);
    let pooler = in_front(&cluster, &[("pool.size", "4"), ("clusters.main.health.interval", "'100ms'")]);
    pooler.allow_warnings("");
    let mut client = login(&pooler);
    client.query("BEGIN");
    cluster.node(0).kill9().unwrap();
    cluster.node(0).start().unwrap();
    assert_eq!(code(&client.query("INSERT INTO ticket VALUES (1)")), None);
    assert_eq!(status(&client.query("COMMIT")), 'I');
    assert_eq!(client.value("SELECT count(*) FROM ticket").as_deref(), Some("1"));
}
