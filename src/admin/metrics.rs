//! Metrics in Prometheus' text format and in OpenMetrics: what there is, in base units, with bounded labels. Each is declared once, with how it
//! is read, here or in `metrics::counts`; docs/metrics.md lists the same, and a test compares the two. Everything is read
//! when it is asked for; nothing is counted for this alone.

mod format;
mod view;

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use super::Desk;
use crate::metrics::{COUNTED, Errors, Figures, Kind, Metric, TIMED};
pub use format::Format;
use format::Page;
use poolhouse_core::topology::{Role, State};
use view::{Seen, View};

/// A metric and how it is read.
struct Shown {
    metric: Metric,
    read: fn(&View<'_>, &mut Samples<'_>),
}

/// Where the values of one metric go.
struct Samples<'p> {
    metric: &'p Metric,
    page: &'p mut Page,
}

impl Samples<'_> {
    /// A value with those of the labels.
    fn add(&mut self, labels: &[&str], value: f64) {
        self.page.sample(self.metric, labels, value);
    }

    /// One of each node, unless there is none.
    fn each_node(&mut self, view: &View<'_>, value: impl Fn(&Seen) -> Option<f64>) {
        for seen in &view.nodes {
            if let Some(value) = value(seen) {
                self.add(&seen.names.each_ref().map(String::as_str), value);
            }
        }
    }
}

/// Declares metrics: name, labels, help, and how they are read.
macro_rules! metrics {
    ($($kind:ident $name:literal [$($label:literal),*] $help:literal => $read:expr;)*) => {
        &[$(Shown {
            metric: Metric { name: $name, kind: Kind::$kind, help: $help, labels: &[$($label),*] },
            read: $read,
        },)*]
    };
}

