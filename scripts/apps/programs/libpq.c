// libpq from C: pipelines, single rows, COPY in both formats, describe, cancels, large objects, functions, errors' fields.
#include <libpq-fe.h>
#include <libpq/libpq-fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <time.h>
#include <endian.h>

static PGconn *c;

static void say(const char *what, const char *out) { printf("%s: %s\n", what, out); fflush(stdout); }

static char text[4000];
static const char *shown(PGresult *r) {
    ExecStatusType s = PQresultStatus(r);
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    if (s == PGRES_FATAL_ERROR) {
        const char *m = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
        snprintf(text, sizeof text, "error %s %s", state ? state : "", m ? m : PQresultErrorMessage(r));
    } else {
        snprintf(text, sizeof text, "%s %s %d/%d %s", PQresStatus(s), PQcmdStatus(r), PQntuples(r), PQnfields(r),
            PQntuples(r) && PQnfields(r) ? PQgetvalue(r, 0, 0) : "");
    }
    return text;
}

static void run(const char *what, const char *sql) {
    PGresult *r = PQexec(c, sql);
    say(what, shown(r));
    PQclear(r);
}

static void results(const char *what) {
    PGresult *r;
    int nulls = 0;
    for (;;) {
        r = PQgetResult(c);
        if (!r) {
            if (++nulls == 2) break;
            continue;
        }
        nulls = 0;
        say(what, shown(r));
        if (PQresultStatus(r) == PGRES_PIPELINE_SYNC) { PQclear(r); break; }
        PQclear(r);
    }
}

static PGconn *login(void) {
    PGconn *made = PQconnectdb("host=127.0.0.1");
    if (PQstatus(made) != CONNECTION_OK) { fprintf(stderr, "%s", PQerrorMessage(made)); exit(1); }
    return made;
}

static void notice(void *arg, const PGresult *r) { (void)arg; say("notice", PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY)); }

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }

static void drain(const char *what) { PGresult *r; while ((r = PQgetResult(c))) { say(what, shown(r)); PQclear(r); } }

