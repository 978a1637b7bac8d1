<?php
// PDO: one connection for each request, as PHP's applications have it: last insert ids, prepared statements, transactions.
error_reporting(E_ALL & ~E_DEPRECATED);

function say($what, $cameOut) {
    echo $what, ': ', substr(json_encode($cameOut), 0, 600), "\n";
}

function outcome($what, $work) {
    try {
        say($what, $work());
    } catch (Throwable $error) {
        say($what, get_class($error) . ' ' . $error->getCode() . ' ' . strtok(preg_replace('/^.*?ERROR: */s', '', $error->getMessage()), "\n"));
    }
}

function connect($options = [], $more = '') {
    $dsn = 'pgsql:host=127.0.0.1;port=' . getenv('PGPORT') . ';dbname=' . getenv('PGDATABASE') . $more;
    return new PDO($dsn, getenv('PGUSER'), null, $options + [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
}

$db = connect();
$db->exec('CREATE TABLE people (id serial PRIMARY KEY, name text UNIQUE, tags text[], data jsonb, at timestamptz, ok bool, raw bytea);
           CREATE TABLE visits (id bigint GENERATED ALWAYS AS IDENTITY, person int REFERENCES people, note text)');
outcome('last insert id', function () use ($db) {
    $db->prepare('INSERT INTO people (name, tags, data, at) VALUES (?, ?, ?, ?)')->execute(['ada', '{a,"b,c"}', '{"k": [1, null]}', '2026-03-29T00:59:00Z']);
    return [$db->lastInsertId(), $db->lastInsertId('people_id_seq')];
});
// Each request is a fresh connection: it inserts, does other things, and asks for the id.
outcome('last insert id of fresh connections', function () {
    $wrong = 0;
    for ($number = 0; $number < 40; $number++) {
        $request = connect();
        $request->exec("INSERT INTO people (name) VALUES ('request $number')");
        if ($number % 2) $request->query('SELECT count(*) FROM visits')->fetchAll();
        if ($number % 4 == 3) usleep(20000);
        $id = $request->lastInsertId();
        $name = $request->query("SELECT name FROM people WHERE id = $id")->fetchColumn();
        $wrong += $name !== "request $number";
    }
    return $wrong;
});
outcome('persistent connections', function () {
    $seen = [];
    for ($number = 0; $number < 6; $number++) {
        $request = connect([PDO::ATTR_PERSISTENT => true]);
        $request->exec("SET application_name = 'request'");
        $seen[] = $request->query('SHOW application_name')->fetchColumn();
        unset($request);
    }
    return $seen;
});
foreach ([true, false] as $emulated) {
    $how = $emulated ? 'emulated' : 'prepared';
    $own = connect([PDO::ATTR_EMULATE_PREPARES => $emulated]);
    outcome("$how", function () use ($own) {
        $statement = $own->prepare('SELECT id, name, ok FROM people WHERE name = :name AND id > :id');
        $seen = [];
        foreach (range(1, 8) as $turn) {
            $statement->execute(['name' => 'ada', 'id' => 0]);
            $seen[] = $statement->fetch(PDO::FETCH_NUM)[1];
        }
        return $seen;
    });
    outcome("$how typed", function () use ($own) {
        $statement = $own->prepare('INSERT INTO people (name, ok, raw) VALUES (?, ?, ?) RETURNING id IS NOT NULL, ok, raw');
        $statement->bindValue(1, 'typed ' . spl_object_id($own));
        $statement->bindValue(2, false, PDO::PARAM_BOOL);
        $statement->bindValue(3, "\0\xff", PDO::PARAM_LOB);
        $statement->execute();
        $row = $statement->fetch(PDO::FETCH_NUM);
        return [$row[0], $row[1], bin2hex(is_resource($row[2]) ? stream_get_contents($row[2]) : $row[2])];
    });
    outcome("$how error", fn () => $own->prepare('INSERT INTO people (name) VALUES (?)')->execute(['ada']));
    outcome("$how after it", fn () => $own->query('SELECT 1')->fetchColumn());
}
outcome('transaction', function () use ($db) {
    $db->beginTransaction();
    $db->exec("INSERT INTO people (name) VALUES ('bob')");
    $db->exec('SAVEPOINT s');
    try {
        $db->exec("INSERT INTO people (name) VALUES ('ada')");
    } catch (PDOException $error) {
        say('in it', $error->getCode());
        $db->exec('ROLLBACK TO SAVEPOINT s');
    }
    $inside = $db->inTransaction();
    $db->commit();
    return [$inside, $db->inTransaction()];
});
outcome('failed block', function () use ($db) {
    $db->beginTransaction();
    try {
        $db->exec('SELECT 1/0');
    } catch (PDOException $error) {
        say('error', $error->getCode());
    }
    try {
        $db->query('SELECT 1');
    } catch (PDOException $error) {
        say('after it', $error->getCode());
    }
    return $db->rollBack();
});
outcome('isolation', function () use ($db) {
    $db->beginTransaction();
    $db->exec('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE');
    $level = $db->query('SHOW transaction_isolation')->fetchColumn();
    $db->commit();
    return $level;
});
outcome('as Laravel begins', function () {
    $own = connect();
    $own->prepare("set names 'utf8'")->execute();
    $own->prepare('set search_path to "public"')->execute();
    $own->prepare("set time zone 'Asia/Tokyo'")->execute();
    $own->prepare("set application_name to 'laravel'")->execute();
    $statement = $own->prepare("SELECT to_char(at, 'HH24:MI TZH'), current_setting('application_name') FROM people WHERE name = ?");
    $statement->execute(['ada']);
    return $statement->fetch(PDO::FETCH_NUM);
});
// As Laravel's and Symfony's queues do.
outcome('queue', function () {
    $db = connect();
    $db->exec("CREATE TABLE jobs (id serial PRIMARY KEY, queue text, reserved_at int, attempts int DEFAULT 0); INSERT INTO jobs (queue) SELECT 'default' FROM generate_series(1, 20)");
    $workers = [connect(), connect(), connect()];
    $done = [];
    for ($turn = 0; $turn < 60; $turn++) {
        $worker = $workers[$turn % 3];
        $worker->beginTransaction();
        $statement = $worker->prepare('select * from "jobs" where "queue" = ? and "reserved_at" is null order by "id" asc limit 1 FOR UPDATE SKIP LOCKED');
        $statement->execute(['default']);
        $job = $statement->fetch(PDO::FETCH_ASSOC);
        if ($job) {
            $worker->prepare('update "jobs" set "reserved_at" = ?, "attempts" = ? where "id" = ?')->execute([1, 1, $job['id']]);
        }
        $worker->commit();
        if (!$job) break;
        $worker->beginTransaction();
        $worker->prepare('delete from "jobs" where "id" = ?')->execute([$job['id']]);
        $worker->commit();
        $done[] = $job['id'];
    }
    return [count($done), count(array_unique($done)), $db->query('SELECT count(*) FROM jobs')->fetchColumn()];
});
outcome('notification', function () {
    $listener = connect();
    $listener->exec('LISTEN messenger');
    connect()->exec("NOTIFY messenger, 'hello'");
    $heard = $listener->pgsqlGetNotify(PDO::FETCH_ASSOC, 5000);
    $listener->exec('UNLISTEN *');
    return [$heard['message'], $heard['payload']];
});
outcome('COPY', function () use ($db) {
    $db->pgsqlCopyFromArray('visits (note)', ['one', 'two', 'three']);
    return $db->pgsqlCopyToArray('visits (note)');
});
outcome('large object', function () use ($db) {
    $db->beginTransaction();
    $id = $db->pgsqlLOBCreate();
    $stream = $db->pgsqlLOBOpen($id, 'w');
    fwrite($stream, 'hello');
    fclose($stream);
    $stream = $db->pgsqlLOBOpen($id, 'r');
    $read = stream_get_contents($stream);
    $db->pgsqlLOBUnlink($id);
    $db->commit();
    return $read;
});
outcome('cursor', function () use ($db) {
    $db->beginTransaction();
    $statement = $db->prepare('SELECT g FROM generate_series(1, 100) g', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
    $statement->execute();
    $got = [$statement->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_ABS, 50)[0], $statement->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_PRIOR)[0], $statement->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST)[0]];
    $statement = null;
    $db->commit();
    return $got;
});
outcome('held cursor', function () use ($db) {
    $db->exec('DECLARE held CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 10) g');
    $got = [$db->query('FETCH 2 FROM held')->fetchAll(PDO::FETCH_COLUMN), $db->query('FETCH 2 FROM held')->fetchAll(PDO::FETCH_COLUMN)];
    $db->exec('CLOSE held');
    return $got;
});
outcome('temporary table', function () use ($db) {
    $db->exec('CREATE TEMPORARY TABLE basket (a int)');
    $db->exec('INSERT INTO basket VALUES (1), (2)');
    $sum = $db->query('SELECT sum(a) FROM basket')->fetchColumn();
    $db->exec('DROP TABLE basket');
    return $sum;
});
outcome('attributes', fn () => [$db->getAttribute(PDO::ATTR_CONNECTION_STATUS), $db->getAttribute(PDO::ATTR_DRIVER_NAME)]);

// The older functions, and those that do not wait.
$text = 'host=127.0.0.1 port=' . getenv('PGPORT') . ' dbname=' . getenv('PGDATABASE') . ' user=' . getenv('PGUSER');
$old = pg_connect($text);
outcome('pg_query_params', fn () => pg_fetch_row(pg_query_params($old, 'SELECT $1::int + 1, $2::text', [41, null])));
outcome('pg_prepare', function () use ($old) {
    pg_prepare($old, 'mine', 'SELECT name FROM people WHERE name = $1');
    return [pg_fetch_result(pg_execute($old, 'mine', ['ada']), 0, 0), pg_fetch_result(pg_execute($old, 'mine', ['bob']), 0, 0)];
});
outcome('pg_send_query', function () use ($old) {
    pg_send_query($old, "SELECT 1; SELECT 'two'; SELECT 1/0");
    $seen = [];
    while ($result = pg_get_result($old)) $seen[] = pg_result_error_field($result, PGSQL_DIAG_SQLSTATE) ?? pg_fetch_result($result, 0, 0);
    return $seen;
});
outcome('pg_insert', function () use ($old) {
    pg_insert($old, 'people', ['name' => 'old']);
    return pg_select($old, 'people', ['name' => 'old'])[0]['name'];
});
outcome('pg_cancel_query', function () use ($old) {
    pg_send_query($old, 'SELECT pg_sleep(5)');
    usleep(200000);
    $began = microtime(true);
    pg_cancel_query($old);
    return microtime(true) - $began < 3;
});
outcome('pg_ping', fn () => [pg_ping($old), pg_connection_reset($old), pg_fetch_result(pg_query($old, 'SELECT 1'), 0, 0)]);
outcome('pg_trace of states', fn () => [pg_transaction_status($old), pg_query($old, 'BEGIN') && pg_transaction_status($old), (bool) pg_query($old, 'ROLLBACK')]);
