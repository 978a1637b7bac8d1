//! A client as applications are: tokio-postgres over TCP, without TLS.

use tokio::time::timeout;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::PATIENCE;

/// Logs in at a port of 127.0.0.1. The connection lives until the client is dropped.
pub async fn connect(port: u16, database: &str, user: &str, password: &str) -> Result<Client, Error> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).dbname(database).user(user).password(password);
    let connecting = timeout(PATIENCE, config.connect(NoTls));
    let (client, connection) = connecting.await.expect("a login is answered")?;
    // Its error reaches the client too.
    tokio::spawn(connection);
    Ok(client)
}
