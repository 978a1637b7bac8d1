// pgjdbc: server-prepared statements, batches, cursors by fetch size, generated keys, savepoints, COPY, notifications, and a
// small pool of its own, as HikariCP has one: a connection is tried, reset and handed on.

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.time.OffsetDateTime;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.core.BaseConnection;

public class Pgjdbc {
    interface Work { Object run() throws Exception; }

    static final String URL = "jdbc:postgresql://127.0.0.1:" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
    static final BlockingQueue<Connection> POOL = new LinkedBlockingQueue<>();

    static synchronized void say(String what, Object cameOut) {
        String text = String.valueOf(cameOut);
        System.out.println(what + ": " + text.substring(0, Math.min(600, text.length())).replace("\n", " "));
    }

    static void outcome(String what, Work work) {
        try {
            say(what, work.run());
        } catch (BatchUpdateException error) {
            say(what, error.getSQLState() + " " + Arrays.toString(error.getUpdateCounts()));
        } catch (SQLException error) {
            say(what, error.getSQLState() + " " + error.getMessage().split("\n")[0]);
        } catch (Exception error) {
            say(what, error);
        }
    }

    static Connection connect(String more) throws SQLException {
        return DriverManager.getConnection(URL + "?user=" + System.getenv("PGUSER") + more);
    }

    static Connection take() throws Exception {
        Connection connection = POOL.poll(20, TimeUnit.SECONDS);
        return connection.isValid(5) ? connection : connect("");
    }

    static void give(Connection connection) throws SQLException {
        if (!connection.getAutoCommit()) connection.rollback();
        connection.clearWarnings();
        connection.setAutoCommit(true);
        connection.setReadOnly(false);
        connection.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
        POOL.add(connection);
    }