/// All metrics but for those of `metrics`.
const SHOWN: &[Shown] = metrics! {
    Gauge "poolhouse_build_info" ["version"] "Always 1; the label says which version runs." =>
        |_, to| to.add(&[env!("CARGO_PKG_VERSION")], 1.0);
    Gauge "process_start_time_seconds" [] "When the process began, in seconds since 1970." =>
        |view, to| view.process.iter().for_each(|process| to.add(&[], process.started));
    Counter "process_cpu_seconds_total" [] "Time of the processor that the process has used, in seconds." =>
        |view, to| view.process.iter().for_each(|process| to.add(&[], process.cpu));
    Gauge "process_resident_memory_bytes" [] "Memory that the process holds, in bytes." =>
        |view, to| view.process.iter().for_each(|process| to.add(&[], process.memory));
    Gauge "process_open_fds" [] "Open file descriptors." =>
        |view, to| view.process.iter().for_each(|process| to.add(&[], process.files));
    Gauge "poolhouse_ready" ["for"] "1 when Poolhouse can serve writes, or reads; 0 otherwise." => |view, to| {
        for (what, reads) in [("writes", false), ("reads", true)] {
            to.add(&[what], one_if(view.desk.ready(reads).is_ok()));
        }
    };
    Gauge "poolhouse_clients_connected" []
        "Clients that have proved who they are, those that still wait for a server to begin among them." =>
        |view, to| to.add(&[], view.desk.frontend.registry.connected() as f64);
    Gauge "poolhouse_connections_logging_in" [] "Connections that have not proved yet who they are." =>
        |view, to| to.add(&[], view.desk.frontend.strangers.len() as f64);
    Counter "poolhouse_connections_crowded_out_total" []
        "Connections that had to give way before they had proved who they are, since there were too many." =>
        |view, to| to.add(&[], view.desk.frontend.strangers.evicted() as f64);
    Gauge "poolhouse_clients" ["database", "user", "state"]
        "Clients that are logged in: active ones have a server connection, waiting ones wait for one, idle ones need none." =>
        |view, to| for ((database, user), of) in &view.clients {
            for (state, count) in [("active", of.active), ("idle", of.idle), ("waiting", of.waiting)] {
                to.add(&[database, user, state], count.into());
            }
        };
    Gauge "poolhouse_pinned_clients" ["reason"]
        "Clients that keep their server connections between transactions, by what they keep them for." =>
        |view, to| view.pinned.iter().for_each(|(reason, count)| to.add(&[reason], (*count).into()));
    Gauge "poolhouse_client_oldest_wait_seconds" ["database", "user"]
        "How long the client has waited that waits longest for a server connection; 0 when none waits." =>
        |view, to| for ((database, user), of) in &view.clients {
            let wait = of.since.map_or(Duration::ZERO, |since| since.elapsed());
            to.add(&[database, user], wait.as_secs_f64());
        };
    Gauge "poolhouse_server_refuses" ["database", "user", "node"]
        "1 while a server lets no login of this database and user in; others serve as far as they can." =>
        |view, to| for ((database, user), target) in view.desk.frontend.targets() {
            for node in target.troubled().ids() {
                to.add(&[&database, &user, &target.cluster.node(node).name], 1.0);
            }
        };
    Counter "poolhouse_server_login_failures_total" ["database", "user", "node", "code"]
        "Logins at servers that have failed, by the SQLSTATE of the error." =>
        |view, to| for ((database, user), of) in &view.accounts {
            for ((node, code), count) in &of.login_failures {
                to.add(&[database, user, node, code], *count as f64);
            }
        };
    Gauge "poolhouse_servers" ["database", "user", "node", "state"]
        "Server connections in pools: lent to clients, idle, or opening." =>
        |view, to| for ((database, user), target) in view.desk.frontend.targets() {
            for (node, pool) in target.pools() {
                let (name, counts) = (&target.cluster.node(node).name, pool.counts());
                for (state, count) in [("lent", counts.lent), ("idle", counts.idle), ("opening", counts.opening)] {
                    to.add(&[&database, &user, name, state], count as f64);
                }
            }
        };
    Counter "poolhouse_logins_total" ["database", "user"] "Clients that have logged in." =>
        |view, to| view.accounts.iter().for_each(|((database, user), of)| to.add(&[database, user], of.logins as f64));
    Counter "poolhouse_errors_total" ["database", "user", "side", "class"]
        "Errors that clients got, by who reported them (server or poolhouse) and the class of their SQLSTATE." =>
        |view, to| for ((database, user), of) in &view.accounts {
            let mut write = |side: &str, errors: &Errors| {
                for (class, count) in errors.by_class() {
                    to.add(&[database, user, side, class], count as f64);
                }
            };
            write("server", &of.all.server_errors);
            write("poolhouse", &of.all.own_errors);
        };
    Counter "poolhouse_refused_clients_total" ["code"] "Clients that were not let in, by the SQLSTATE they were told." =>
        |view, to| for (code, count) in view.desk.frontend.registry.refused.all() {
            to.add(&[&code], count as f64);
        };
    Counter "poolhouse_verdict_cache_lookups_total" ["result"]
        "Texts of statements that were judged: found among those known (hit), or parsed (miss)." => |view, to| {
            to.add(&["hit"], view.verdicts.hits as f64);
            to.add(&["miss"], view.verdicts.misses as f64);
        };
    Counter "poolhouse_verdict_cache_evictions_total" [] "Known texts that had to make room for others." =>
        |view, to| to.add(&[], view.verdicts.evictions as f64);
    Gauge "poolhouse_verdict_cache_entries" [] "Known texts." => |view, to| to.add(&[], view.verdicts.entries as f64);
    Gauge "poolhouse_verdict_cache_bytes" [] "What they take, in bytes." =>
        |view, to| to.add(&[], view.verdicts.bytes as f64);
    Gauge "poolhouse_prepared_statements" [] "Different prepared statements that are kept for clients." =>
        |view, to| to.add(&[], view.prepared.0 as f64);
    Gauge "poolhouse_prepared_statements_bytes" [] "What their texts take, in bytes." =>
        |view, to| to.add(&[], view.prepared.1 as f64);
    Gauge "poolhouse_statements_on_hold" ["cluster"] "Statements that wait for a server that can run them." =>
        |view, to| for cluster in &view.clusters {
            to.add(&[&cluster.name], cluster.held.now.load(Ordering::Relaxed) as f64);
        };
    Counter "poolhouse_held_statements_total" ["cluster", "end"]
        "Statements that had to wait for a server that can run them, by how that ended: served, failed, or their clients had left." =>
        |view, to| for cluster in &view.clusters {
            let held = &cluster.held;
            for (end, count) in [("served", &held.served), ("failed", &held.failed), ("left", &held.left)] {
                to.add(&[&cluster.name, end], count.load(Ordering::Relaxed) as f64);
            }
        };
    Counter "poolhouse_failovers_total" ["cluster"] "How often another node became the primary." =>
        |view, to| for cluster in &view.clusters {
            to.add(&[&cluster.name], cluster.failovers.load(Ordering::Relaxed) as f64);
        };
    Counter "poolhouse_reloads_total" ["result"]
        "How often the configuration was read again: taken over (ok), or wrong (refused)." =>
        |view, to| for (result, count) in ["ok", "refused"].into_iter().zip(&view.desk.reloads) {
            to.add(&[result], count.load(Ordering::Relaxed) as f64);
        };
    Gauge "poolhouse_node_state" ["cluster", "node", "state"] "1 for the state that the node is in." =>
        |view, to| for Seen { names: [cluster, node], state, .. } in &view.nodes {
            for known in STATES.map(State::name) {
                to.add(&[cluster, node, known], one_if(known == *state));
            }
        };
    Gauge "poolhouse_node_role" ["cluster", "node", "role"] "1 for the role that the node says it has." =>
        |view, to| for Seen { names: [cluster, node], role, .. } in &view.nodes {
            for (name, known) in [("primary", Role::Primary), ("replica", Role::Replica)] {
                to.add(&[cluster, node, name], one_if(*role == Some(known)));
            }
        };
    Gauge "poolhouse_node_is_primary" ["cluster", "node"] "1 for the node that takes writes." =>
        |view, to| to.each_node(view, |seen| Some(one_if(seen.is_primary)));
    Gauge "poolhouse_node_timeline" ["cluster", "node"] "The node's timeline; 0 when that is not known." =>
        |view, to| to.each_node(view, |seen| Some(seen.timeline.into()));
    Gauge "poolhouse_node_lag_bytes" ["cluster", "node"]
        "WAL of the primary that a replica has not replayed, as they were last asked, in bytes." =>
        |view, to| to.each_node(view, |seen| seen.lag_bytes.map(|bytes| bytes as f64));
    Gauge "poolhouse_node_lag_seconds" ["cluster", "node"]
        "For how long a replica may lack commits of the primary, at most, as it was last asked." =>
        |view, to| to.each_node(view, |seen| seen.lag.map(|lag| lag.as_secs_f64()));
    Gauge "poolhouse_node_connections" ["cluster", "node", "state"] "Server connections of all pools: lent, or idle." =>
        |view, to| for Seen { names: [cluster, node], open, lent, .. } in &view.nodes {
            for (state, count) in [("lent", *lent), ("idle", open.saturating_sub(*lent))] {
                to.add(&[cluster, node, state], count as f64);
            }
        };
    Gauge "poolhouse_node_connections_max" ["cluster", "node"] "How many connections the node may have." =>
        |view, to| to.each_node(view, |seen| Some(seen.most as f64));
    Gauge "poolhouse_node_state_age_seconds" ["cluster", "node"] "How long the node has been in its state and role." =>
        |view, to| to.each_node(view, |seen| Some(seen.age.as_secs_f64()));
};

