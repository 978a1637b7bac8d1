//! Where scripts are played: one server with two databases that hold the same, `direct` for direct connections and
//! `pooled` behind Poolhouse with two server connections per pool, and the other clients that use this pool meanwhile.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::{
    super::kit::{AtEnd, Config, PATIENCE, RawClient, cluster, wait_until},
    noise, not_yet,
    play::{NO_ANSWER, Place, Play},
    probe,
    script::Script,
};

/// What anybody may log in with.
pub const PASSWORD: &str = "secret";

const DIRECT: &str = "script_direct";
const POOLED: &str = "script_pooled";

/// How many other clients there are.
const OTHERS: usize = 20;

/// A script that is expected to differ is played so often, since what it misses may come back by luck.
const TRIES: usize = 4;

/// In both databases, by the superuser.
const FIXTURES: &[&str] = &[
    "CREATE SCHEMA one; CREATE SCHEMA two; GRANT ALL ON SCHEMA one, two TO PUBLIC",
    "CREATE TABLE one.place (where_is text); INSERT INTO one.place VALUES ('one')",
    "CREATE TABLE two.place (where_is text); INSERT INTO two.place VALUES ('two')",
    "CREATE TABLE item (id int PRIMARY KEY, name text); INSERT INTO item SELECT x, 'item ' || x FROM generate_series(1, 5) x",
    "CREATE SEQUENCE counter; CREATE SEQUENCE other_counter; CREATE SEQUENCE noise_counter",
    "CREATE TABLE numbered (id serial, x int)",
    "GRANT ALL ON ALL TABLES IN SCHEMA public, one, two TO PUBLIC; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC",
    "CREATE FUNCTION sets(name text, value text) RETURNS text LANGUAGE plpgsql AS
     $$BEGIN RETURN set_config(name, value, false); END$$",
    "CREATE FUNCTION sets_within() RETURNS text LANGUAGE sql SET work_mem = '7MB' AS $$SELECT current_setting('work_mem')$$",
    "CREATE FUNCTION locks(key int) RETURNS void LANGUAGE sql AS $$SELECT pg_advisory_lock(key)$$",
    "CREATE FUNCTION makes_temporary() RETURNS void LANGUAGE plpgsql AS
     $$BEGIN CREATE TEMP TABLE made (x int); INSERT INTO made VALUES (1); END$$",
    "CREATE FUNCTION on_insert() RETURNS trigger LANGUAGE plpgsql AS
     $$BEGIN PERFORM set_config('work_mem', NEW.value, false); RETURN NEW; END$$",
    "CREATE TABLE setter (value text); GRANT ALL ON setter TO PUBLIC",
    "CREATE TRIGGER sets BEFORE INSERT ON setter FOR EACH ROW EXECUTE FUNCTION on_insert()",
    "CREATE PROCEDURE commits() LANGUAGE plpgsql AS
     $$BEGIN PERFORM set_config('work_mem', '8MB', false); COMMIT; PERFORM set_config('work_mem', '9MB', false); ROLLBACK; END$$",
];

