//! `[admin]`: who may use the console, and what it says of itself.

use super::{
    mistake::Findings,
    raw::{self, Item},
};
use crate::{
    admin::Settings,
    auth::{self, Method},
};

pub(super) fn read(file: &raw::File<'_>, auth: &auth::Settings, findings: &mut Findings) -> Settings {
    let raw = raw::Admin::read(file.admin.as_ref(), findings);
    if let Some(item) = &raw.http {
        item.not_yet("remove it: the console has what there is to see", findings);
    }
    let mut names = |item: &Option<Item<'_>>, key: &str| {
        item.as_ref().map(|item| users(item, key, auth, findings)).unwrap_or_default()
    };
    let (users, stats_users) = (names(&raw.users, "users"), names(&raw.stats_users, "stats_users"));
    let pgbouncer_version = raw.pgbouncer_version.as_ref().and_then(|item| version(item, findings));
    Settings { users, stats_users, pgbouncer_version }
}

/// Names of users who can log in.
fn users(list: &Item<'_>, key: &str, auth: &auth::Settings, findings: &mut Findings) -> Vec<String> {
    let mut names = Vec::new();
    for item in list.list(&format!("write it like {key} = [\"alice\"]"), findings) {
        let Some(name) = item.text(findings) else { continue };
        if auth.method != Method::Trust && !auth.users.contains_key(name) {
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