int main(void) {
    c = login();
    PQsetNoticeReceiver(c, notice, NULL);
    run("create", "CREATE TABLE t (a int PRIMARY KEY, b text)");

    PQenterPipelineMode(c);
    PQsendQueryParams(c, "INSERT INTO t VALUES (1, 'one') RETURNING b", 0, NULL, NULL, NULL, NULL, 0);
    PQsendPrepare(c, "p", "SELECT b FROM t WHERE a = $1", 0, NULL);
    const char *values[] = {"1"};
    PQsendQueryPrepared(c, "p", 1, values, NULL, NULL, 0);
    PQsendDescribePrepared(c, "p");
    PQpipelineSync(c);
    results("pipeline");
    PQsendQueryParams(c, "INSERT INTO t VALUES (2, 'two')", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(c, "INSERT INTO t VALUES (1, 'again')", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(c, "INSERT INTO t VALUES (3, 'three')", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    PQsendQueryParams(c, "SELECT count(*) FROM t", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    results("pipeline that fails");
    results("the next one");
    PQsendQueryParams(c, "SELECT 'flushed'", 0, NULL, NULL, NULL, NULL, 0);
    PQsendFlushRequest(c);
    PQflush(c);
    PGresult *r = PQgetResult(c);
    say("flush", shown(r));
    PQclear(r);
    PQgetResult(c);
    PQsendQueryParams(c, "BEGIN", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(c, "INSERT INTO t VALUES (4, 'four')", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(c, "SAVEPOINT s", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    PQsendQueryParams(c, "SELECT 1/0", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    PQsendQueryParams(c, "ROLLBACK TO s", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(c, "COMMIT", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    results("after a flush");
    results("savepoint in a pipeline");
    results("savepoint in a pipeline");
    PQsendQueryParams(c, "SET application_name = 'piped'", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(c, "CREATE TEMP TABLE mine (a int)", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(c, "SELECT current_setting('application_name')", 0, NULL, NULL, NULL, NULL, 0);
    PQsendQueryParams(c, "SELECT pg_advisory_lock(1)", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    results("session state in a pipeline");
    for (int n = 0; n < 500; n++) PQsendQueryParams(c, n % 2 ? "SELECT 1" : "INSERT INTO mine VALUES (1)", 0, NULL, NULL, NULL, NULL, 0);
    PQpipelineSync(c);
    int done = 0;
    for (;;) {
        r = PQgetResult(c);
        if (!r) continue;
        int end = PQresultStatus(r) == PGRES_PIPELINE_SYNC;
        done += PQresultStatus(r) == PGRES_TUPLES_OK || PQresultStatus(r) == PGRES_COMMAND_OK;
        PQclear(r);
        if (end) break;
    }
    snprintf(text, sizeof text, "%d", done);
    say("long pipeline", text);
    say("left it", PQexitPipelineMode(c) ? "yes" : "no");
    run("temporary table", "SELECT count(*) FROM mine");
    run("dropped", "DROP TABLE mine");
    run("unlock", "SELECT pg_advisory_unlock(1)");

    PQsendQuery(c, "SELECT g FROM generate_series(1, 5) g; SELECT 'more'; SELECT 1/0; SELECT 'not reached'");
    PQsetSingleRowMode(c);
    drain("single row");
    run("empty", "");
    run("comment", "-- nothing");
    run("several", "SELECT 1; SELECT 2; INSERT INTO t VALUES (9, 'nine')");
    run("implicit block that fails", "INSERT INTO t VALUES (10, 'ten'); SELECT 1/0");
    run("nothing of it", "SELECT count(*) FROM t WHERE a = 10");
    run("block that goes on", "BEGIN; INSERT INTO t VALUES (11, 'eleven')");
    snprintf(text, sizeof text, "%d", PQtransactionStatus(c));
    say("status", strdup(text));
    run("its end", "COMMIT; SELECT count(*) FROM t");
    run("COMMIT outside", "COMMIT");
    run("BEGIN twice", "BEGIN; BEGIN");
    run("rolled back", "ROLLBACK");
    run("DO", "DO $$ BEGIN RAISE NOTICE 'hello'; END $$");

    r = PQprepare(c, "q", "SELECT $1::int + $2::int", 0, NULL);
    PQclear(r);
    int number = htobe32(40), lengths[] = {4, 1}, formats[] = {1, 0};
    const char *both[] = {(char *)&number, "2"};
    r = PQexecPrepared(c, "q", 2, both, lengths, formats, 0);
    say("mixed formats", shown(r));
    PQclear(r);
    r = PQdescribePrepared(c, "q");
    snprintf(text, sizeof text, "%d parameters, type %u", PQnparams(r), PQparamtype(r, 0));
    say("described", strdup(text));
    PQclear(r);
    r = PQprepare(c, "q", "SELECT 1", 0, NULL);
    say("prepared twice", shown(r));
    PQclear(r);
    r = PQexecPrepared(c, "nothing", 0, NULL, NULL, NULL, 0);
    say("not prepared", shown(r));
    PQclear(r);
    r = PQprepare(c, "bad", "SELEC 1", 0, NULL);
    say("prepared badly", shown(r));
    PQclear(r);
    run("DECLARE", "BEGIN; DECLARE cur CURSOR FOR SELECT g FROM generate_series(1, 10) g");
    r = PQdescribePortal(c, "cur");
    say("portal", shown(r));
    PQclear(r);
    run("FETCH", "FETCH 3 FROM cur");
    run("MOVE", "MOVE 2 IN cur");
    run("end", "COMMIT");
    r = PQexecParams(c, "SELECT $1", 1, NULL, values, NULL, NULL, 0);
    say("unknown type", shown(r));
    PQclear(r);
    static char many[65535][2];
    const char **list = malloc(sizeof(char *) * 60000);
    for (int n = 0; n < 60000; n++) { strcpy(many[n], "1"); list[n] = many[n]; }
    char *big = malloc(1200000), *at = big + sprintf(big, "SELECT cardinality(ARRAY[");
    for (int n = 1; n <= 60000; n++) at += sprintf(at, "%s$%d::int", n > 1 ? "," : "", n);
    sprintf(at, "])");
    r = PQexecParams(c, big, 60000, NULL, list, NULL, NULL, 0);
    say("many parameters", shown(r));
    PQclear(r);

    r = PQexec(c, "COPY t FROM STDIN");
    say("COPY", shown(r));
    PQclear(r);
    PQputCopyData(c, "20\ttwenty\n21\t\\N\n", 16);
    PQputCopyEnd(c, NULL);
    drain("copied");
    r = PQexec(c, "COPY t FROM STDIN");
    PQclear(r);
    PQputCopyData(c, "22\tx\n", 5);
    PQputCopyEnd(c, "given up");
    drain("given up");
    r = PQexec(c, "COPY (SELECT * FROM t ORDER BY a) TO STDOUT (FORMAT binary)");
    PQclear(r);
    char *row;
    int bytes = 0, got;
    while ((got = PQgetCopyData(c, &row, 0)) > 0) { bytes += got; PQfreemem(row); }
    snprintf(text, sizeof text, "%d bytes", bytes);
    say("binary", strdup(text));
    drain("copied out");
    PQsendQuery(c, "COPY (SELECT 1) TO STDOUT; SELECT 'after it'");
    r = PQgetResult(c);
    while (PQgetCopyData(c, &row, 0) > 0) PQfreemem(row);
    drain("COPY among others");

    PGcancel *cancel = PQgetCancel(c);
    char words[256];
    for (int block = 0; block < 2; block++) {
        if (block) run("BEGIN", "BEGIN");
        double began = now();
        PQsendQuery(c, "SELECT pg_sleep(5)");
        PQflush(c);
        usleep(300000);
        PQcancel(cancel, words, sizeof words);
        drain(block ? "cancelled in a block" : "cancelled");
        say("in time", now() - began < 3 ? "yes" : "no");
    }
    run("ROLLBACK", "ROLLBACK");
    PQcancel(cancel, words, sizeof words);
    usleep(200000);
    run("a late cancel hits nothing", "SELECT 'fine'");
    PQfreeCancel(cancel);

    run("BEGIN", "BEGIN");
    Oid id = lo_creat(c, INV_READ | INV_WRITE);
    int fd = lo_open(c, id, INV_WRITE | INV_READ);
    char large[20];
    lo_write(c, fd, "hello world", 11);
    lo_lseek64(c, fd, 6, SEEK_SET);
    got = lo_read(c, fd, large, 5);
    large[got > 0 ? got : 0] = 0;
    say("large object", large);
    lo_truncate64(c, fd, 3);
    snprintf(text, sizeof text, "%d", lo_lseek(c, fd, 0, SEEK_END));
    say("its end", strdup(text));
    lo_close(c, fd);
    lo_unlink(c, id);
    run("COMMIT", "COMMIT");

    PGconn *other = login();
    run("LISTEN", "LISTEN ch");
    PQclear(PQexec(other, "NOTIFY ch, 'one'"));
    run("behind it", "SELECT 1");
    PGnotify *n = PQnotifies(c);
    say("notified at once", n ? n->extra : "no");
    say("by", n && n->be_pid == PQbackendPID(other) ? "its process" : "another process");
    run("NOTIFY", "NOTIFY ch, 'own'");
    PQconsumeInput(c);
    n = PQnotifies(c);
    say("own", n ? n->extra : "no");
    run("UNLISTEN", "UNLISTEN *");
    PQfinish(other);

    r = PQexec(c, "SELECT count(*) FROM t WHERE b = 1");
    const int fields[] = {PG_DIAG_SEVERITY, PG_DIAG_SEVERITY_NONLOCALIZED, PG_DIAG_SQLSTATE, PG_DIAG_MESSAGE_PRIMARY, PG_DIAG_MESSAGE_DETAIL,
        PG_DIAG_MESSAGE_HINT, PG_DIAG_STATEMENT_POSITION, PG_DIAG_INTERNAL_POSITION, PG_DIAG_CONTEXT, PG_DIAG_SOURCE_FUNCTION, PG_DIAG_SOURCE_FILE};
    for (unsigned f = 0; f < sizeof fields / sizeof *fields; f++) say("field", PQresultErrorField(r, fields[f]) ? PQresultErrorField(r, fields[f]) : "-");
    PQclear(r);
    for (const char **name = (const char *[]){"server_version", "server_encoding", "client_encoding", "application_name", "is_superuser",
             "session_authorization", "DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings",
             "default_transaction_read_only", "in_hot_standby", NULL}; *name; name++)
        say(*name, PQparameterStatus(c, *name) ? PQparameterStatus(c, *name) : "-");
    run("SET of a reported one", "SET DateStyle = 'German'");
    say("DateStyle then", PQparameterStatus(c, "DateStyle"));
    run("rolled back SET", "BEGIN; SET IntervalStyle = 'iso_8601'; ROLLBACK");
    say("IntervalStyle then", PQparameterStatus(c, "IntervalStyle"));
    PQsetClientEncoding(c, "LATIN1");
    say("encoding", pg_encoding_to_char(PQclientEncoding(c)));
    PQreset(c);
    say("after a reset", PQparameterStatus(c, "DateStyle"));
    run("last", "SELECT 1");
    PQfinish(c);
    return 0;
}