/// Runs scripts directly and through Poolhouse, and compares.
pub struct Stage {
    direct: Place<'static>,
    pooled: Place<'static>,
    /// By user: what a fresh client finds of its session.
    fresh: Vec<(&'static str, Vec<String>)>,
}

/// Runs `act` on a stage with the other clients at work, and fails the test when they saw anything of anybody, or when
/// anything is left of anybody afterwards.
pub fn on_stage(act: impl FnOnce(&Stage)) {
    on_stage_of(0, act);
}

/// [`on_stage`] with so many replicas, on which transactions read until they write. A commit waits until they have it, as
/// there would be no other way to tell what a client must see of another.
pub fn on_stage_of(replicas: usize, act: impl FnOnce(&Stage)) {
    let cluster = cluster().database(DIRECT).database(POOLED).scram_user("app", PASSWORD).scram_user("guest", PASSWORD);
    let cluster = cluster.superuser("boss", PASSWORD).replicas(replicas).start().unwrap();
    if replicas > 0 {
        cluster.node(0).query("ALTER SYSTEM SET synchronous_standby_names = '*'").unwrap();
        cluster.node(0).query("ALTER SYSTEM SET synchronous_commit = 'remote_apply'").unwrap();
        cluster.node(0).query("SELECT pg_reload_conf()").unwrap();
    }
    cluster.node(0).query("GRANT guest TO app").unwrap();
    for database in [DIRECT, POOLED] {
        for sql in FIXTURES {
            cluster.node(0).query_in(database, sql).unwrap();
        }
    }
    let config = Config::of_cluster(&cluster)
        .set("pool.size", "2")
        .set("pool.checkout_timeout", "'30s'")
        .set("auth.method", "'trust'")
        .set("clusters.main.routing.transactions", "'read-until-write'");
    let config = ["app", "boss", "guest"].iter().fold(config, |config, user| config.user(user, PASSWORD));
    let pooler = config.start();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = AtEnd(&stop);
        let others: Vec<_> = (0..OTHERS)
            .map(|number| {
                let (port, stop) = (pooler.port(), &stop);
                scope.spawn(move || noise::work(number, Place { port, database: POOLED, password: PASSWORD }, stop))
            })
            .collect();
        let direct = Place { port: cluster.node(0).port(), database: DIRECT, password: PASSWORD };
        let pooled = Place { port: pooler.port(), database: POOLED, password: PASSWORD };
        let fresh = ["app", "boss"].map(|user| (user, probe::look(&mut login(direct, user))));
        let stage = Stage { direct, pooled, fresh: fresh.into() };
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&stage)));
        stop.store(true, Ordering::Relaxed);
        let complaints: Vec<_> = others.into_iter().flat_map(|other| other.join().unwrap()).collect();
        if let Err(panic) = acted {
            std::panic::resume_unwind(panic);
        }
        assert!(complaints.is_empty(), "what the other clients saw: {complaints:#?}");
    });
    let left = probe::LEFT_BEHIND.replace("(database)", POOLED);
    wait_until("nothing is left of anybody", PATIENCE, || cluster.node(0).query_in(POOLED, &left).unwrap().is_empty());
}

fn login(place: Place<'_>, user: &str) -> RawClient {
    RawClient::login(place.port, place.database, user, place.password)
}

impl Stage {
    /// What differs between the two ways, or what the script has left on server connections, for people.
    pub fn judge(&self, script: &Script) -> Option<String> {
        let mut play = Play::new(self.direct);
        play.run(script);
        let expected = play.end();
        let silent = expected.lines.iter().any(|line| line.contains(NO_ANSWER));
        assert!(!silent, "{}: the script waits for what does not come: {:#?}", script.name, expected.lines);
        let mut play = Play::new(self.pooled);
        play.run(script);
        let leaked = self.leaks("while its clients are idle");
        let answered = play.end();
        let leaked = leaked.or_else(|| self.leaks("after its clients have left"));
        let difference = answered.difference(&expected);
        let report = difference.into_iter().chain(leaked).collect::<Vec<_>>().join("\n");
        (!report.is_empty()).then(|| format!("== {}\n{report}", script.name))
    }

    /// What fresh clients find on the connections of the pool that they get.
    fn leaks(&self, when: &str) -> Option<String> {
        let found = self.fresh.iter().map(|(user, _)| probe::look(&mut login(self.pooled, user)));
        let mut both = found.zip(&self.fresh);
        let (found, (_, expected)) = both.find(|(found, (_, expected))| found != expected)?;
        let only = |these: &[String], those: &[String]| -> Vec<String> {
            these.iter().filter(|text| !those.contains(text)).cloned().collect()
        };
        Some(format!("{when}, others see {:?}, not {:?}", only(&found, expected), only(expected, &found)))
    }

    /// Plays all scripts, and fails the test when one differs that is not known to, or the other way round.
    pub fn play_all(&self, scripts: &[Script]) {
        let mut reports = Vec::new();
        for script in scripts {
            match not_yet::reason(&script.name) {
                None => reports.extend(self.judge(script)),
                Some(_) if not_yet::only_sometimes(&script.name) => {}
                Some(reason) if (0..TRIES).all(|_| self.judge(script).is_none()) => {
                    reports.push(format!("== {}\nis equal now: take it out of NOT_YET ({reason})", script.name));
                }
                Some(_) => {}
            }
        }
        assert!(reports.is_empty(), "{} of {} scripts:\n{}", reports.len(), scripts.len(), reports.join("\n"));
    }
}
