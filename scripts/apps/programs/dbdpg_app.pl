# DBD::Pg: last_insert_id, server-side prepares, savepoints, COPY, notifications, asynchronous statements, many handles.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:async :pg_types);

$| = 1;
my $dsn = "dbi:Pg:dbname=$ENV{PGDATABASE};host=127.0.0.1;port=$ENV{PGPORT}";

sub flat {
    my ($value) = @_;
    return 'undef' unless defined $value;
    return '[' . join(', ', map { flat($_) } @$value) . ']' if ref $value eq 'ARRAY';
    return '{' . join(', ', map { "$_=" . flat($value->{$_}) } sort keys %$value) . '}' if ref $value eq 'HASH';
    return "$value";
}

sub say_it {
    my ($what, $came_out) = @_;
    my $text = substr(flat($came_out), 0, 600);
    $text =~ s/\n/ /g;
    print "$what: $text\n";
}

sub outcome {
    my ($what, $work) = @_;
    my $answer = eval { $work->() };
    if ($@) {
        my ($first) = split /\n/, $@;
        $first =~ s/ at \S+ line .*//;
        say_it($what, ($DBI::state // '') . " $first");
    } else {
        say_it($what, $answer);
    }
}

sub handle {
    return DBI->connect($dsn, $ENV{PGUSER}, '', { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, @_ });
}

my $db = handle();
$db->do('CREATE TABLE people (id serial PRIMARY KEY, name text UNIQUE, tags text[], data jsonb, at timestamptz, raw bytea)');
outcome('last_insert_id', sub {
    $db->do('INSERT INTO people (name, tags) VALUES (?, ?)', undef, 'ada', ['a', 'b,c']);
    return $db->last_insert_id(undef, undef, 'people', undef);
});
outcome('last_insert_id of fresh handles', sub {
    my $wrong = 0;
    for my $number (0 .. 39) {
        my $own = handle();
        $own->do('INSERT INTO people (name) VALUES (?)', undef, "fresh $number");
        $own->selectall_arrayref('SELECT count(*) FROM people') if $number % 2;
        select(undef, undef, undef, 0.02) if $number % 4 == 3;
        my $id = $own->last_insert_id(undef, undef, 'people', undef);
        my ($name) = $own->selectrow_array('SELECT name FROM people WHERE id = ?', undef, $id);
        $wrong++ if $name ne "fresh $number";
        $own->disconnect;
    }
    return $wrong;
});
outcome('values', sub { $db->selectrow_arrayref("SELECT tags, id, data FROM people WHERE name = 'ada'") });
outcome('bytea', sub {
    my $statement = $db->prepare('UPDATE people SET raw = ? WHERE name = ? RETURNING length(raw)');
    $statement->bind_param(1, "\0\xff", { pg_type => PG_BYTEA });
    $statement->bind_param(2, 'ada');
    $statement->execute;
    return $statement->fetchall_arrayref;
});
for my $prepare (0, 1, 2) {
    outcome("server prepare $prepare", sub {
        my $own = handle(pg_server_prepare => $prepare > 0, pg_switch_prepared => $prepare == 2 ? 1 : 3);
        my $statement = $own->prepare('SELECT name FROM people WHERE id = ?');
        my @seen = map { $statement->execute(1); $statement->fetchrow_array } 1 .. 6;
        $statement->finish;
        $own->disconnect;
        return \@seen;
    });
}
outcome('error', sub { $db->do('INSERT INTO people (name) VALUES (?)', undef, 'ada') });
outcome('error fields', sub { [$db->state, $db->pg_error_field('constraint'), $db->pg_error_field('table')] });
outcome('block', sub {
    $db->begin_work;
    $db->do("INSERT INTO people (name) VALUES ('bob')");
    $db->pg_savepoint('s');
    eval { $db->do("INSERT INTO people (name) VALUES ('ada')") };
    say_it('in it', $db->state);
    $db->pg_rollback_to('s');
    $db->pg_release('s');
    say_it('status in it', $db->{pg_transaction_status} // $db->ping);
    $db->commit;
    return $db->ping;
});
outcome('AutoCommit off', sub {
    my $own = handle(AutoCommit => 0);
    $own->do("INSERT INTO people (name) VALUES ('auto')");
    $own->rollback;
    my ($count) = $own->selectrow_array("SELECT count(*) FROM people WHERE name = 'auto'");
    my @pings = ($own->ping);
    $own->commit;
    push @pings, $own->ping;
    $own->disconnect;
    return [$count, @pings];
});
outcome('read only', sub {
    my $own = handle(AutoCommit => 0, ReadOnly => 1);
    my @seen = $own->selectrow_array('SHOW transaction_read_only');
    eval { $own->do("INSERT INTO people (name) VALUES ('no')") };
    push @seen, $own->state;
    $own->rollback;
    $own->disconnect;
    return \@seen;
});
outcome('COPY', sub {
    $db->do('COPY people (name) FROM STDIN');
    $db->pg_putcopydata("copy $_\n") for 1 .. 500;
    $db->pg_putcopyend;
    $db->do("COPY (SELECT name FROM people WHERE name LIKE 'copy 1__' ORDER BY id) TO STDOUT");
    my ($line, $lines) = ('', 0);
    $lines++ while $db->pg_getcopydata(\$line) >= 0;
    return $lines;
});
outcome('COPY that fails', sub {
    $db->do('COPY people (name) FROM STDIN');
    $db->pg_putcopydata("ada\n");
    $db->pg_putcopyend;
});
outcome('after it', sub { $db->selectrow_arrayref('SELECT 1') });
outcome('notifications', sub {
    my ($listener, $sender) = (handle(), handle());
    $listener->do('LISTEN news');
    $sender->do("NOTIFY news, '$_'") for 1 .. 5;
    my @heard;
    for (1 .. 50) {
        while (my $one = $listener->pg_notifies) { push @heard, "$one->[0] $one->[2] " . ($one->[1] == $sender->{pg_pid} ? 'its' : 'not its') }
        last if @heard >= 5;
        select(undef, undef, undef, 0.05);
    }
    $listener->disconnect;
    $sender->disconnect;
    return \@heard;
});
outcome('asynchronous', sub {
    $db->do('SELECT pg_sleep(0.3)', { pg_async => PG_ASYNC });
    my $turns = 0;
    until ($db->pg_ready) { $turns++; select(undef, undef, undef, 0.05) }
    return [$turns > 1 ? 'waited' : 'at once', $db->pg_result];
});
outcome('asynchronous and cancelled', sub {
    $db->do('SELECT pg_sleep(5)', { pg_async => PG_ASYNC });
    select(undef, undef, undef, 0.2);
    my $began = time;
    $db->pg_cancel;
    return time - $began < 3 ? 'in time' : 'late';
});
outcome('asynchronous in a block and cancelled', sub {
    $db->begin_work;
    $db->do('SELECT pg_sleep(5)', { pg_async => PG_ASYNC });
    select(undef, undef, undef, 0.2);
    my $began = time;
    $db->pg_cancel;
    my $late = time - $began < 3 ? 'in time' : 'late';
    $db->rollback;
    return $late;
});
$db = handle() unless $db->ping;
outcome('large object', sub {
    $db->begin_work;
    my $id = $db->pg_lo_creat($db->{pg_INV_WRITE});
    my $open = $db->pg_lo_open($id, $db->{pg_INV_WRITE});
    $db->pg_lo_write($open, 'hello', 5);
    $db->pg_lo_lseek($open, 0, 0);
    my $read = '';
    $db->pg_lo_read($open, $read, 5);
    $db->pg_lo_unlink($id);
    $db->commit;
    return $read;
});
outcome('cursor', sub {
    $db->begin_work;
    $db->do('DECLARE c CURSOR FOR SELECT g FROM generate_series(1, 20) g');
    my @got = map { scalar @{ $db->selectall_arrayref('FETCH 7 FROM c') } } 1 .. 4;
    $db->commit;
    return \@got;
});
outcome('temporary table', sub {
    $db->do('CREATE TEMP TABLE t (a int)');
    $db->do('INSERT INTO t VALUES (1), (2)');
    my ($sum) = $db->selectrow_array('SELECT sum(a) FROM t');
    $db->do('DROP TABLE t');
    return $sum;
});
outcome('catalog', sub { [map { $_->[3] } @{ $db->column_info(undef, 'public', 'people', '%')->fetchall_arrayref }] });
outcome('primary key', sub { [$db->primary_key(undef, 'public', 'people')] });
outcome('execute_array', sub {
    my $statement = $db->prepare('INSERT INTO people (name) VALUES (?)');
    my @status;
    my $done = $statement->execute_array({ ArrayTupleStatus => \@status }, ['e1', 'e2', 'e3']);
    return [$done, @status];
});
outcome('encoding', sub {
    my $own = handle();
    $own->do("SET client_encoding = 'LATIN1'");
    my ($length) = $own->selectrow_array('SELECT octet_length(?)', undef, "\xe9");
    $own->disconnect;
    return $length;
});
outcome('handles', sub {
    my @handles = map { handle(AutoCommit => 0) } 1 .. 5;
    my $sum = 0;
    for my $turn (1 .. 20) {
        for my $number (0 .. 4) {
            $handles[$number]->do('INSERT INTO people (name) VALUES (?)', undef, "h $number $turn");
            $handles[$number]->commit;
            ($a) = $handles[($number + 1) % 5]->selectrow_array('SELECT count(*) FROM people WHERE name = ?', undef, "h $number $turn");
            $handles[($number + 1) % 5]->commit;
            $sum += $a;
        }
    }
    $_->disconnect for @handles;
    return $sum;
});
$db->disconnect;
