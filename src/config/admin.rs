//! `[admin]`: who may use the console, and what it says of itself.

use std::net::SocketAddr;

use toml::de::DeValue;

use super::{
    Overrides, keys,
    mistake::{Findings, Place},
    raw::Item,
    value::{Outside, secret},
};
use crate::admin::{Http, Settings};
use poolhouse_core::auth::{self, Method, Secret};

/// Where HTTP is served when nothing is said.
const HTTP_PORT: u16 = 6433;

pub(super) fn read(
    file: &keys::File<'_>,
    auth: &auth::Settings,
    outside: &Outside<'_>,
    over: &Overrides,
    findings: &mut Findings,
) -> Settings {
    let raw = keys::Admin::read(file.admin.as_ref(), findings);
    let mut settings = Settings { http: http(&raw, outside, over, findings), ..Settings::default() };
    raw.put(&mut settings, findings);
    let mut names = |item: &Option<Item<'_>>, key: &str| {
        item.as_ref().map(|item| users(item, key, auth, findings)).unwrap_or_default()
    };
    (settings.users, settings.stats_users) = (names(&raw.users, "users"), names(&raw.stats_users, "stats_users"));
    settings.pgbouncer_version = raw.pgbouncer_version.as_ref().and_then(|item| version(item, findings));
    settings
}

/// Without a word on it.
pub(super) fn default_http() -> Http {
    Http { address: SocketAddr::from(([127, 0, 0, 1], HTTP_PORT)), by_default: true, token: None }
}

fn http(raw: &keys::Admin<'_>, outside: &Outside<'_>, over: &Overrides, findings: &mut Findings) -> Option<Http> {
    let written = raw.token.as_ref().and_then(|item| {
        let secret = item.secret(outside, findings)?;
        shown_token(secret, &item.place, findings)
    });
    let (flagged, place) = (token_flag(over, outside, findings), Place::absent("--http"));
    let token = flagged.or(written);
    if over.token.is_none() && raw.token.is_some() && token.is_none() {
        // It is wrong, which has been said.
        return None;
    }
    match (&over.http, &raw.http) {
        (Some(text), _) => address(text, &place, token, findings),
        (None, None) => Some(Http { token, ..default_http() }),
        (None, Some(item)) if matches!(item.value, DeValue::String(text) if text.is_empty()) => None,
        (None, Some(item)) => address(item.text(findings)?, &item.place, token, findings),
    }
}

/// Without a file.
pub(super) fn flagged_http(outside: &Outside<'_>, over: &Overrides, findings: &mut Findings) -> Option<Http> {
    let token = token_flag(over, outside, findings);
    match &over.http {
        Some(text) => address(text, &Place::absent("--http"), token, findings),
        None => Some(Http { token, ..default_http() }),
    }
}

fn token_flag(over: &Overrides, outside: &Outside<'_>, findings: &mut Findings) -> Option<Secret> {
    let place = Place::absent("--token");
    let text = over.token.as_deref()?;
    let secret = secret(text, outside).map_err(|wrong| findings.wrong(&place, wrong)).ok()?;
    shown_token(secret, &place, findings)
}

fn shown_token(secret: Secret, place: &Place, findings: &mut Findings) -> Option<Secret> {
    if !matches!(secret, Secret::Plain(_)) {
        findings.mistake(place, "is a hash, which nobody can show", "give the token itself");
        return None;
    }
    Some(secret)
}

/// Where HTTP is served; nowhere when nothing is written.
fn address(text: &str, place: &Place, token: Option<Secret>, findings: &mut Findings) -> Option<Http> {
    const MEND: &str = "write it like \"127.0.0.1:6433\", or \"\" for none";
    if text.is_empty() {
        return None;
    }
    let Ok(address) = text.replacen("localhost:", "127.0.0.1:", 1).parse::<SocketAddr>() else {
        findings.mistake(place, format!("\"{text}\" is no address with a port"), MEND);
        return None;
    };
    if !address.ip().is_loopback() && token.is_none() {
        let what = format!("everyone who reaches {address} is asked for a token, and there is none");
        let mend = "add admin.token, or listen on loopback only; without a file: --token or POOLHOUSE_TOKEN";
        findings.mistake(place, what, mend);
    }
    Some(Http { address, by_default: false, token })
}

/// Names of users who can log in.
fn users(list: &Item<'_>, key: &str, auth: &auth::Settings, findings: &mut Findings) -> Vec<String> {
    let mut names = Vec::new();
    for item in list.list(&format!("write it like {key} = [\"alice\"]"), findings) {
        let Some(name) = item.text(findings) else { continue };
        // For the console users are looked up in the one database that is named for it.
        let looked_up = auth.lookup.user.is_some() && auth.lookup.database.is_some();
        if auth.method != Method::Trust && !auth.users.contains_key(name) && !looked_up {
            let what = format!("user \"{name}\" has no password, so nobody can log in as it");
            findings.warning(&item.place, what, "add the user under [users], or to users_file");
        }
        names.push(name.to_owned());
    }
    names
}

/// Two or three numbers, as PgBouncer counts its versions.
fn version(item: &Item<'_>, findings: &mut Findings) -> Option<String> {
    let text = item.text(findings)?;
    let parts: Vec<&str> = text.split('.').collect();
    let is_number = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !(2..=3).contains(&parts.len()) || !parts.iter().all(is_number) {
        findings.mistake(&item.place, format!("\"{text}\" is no version"), "write it like \"1.25.0\"");
        return None;
    }
    Some(text.to_owned())
}
