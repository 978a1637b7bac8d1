//! What a service manager hears, by systemd's protocol.

use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process,
};

use rustix::process::Signal;

use super::kit::{Config, PATIENCE, RawClient, cluster, wait_until};

#[test]
fn the_service_manager_hears_how_things_stand() {
    let cluster = cluster().password_user("app", "secret").start().unwrap();
    let name = format!("poolhouse-it-{}", process::id());
    let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let config = Config::of_cluster(&cluster).user("app", "secret").variable("NOTIFY_SOCKET", &format!("@{name}"));
    let pooler = config.variable("WATCHDOG_USEC", "100000").start();
    assert_eq!(hear(), "READY=1");
    for _ in 0..3 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    pooler.signal(Signal::HUP);
    let hear_else = || std::iter::repeat_with(hear).find(|word| word != "WATCHDOG=1").unwrap();
    assert!(hear_else().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(hear_else(), "READY=1");
    assert!(pooler.terminate(PATIENCE).success());
    assert_eq!(hear_else(), "STOPPING=1");
}

#[test]
fn signals_pause_and_resume_as_pgbouncers_do() {
    let cluster = cluster().trust_user("app").start().unwrap();
    let pooler = Config::of_cluster(&cluster).user("app", "secret").start();
    let mut client = RawClient::login(pooler.port(), "postgres", "app", "secret");
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
    for (signal, words) in
        [(Signal::USR1, "user=\"SIGUSR1\" command=\"PAUSE\""), (Signal::USR2, "user=\"SIGUSR2\" command=\"RESUME\"")]
    {
        pooler.signal(signal);
        wait_until("the signal is obeyed", PATIENCE, || pooler.logs(words));
    }
    assert_eq!(client.value("SELECT 2").as_deref(), Some("2"));
    client.query("BEGIN; SELECT 3");
    pooler.signal(Signal::QUIT);
    assert!(pooler.wait_for_exit(PATIENCE).success());
    assert!(client.read_to_end().iter().any(|message| message.tag == b'E' && message.sqlstate() == "57P01"));
}