fn one_if(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

/// The states of nodes, one of which each of them is in.
const STATES: [State; 7] = [
    State::Unknown,
    State::Up,
    State::Suspect { failures: 0 },
    State::Down,
    State::Stale,
    State::Draining,
    State::Paused,
];

/// The whole page.
pub fn page(desk: &Desk, format: Format) -> String {
    let (view, mut page) = (View::of(desk), Page::new(format));
    for Shown { metric, read } in SHOWN {
        page.head(metric);
        read(&view, &mut Samples { metric, page: &mut page });
    }
    for timed in TIMED {
        by_labels(&view, &mut page, &timed.metric, |page, labels, figures| {
            page.histogram(&timed.metric, labels, (timed.times)(figures));
        });
    }
    for counted in COUNTED {
        by_labels(&view, &mut page, &counted.metric, |page, labels, figures| {
            for (count, own) in counted.counts {
                page.sample(&counted.metric, &[labels, own].concat(), figures.count(*count) as f64);
            }
        });
    }
    page.end()
}

/// The figures of each database and user, by node if the metric has that label and nodes are to be told apart. Labels that
/// are not told apart are empty, which is as if they were not there.
fn by_labels(view: &View<'_>, page: &mut Page, metric: &Metric, mut write: impl FnMut(&mut Page, &[&str], &Figures)) {
    page.head(metric);
    let (has_node, in_full) = (metric.labels.contains(&"node"), view.by_node);
    // Each histogram is twenty series.
    if !in_full && metric.kind == Kind::Histogram {
        let mut by_database: BTreeMap<&str, Figures> = BTreeMap::new();
        for ((database, _), read) in &view.accounts {
            by_database.entry(database).or_default().merge(&read.all);
        }
        for (database, figures) in &by_database {
            let labels = [*database, "", ""];
            write(page, if has_node { &labels } else { &labels[..2] }, figures);
        }
        return;
    }
    for ((database, user), read) in &view.accounts {
        match (has_node, in_full) {
            (true, true) => {
                read.by_node.iter().for_each(|(node, figures)| write(page, &[database, user, node], figures))
            }
            (true, false) => write(page, &[database, user, ""], &read.all),
            (false, _) => write(page, &[database, user], &read.all),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all() -> Vec<&'static Metric> {
        let shown = SHOWN.iter().map(|shown| &shown.metric).chain(TIMED.iter().map(|timed| &timed.metric));
        shown.chain(COUNTED.iter().map(|counted| &counted.metric)).collect()
    }

    fn named(name: &str) -> &'static Metric {
        all().into_iter().find(|metric| metric.name == name).unwrap()
    }

    #[test]
    fn names_follow_the_conventions() {
        let names: BTreeSet<_> = all().iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), all().len());
        let families: BTreeSet<_> = all().iter().map(|metric| metric.family()).collect();
        assert_eq!(families.len(), all().len(), "OpenMetrics knows counters without `_total`");
        for metric in all() {
            assert!(metric.name.starts_with("poolhouse_") || metric.name.starts_with("process_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.kind != Kind::Histogram || metric.name.ends_with("_seconds"), "{}", metric.name);
            assert_eq!(metric.name.contains("_bytes"), metric.help.contains("ytes"), "{}", metric.name);
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
        }
    }

    #[test]
    fn the_documentation_lists_them() {
        let page = include_str!("../../docs/metrics.md");
        let row = |metric: &Metric| {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} | {} |", metric.name, metric.kind.name(), labels.join(", "), metric.help)
        };
        let missing: Vec<_> = all().into_iter().map(row).filter(|row| !page.contains(row)).collect();
        assert!(missing.is_empty(), "docs/metrics.md lacks:\n{}", missing.join("\n"));
        let rows = page.lines().filter(|line| line.starts_with("| `po") || line.starts_with("| `pr")).count();
        assert_eq!(rows, all().len(), "docs/metrics.md lists what is not there");
    }

    #[test]
    fn lines_are_as_the_format_wants_them() {
        let mut page = Page::new(Format::Prometheus);
        page.head(named("poolhouse_ready"));
        page.sample(named("poolhouse_ready"), &["a\"b\\c\nd"], 1.0);
        page.sample(named("poolhouse_clients_connected"), &[], 2.5);
        let held = crate::metrics::histogram::Histogram::default();
        held.add(Duration::from_millis(2), 3, crate::metrics::counter::Writers::One);
        page.histogram(named("poolhouse_checkout_wait_seconds"), &["app", "alice"], &held.read());
        let page = page.end();
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(lines[1], "# TYPE poolhouse_ready gauge");
        assert_eq!(lines[2], "poolhouse_ready{for=\"a\\\"b\\\\c\\\\u{a}d\"} 1");
        assert_eq!(lines[3], "poolhouse_clients_connected 2.5");
        let labels = "database=\"app\",user=\"alice\"";
        assert!(
            lines.contains(&format!("poolhouse_checkout_wait_seconds_bucket{{{labels},le=\"0.0025\"}} 3").as_str())
        );
        assert!(lines.contains(&format!("poolhouse_checkout_wait_seconds_bucket{{{labels},le=\"0.001\"}} 0").as_str()));
        assert!(lines.contains(&format!("poolhouse_checkout_wait_seconds_bucket{{{labels},le=\"+Inf\"}} 3").as_str()));
        assert!(lines.contains(&format!("poolhouse_checkout_wait_seconds_sum{{{labels}}} 0.006").as_str()));
        assert!(lines.contains(&format!("poolhouse_checkout_wait_seconds_count{{{labels}}} 3").as_str()));
    }

    #[test]
    fn open_metrics_has_families_and_an_end() {
        let mut page = Page::new(Format::OpenMetrics);
        page.head(named("poolhouse_logins_total"));
        page.sample(named("poolhouse_logins_total"), &["app", "alice"], 3.0);
        let page = page.end();
        let lines: Vec<_> = page.lines().skip(1).collect();
        let sample = "poolhouse_logins_total{database=\"app\",user=\"alice\"} 3";
        assert_eq!(lines, ["# TYPE poolhouse_logins counter", sample, "# EOF"]);
    }

    #[test]
    fn the_format_is_the_one_that_is_asked_for() {
        for asks in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6, text/plain;version=0.0.4;q=0.4, */*;q=0.1",
            "text/html, Application/OpenMetrics-Text; Version=1.0.0",
        ] {
            assert_eq!(Format::accepted(asks), Format::OpenMetrics, "{asks}");
        }
        for other in
            ["", "*/*", "text/plain", "application/openmetrics-text;q=0", "application/openmetrics-text;version=0.0.1"]
        {
            assert_eq!(Format::accepted(other), Format::Prometheus, "{other}");
        }
    }
}
