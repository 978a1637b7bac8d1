//! Transaction mode as a client sees it against a direct connection: scripts of client actions are played both ways,
//! and the answers must be equal, message by message, while twenty other clients do all sorts of things to their
//! sessions in the same pool of two server connections. Afterwards nothing may be left of a script on any of them.

mod noise;
mod not_yet;
mod play;
mod probe;
mod random;
mod script;
mod stage;

use std::env;

use self::{
    script::scripts,
    stage::{on_stage, on_stage_of},
};

/// Plays the scripts of a file: all of them, or those whose names hold the words of DIFFERENTIAL.
fn play(file: &str) {
    play_with(0, file);
}

/// [`play`] with so many replicas.
fn play_with(replicas: usize, file: &str) {
    let only = env::var("DIFFERENTIAL").unwrap_or_default();
    let scripts: Vec<_> = scripts(file).into_iter().filter(|script| script.name.contains(&only)).collect();
    on_stage_of(replicas, |stage| stage.play_all(&scripts));
}

#[test]
fn protocol_differential_settings() {
    play(include_str!("scripts/settings.txt"));
}

#[test]
fn protocol_differential_statements() {
    play(include_str!("scripts/statements.txt"));
}

#[test]
fn protocol_differential_pins() {
    play(include_str!("scripts/pins.txt"));
}

#[test]
fn protocol_differential_transactions() {
    play(include_str!("scripts/transactions.txt"));
}

#[test]
fn differential_transactions_with_a_replica() {
    play_with(1, include_str!("scripts/transactions.txt"));
}

#[test]
fn differential_statements_with_a_replica() {
    play_with(1, include_str!("scripts/statements.txt"));
}

#[test]
fn differential_settings_with_a_replica() {
    play_with(1, include_str!("scripts/settings.txt"));
}

#[test]
fn differential_messages_with_a_replica() {
    play_with(1, include_str!("scripts/protocol.txt"));
}

#[test]
fn differential_pins_with_a_replica() {
    play_with(1, include_str!("scripts/pins.txt"));
}

#[test]
fn differential_notifications_with_a_replica() {
    play_with(1, concat!(include_str!("scripts/listen.txt"), "\n", include_str!("scripts/found.txt")));
}

#[test]
fn protocol_differential_messages() {
    play(include_str!("scripts/protocol.txt"));
}

#[test]
fn protocol_differential_notifications() {
    play(include_str!("scripts/listen.txt"));
}

#[test]
fn protocol_differential_found_by_chance() {
    play(include_str!("scripts/found.txt"));
}

/// DIFFERENTIAL_CASES plays more scripts than usual, DIFFERENTIAL_SEED others.
#[test]
fn differential_random() {
    let number = |name: &str, usual: u64| env::var(name).map_or(usual, |text| text.parse().unwrap());
    let cases = u32::try_from(number("DIFFERENTIAL_CASES", 40)).unwrap();
    on_stage(|stage| random::play(stage, cases, number("DIFFERENTIAL_SEED", 1)));
}