    static Object one(Connection connection, String query) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(query)) {
            return rows.next() ? rows.getObject(1) : null;
        }
    }

    static void run(Connection connection, String statement) throws SQLException {
        try (Statement s = connection.createStatement()) {
            s.execute(statement);
        }
    }

    public static void main(String[] arguments) throws Exception {
        for (int number = 0; number < 6; number++) POOL.add(connect("&ApplicationName=hikari"));
        Connection c = take();
        run(c, "CREATE TABLE people (id bigserial PRIMARY KEY, name text UNIQUE, tags text[], data jsonb, at timestamptz, paid numeric(10,2), raw bytea)");
        // Flyway: a lock of the session on one connection, the migrations on another one.
        outcome("flyway", () -> {
            Connection lock = take();
            lock.setAutoCommit(false);
            Object got = one(lock, "SELECT pg_try_advisory_xact_lock(9000000)");
            Connection session = take();
            run(session, "SELECT pg_advisory_lock(77001)");
            c.setAutoCommit(false);
            run(c, "SET ROLE app");
            run(c, "CREATE TABLE flyway_schema_history (installed_rank int PRIMARY KEY, script text, success bool)");
            for (int number = 1; number <= 5; number++) {
                run(c, "CREATE TABLE m" + number + " (a int)");
                run(c, "INSERT INTO flyway_schema_history VALUES (" + number + ", 'V" + number + "', true)");
                c.commit();
            }
            run(c, "RESET ROLE");
            c.commit();
            c.setAutoCommit(true);
            Object unlocked = one(session, "SELECT pg_advisory_unlock(77001)");
            lock.commit();
            give(lock);
            give(session);
            return got + " " + unlocked + " " + one(c, "SELECT count(*) FROM flyway_schema_history");
        });
        outcome("generated keys", () -> {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO people (name, tags, data, at, paid, raw) VALUES (?, ?, ?::jsonb, ?, ?, ?)", Statement.RETURN_GENERATED_KEYS)) {
                s.setString(1, "ada");
                s.setArray(2, c.createArrayOf("text", new String[] {"a", "b,c"}));
                s.setString(3, "{\"k\": [1, null]}");
                s.setObject(4, OffsetDateTime.parse("2026-03-29T00:59:00Z"));
                s.setBigDecimal(5, new java.math.BigDecimal("12.50"));
                s.setBytes(6, new byte[] {0, -1});
                s.executeUpdate();
                ResultSet keys = s.getGeneratedKeys();
                keys.next();
                return keys.getLong(1);
            }
        });
        outcome("values", () -> {
            try (Statement s = c.createStatement(); ResultSet r = s.executeQuery("SELECT * FROM people")) {
                r.next();
                return r.getString(2) + r.getArray(3) + r.getString(4) + r.getObject(5, OffsetDateTime.class) + r.getBigDecimal(6) + r.getBytes(7).length;
            }
        });
        outcome("prepared past its threshold", () -> {
            StringBuilder seen = new StringBuilder();
            try (PreparedStatement s = c.prepareStatement("SELECT name FROM people WHERE id = ?")) {
                for (int turn = 0; turn < 12; turn++) {
                    s.setLong(1, 1);
                    ResultSet r = s.executeQuery();
                    r.next();
                    seen.append(r.getString(1).charAt(0));
                }
            }
            return seen;
        });
        outcome("prepared on all connections", () -> {
            int found = 0;
            for (int turn = 0; turn < 60; turn++) {
                Connection other = take();
                try (PreparedStatement s = other.prepareStatement("SELECT count(*) FROM people WHERE name = ?")) {
                    s.setString(1, "ada");
                    ResultSet r = s.executeQuery();
                    r.next();
                    found += r.getInt(1);
                }
                give(other);
            }
            return found;
        });
        outcome("batch", () -> {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO people (name, paid) VALUES (?, ?)")) {
                for (int number = 0; number < 1000; number++) {
                    s.setString(1, "b" + number);
                    s.setInt(2, number);
                    s.addBatch();
                }
                return s.executeBatch().length + " " + one(c, "SELECT sum(paid) FROM people");
            }
        });
        outcome("rewritten batch", () -> {
            try (Connection rewriting = connect("&reWriteBatchedInserts=true"); PreparedStatement s = rewriting.prepareStatement("INSERT INTO people (name, paid) VALUES (?, ?)")) {
                for (int number = 0; number < 300; number++) {
                    s.setString(1, "r" + number);
                    s.setInt(2, number);
                    s.addBatch();
                }
                return s.executeBatch().length;
            }
        });
        outcome("batch that fails", () -> {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO people (name) VALUES (?)")) {
                for (String name : new String[] {"x1", "ada", "x2"}) {
                    s.setString(1, name);
                    s.addBatch();
                }
                return s.executeBatch();
            }
        });
        outcome("nothing of it", () -> one(c, "SELECT count(*) FROM people WHERE name LIKE 'x_'"));
        c.setAutoCommit(false);
        outcome("fetch size", () -> {
            long sum = 0;
            try (PreparedStatement s = c.prepareStatement("SELECT paid FROM people WHERE name LIKE 'b%' ORDER BY id")) {
                s.setFetchSize(50);
                ResultSet r = s.executeQuery();
                while (r.next()) sum += r.getInt(1);
            }
            c.commit();
            return sum;
        });
        outcome("two cursors at once", () -> {
            long sum = 0;
            try (PreparedStatement a = c.prepareStatement("SELECT paid FROM people WHERE name LIKE 'b%' ORDER BY id"); PreparedStatement b = c.prepareStatement("SELECT paid FROM people WHERE name LIKE 'r%' ORDER BY id")) {
                a.setFetchSize(20);
                b.setFetchSize(30);
                ResultSet ra = a.executeQuery(), rb = b.executeQuery();
                while (ra.next()) sum += ra.getInt(1) + (rb.next() ? rb.getInt(1) : 0);
            }
            c.commit();
            return sum;
        });
        outcome("holdable result", () -> {
            try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_READ_ONLY, ResultSet.HOLD_CURSORS_OVER_COMMIT)) {
                s.setFetchSize(10);
                ResultSet r = s.executeQuery("SELECT paid FROM people WHERE name LIKE 'b%' ORDER BY id");
                r.next();
                c.commit();
                r.absolute(100);
                return r.getInt(1);
            }
        });
        outcome("updatable result", () -> {
            try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
                ResultSet r = s.executeQuery("SELECT id, paid FROM people WHERE name = 'ada'");
                r.next();
                r.updateInt(2, 13);
                r.updateRow();
                c.commit();
                return one(c, "SELECT paid FROM people WHERE name = 'ada'");
            }
        });
        outcome("refcursor", () -> {
            run(c, "CREATE FUNCTION open_it() RETURNS refcursor LANGUAGE plpgsql AS $$ DECLARE r refcursor; BEGIN OPEN r FOR SELECT name FROM people ORDER BY id LIMIT 3; RETURN r; END $$");
            c.commit();
            try (CallableStatement s = c.prepareCall("{? = call open_it()}")) {
                s.registerOutParameter(1, Types.REF_CURSOR);
                s.execute();
                ResultSet r = s.getObject(1, ResultSet.class);
                int rows = 0;
                while (r.next()) rows++;
                c.commit();
                return rows;
            }
        });
        outcome("savepoint", () -> {
            run(c, "INSERT INTO people (name) VALUES ('s1')");
            Savepoint savepoint = c.setSavepoint("one");
            outcome("in it", () -> { run(c, "INSERT INTO people (name) VALUES ('ada')"); return "done"; });
            c.rollback(savepoint);
            c.releaseSavepoint(savepoint);
            c.commit();
            return one(c, "SELECT count(*) FROM people WHERE name = 's1'");
        });
        outcome("failed block", () -> {
            outcome("error", () -> one(c, "SELECT 1/0"));
            outcome("after it", () -> one(c, "SELECT 1"));
            c.rollback();
            return one(c, "SELECT 2");
        });
        outcome("commit of a failed block", () -> {
            outcome("error in it", () -> one(c, "SELECT 1/0"));
            c.commit();
            return "committed";
        });
        c.rollback();
        outcome("autosave", () -> {
            try (Connection saving = connect("&autosave=always")) {
                saving.setAutoCommit(false);
                run(saving, "INSERT INTO people (name) VALUES ('auto')");
                outcome("autosaved error", () -> one(saving, "SELECT 1/0"));
                saving.commit();
                return one(saving, "SELECT count(*) FROM people WHERE name = 'auto'");
            }
        });
        outcome("stale plan with autosave", () -> {
            try (Connection saving = connect("&autosave=conservative&prepareThreshold=1"); Connection other = connect("")) {
                saving.setAutoCommit(false);
                try (PreparedStatement s = saving.prepareStatement("SELECT * FROM m1")) {
                    for (int turn = 0; turn < 3; turn++) s.executeQuery();
                    saving.commit();
                    run(other, "ALTER TABLE m1 ADD COLUMN b int");
                    ResultSet r = s.executeQuery();
                    int columns = r.getMetaData().getColumnCount();
                    saving.commit();
                    return columns;
                }
            }
        });
        c.setAutoCommit(true);
        outcome("isolation", () -> {
            Connection other = take();
            other.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            other.setReadOnly(true);
            other.setAutoCommit(false);
            Object level = one(other, "SELECT current_setting('transaction_isolation') || current_setting('transaction_read_only')");
            outcome("write in it", () -> { run(other, "INSERT INTO m2 VALUES (1)"); return "done"; });
            give(other);
            return level + " " + one(other, "SHOW transaction_isolation");
        });
        outcome("read only on the server", () -> {
            try (Connection reading = connect("&readOnly=true&readOnlyMode=always")) {
                outcome("write on it", () -> { run(reading, "INSERT INTO m2 VALUES (1)"); return "done"; });
                return one(reading, "SELECT count(*) FROM m2");
            }
        });
        outcome("query timeout", () -> {
            try (Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                s.execute("SELECT pg_sleep(8)");
                return "done";
            }
        });
        outcome("query timeout in a block", () -> {
            c.setAutoCommit(false);
            try (Statement s = c.createStatement()) {
                s.setQueryTimeout(1);
                s.execute("SELECT pg_sleep(8)");
                return "done";
            } finally {
                c.rollback();
                c.setAutoCommit(true);
            }
        });
        outcome("schema", () -> {
            run(c, "CREATE SCHEMA tenant");
            run(c, "CREATE TABLE tenant.m1 (a int)");
            run(c, "INSERT INTO tenant.m1 VALUES (42)");
            c.setSchema("tenant");
            Object there = one(c, "SELECT a FROM m1");
            c.setSchema("public");
            return there + " " + one(c, "SELECT count(*) FROM m1") + " " + c.getSchema();
        });
        outcome("client info", () -> {
            c.setClientInfo("ApplicationName", "renamed");
            return one(c, "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()");
        });
        outcome("COPY", () -> {
            CopyManager copies = new CopyManager((BaseConnection) c);
            long in = copies.copyIn("COPY m3 FROM STDIN", new StringReader("1\n2\n3\n"));
            StringWriter out = new StringWriter();
            copies.copyOut("COPY m3 TO STDOUT (FORMAT csv)", out);
            outcome("COPY that fails", () -> copies.copyIn("COPY m3 FROM STDIN", new StringReader("x\n")));
            return in + out.toString();
        });
        outcome("notifications", () -> {
            Connection listener = take(), sender = take();
            run(listener, "LISTEN news");
            for (int number = 0; number < 5; number++) run(sender, "NOTIFY news, '" + number + "'");
            List<String> heard = new ArrayList<>();
            for (int turn = 0; turn < 50 && heard.size() < 5; turn++) {
                PGNotification[] got = listener.unwrap(PGConnection.class).getNotifications(200);
                if (got != null) for (PGNotification one : got) heard.add(one.getName() + one.getParameter());
            }
            run(listener, "UNLISTEN *");
            give(listener);
            give(sender);
            return heard;
        });
        outcome("large object", () -> {
            c.setAutoCommit(false);
            var manager = c.unwrap(PGConnection.class).getLargeObjectAPI();
            long id = manager.createLO();
            var object = manager.open(id, org.postgresql.largeobject.LargeObjectManager.WRITE);
            object.write("hello".getBytes());
            object.close();
            object = manager.open(id);
            String read = new String(object.read(100));
            object.close();
            manager.delete(id);
            c.commit();
            c.setAutoCommit(true);
            return read;
        });
        outcome("metadata", () -> {
            List<String> names = new ArrayList<>();
            try (ResultSet r = c.getMetaData().getColumns(null, "public", "people", null)) {
                while (r.next()) names.add(r.getString("COLUMN_NAME") + r.getString("TYPE_NAME"));
            }
            return names + " " + c.getMetaData().getUserName() + " " + c.getMetaData().getDefaultTransactionIsolation();
        });
        outcome("warnings", () -> {
            try (Statement s = c.createStatement()) {
                s.execute("DO $$ BEGIN RAISE WARNING 'careful'; END $$");
                return s.getWarnings().getMessage();
            }
        });
        outcome("several statements", () -> {
            try (Statement s = c.createStatement()) {
                List<Object> seen = new ArrayList<>();
                boolean rows = s.execute("SELECT 1; INSERT INTO m4 VALUES (1), (2); SELECT 3");
                while (rows || s.getUpdateCount() != -1) {
                    if (rows) { s.getResultSet().next(); seen.add("row " + s.getResultSet().getInt(1)); } else seen.add(s.getUpdateCount());
                    rows = s.getMoreResults();
                }
                return seen;
            }
        });
        outcome("simple mode", () -> {
            try (Connection simple = connect("&preferQueryMode=simple"); PreparedStatement s = simple.prepareStatement("SELECT ?::int + 1")) {
                s.setInt(1, 41);
                ResultSet r = s.executeQuery();
                r.next();
                return r.getInt(1);
            }
        });
        outcome("target_session_attrs", () -> {
            StringBuilder seen = new StringBuilder();
            for (String type : new String[] {"any", "primary", "preferSecondary", "secondary"}) {
                try (Connection other = connect("&targetServerType=" + type)) {
                    seen.append(type).append("=").append(one(other, "SELECT 1")).append(" ");
                } catch (SQLException error) {
                    seen.append(type).append("=").append(error.getSQLState()).append(" ");
                }
            }
            return seen;
        });
        give(c);
        outcome("read after write", () -> {
            ExecutorService threads = Executors.newFixedThreadPool(8);
            List<Future<Integer>> found = new ArrayList<>();
            for (int number = 0; number < 120; number++) {
                String name = "load" + number;
                found.add(threads.submit(() -> {
                    Connection writer = take();
                    writer.setAutoCommit(false);
                    run(writer, "INSERT INTO people (name) VALUES ('" + name + "')");
                    writer.commit();
                    give(writer);
                    Connection reader = take();
                    try (PreparedStatement s = reader.prepareStatement("SELECT count(*) FROM people WHERE name = ?")) {
                        s.setString(1, name);
                        ResultSet r = s.executeQuery();
                        r.next();
                        return r.getInt(1);
                    } finally {
                        give(reader);
                    }
                }));
            }
            int sum = 0;
            for (Future<Integer> one : found) sum += one.get();
            threads.shutdown();
            return sum;
        });
        for (Connection one : POOL) one.close();
    }
}
