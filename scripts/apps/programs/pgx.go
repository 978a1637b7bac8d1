// pgx with its pool: its cache of statements, batches, CopyFrom, exec modes, notifications, contexts, conn hijacking.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

var mutex sync.Mutex
var ctx = context.Background()

func say(what string, cameOut interface{}) {
	mutex.Lock()
	defer mutex.Unlock()
	fmt.Printf("%s: %v\n", what, cameOut)
}

func words(err error) string {
	var of *pgconn.PgError
	if errors.As(err, &of) {
		return of.Code + " " + of.Message
	}
	return strings.Split(err.Error(), "\n")[0]
}

func outcome(what string, work func() (interface{}, error)) {
	answer, err := work()
	if err != nil {
		say(what, fmt.Sprint(words(err), " ", answer))
		return
	}
	say(what, answer)
}

type asker interface {
	QueryRow(context.Context, string, ...interface{}) pgx.Row
}

func one(of asker, query string, arguments ...interface{}) (value interface{}, err error) {
	err = of.QueryRow(ctx, query, arguments...).Scan(&value)
	return
}

func main() {
	config, _ := pgxpool.ParseConfig(os.Getenv("DATABASE_URL") + "?sslmode=disable&pool_max_conns=8&application_name=pgx")
	db, err := pgxpool.ConnectConfig(ctx, config)
	if err != nil {
		say("connect", words(err))
		os.Exit(1)
	}
	defer db.Close()
	db.Exec(ctx, "CREATE TABLE people (id bigserial PRIMARY KEY, name text UNIQUE, tags text[], data jsonb, at timestamptz, n numeric, raw bytea)")
	outcome("insert", func() (interface{}, error) {
		return one(db, "INSERT INTO people (name, tags, data, at, n, raw) VALUES ($1, $2, $3, $4, $5, $6) RETURNING id", "ada", []string{"a", "b,c"}, map[string]interface{}{"k": 1}, time.Date(2026, 3, 29, 0, 59, 0, 0, time.UTC), "12.50", []byte{0, 255})
	})
	outcome("values", func() (interface{}, error) {
		rows, err := db.Query(ctx, "SELECT tags, data, at AT TIME ZONE 'UTC', n::text, raw FROM people")
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		rows.Next()
		return rows.Values()
	})
	outcome("cached on all connections", func() (interface{}, error) {
		var group sync.WaitGroup
		found := 0
		for n := 0; n < 300; n++ {
			group.Add(1)
			go func(n int) {
				defer group.Done()
				var count int
				if err := db.QueryRow(ctx, fmt.Sprintf("SELECT count(*) + %d - %d FROM people WHERE name = $1", n%40, n%40), "ada").Scan(&count); err != nil {
					say("cached", words(err))
				}
				mutex.Lock()
				found += count
				mutex.Unlock()
			}(n)
		}
		group.Wait()
		return found, nil
	})
	outcome("DDL under the cache", func() (interface{}, error) {
		for n := 0; n < 3; n++ {
			rows, _ := db.Query(ctx, "SELECT * FROM people WHERE name = $1", "ada")
			rows.Close()
		}
		db.Exec(ctx, "ALTER TABLE people ADD COLUMN extra int")
		columns := 0
		var err error
		for n := 0; n < 3; n++ {
			var rows pgx.Rows
			rows, err = db.Query(ctx, "SELECT * FROM people WHERE name = $1", "ada")
			if err != nil {
				continue
			}
			rows.Close()
			err = rows.Err()
			columns = len(rows.FieldDescriptions())
		}
		_ = columns
		return "asked", nil
	})
	outcome("batch", func() (interface{}, error) {
		batch := &pgx.Batch{}
		for n := 0; n < 50; n++ {
			batch.Queue("INSERT INTO people (name) VALUES ($1) RETURNING name", fmt.Sprint("b", n))
		}
		batch.Queue("SELECT count(*) FROM people WHERE name LIKE 'b%'")
		results := db.SendBatch(ctx, batch)
		defer results.Close()
		for n := 0; n < 50; n++ {
			if _, err := results.Exec(); err != nil {
				return n, err
			}
		}
		var count int
		return count, results.QueryRow().Scan(&count)
	})
	outcome("batch that fails", func() (interface{}, error) {
		batch := &pgx.Batch{}
		batch.Queue("INSERT INTO people (name) VALUES ('lost')")
		batch.Queue("INSERT INTO people (name) VALUES ('ada')")
		batch.Queue("INSERT INTO people (name) VALUES ('lost too')")
		return nil, db.SendBatch(ctx, batch).Close()
	})
	outcome("nothing of it", func() (interface{}, error) { return one(db, "SELECT count(*) FROM people WHERE name LIKE 'lost%'") })
	outcome("batch with a block", func() (interface{}, error) {
		batch := &pgx.Batch{}
		batch.Queue("BEGIN")
		batch.Queue("INSERT INTO people (name) VALUES ('in a block')")
		batch.Queue("SET LOCAL work_mem = '7MB'")
		batch.Queue("SELECT current_setting('work_mem')")
		batch.Queue("COMMIT")
		results := db.SendBatch(ctx, batch)
		defer results.Close()
		for n := 0; n < 3; n++ {
			if _, err := results.Exec(); err != nil {
				return n, err
			}
		}
		var shown string
		err := results.QueryRow().Scan(&shown)
		_, more := results.Exec()
		if more != nil {
			return shown, more
		}
		return shown, err
	})
	outcome("CopyFrom", func() (interface{}, error) {
		rows := [][]interface{}{}
		for n := 0; n < 3000; n++ {
			rows = append(rows, []interface{}{fmt.Sprint("c", n), []string{"x"}})
		}
		return db.CopyFrom(ctx, pgx.Identifier{"people"}, []string{"name", "tags"}, pgx.CopyFromRows(rows))
	})
	outcome("CopyFrom that fails", func() (interface{}, error) {
		return db.CopyFrom(ctx, pgx.Identifier{"people"}, []string{"name"}, pgx.CopyFromRows([][]interface{}{{"new"}, {"ada"}}))
	})
	outcome("block", func() (interface{}, error) {
		return nil, db.BeginTxFunc(ctx, pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadWrite}, func(tx pgx.Tx) error {
			tx.Exec(ctx, "INSERT INTO people (name) VALUES ('tx')")
			err := tx.BeginFunc(ctx, func(inner pgx.Tx) error {
				_, err := inner.Exec(ctx, "INSERT INTO people (name) VALUES ('ada')")
				return err
			})
			say("in it", words(err))
			level, err := one(tx, "SELECT current_setting('transaction_isolation')")
			say("level", level)
			return err
		})
	})
	outcome("read only", func() (interface{}, error) {
		tx, err := db.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly, DeferrableMode: pgx.Deferrable, IsoLevel: pgx.Serializable})
		if err != nil {
			return nil, err
		}
		defer tx.Rollback(ctx)
		_, err = tx.Exec(ctx, "DELETE FROM people")
		return nil, err
	})
	outcome("commit of a failed block", func() (interface{}, error) {
		tx, _ := db.Begin(ctx)
		tx.Exec(ctx, "SELECT 1/0")
		return nil, tx.Commit(ctx)
	})
	deadline := func(block bool) func() (interface{}, error) {
		return func() (interface{}, error) {
			limited, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
			defer cancel()
			began := time.Now()
			var err error
			if block {
				var tx pgx.Tx
				tx, _ = db.Begin(ctx)
				_, err = tx.Exec(limited, "SELECT pg_sleep(6)")
				tx.Rollback(ctx)
			} else {
				_, err = db.Exec(limited, "SELECT pg_sleep(6)")
			}
			return time.Since(began) < 3*time.Second, errors.New(words(err)[:7])
		}
	}
	outcome("deadline", deadline(false))
	outcome("deadline in a block", deadline(true))
	// pgx closes such a connection: what ran on it must not go on for long, nor be in anybody's way.
	outcome("after it", func() (interface{}, error) {
		for turn := 0; turn < 160; turn++ {
			if count, _ := one(db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%'"); count == int64(0) {
				return "gone", nil
			}
			time.Sleep(50 * time.Millisecond)
		}
		return "still there", nil
	})
	for _, mode := range []struct {
		name string
		how  func(*pgx.ConnConfig)
	}{
		{"simple", func(c *pgx.ConnConfig) { c.PreferSimpleProtocol = true }},
		{"described", func(c *pgx.ConnConfig) {
			c.BuildStatementCache = nil
		}},
	} {
		outcome("mode "+mode.name, func() (interface{}, error) {
			own := config.ConnConfig.Copy()
			mode.how(own)
			c, err := pgx.ConnectConfig(ctx, own)
			if err != nil {
				return nil, err
			}
			defer c.Close(ctx)
			got := []interface{}{}
			for n := 0; n < 4; n++ {
				v, err := one(c, "SELECT $1::text || current_setting('application_name')", fmt.Sprint(n))
				if err != nil {
					return got, err
				}
				got = append(got, v)
			}
			return got, nil
		})
	}
	outcome("prepared by name", func() (interface{}, error) {
		c, err := db.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		defer c.Release()
		if _, err := c.Conn().Prepare(ctx, "mine", "SELECT $1::int + 1"); err != nil {
			return nil, err
		}
		got := []interface{}{}
		for n := 0; n < 5; n++ {
			v, _ := one(c, "mine", n)
			got = append(got, v)
		}
		return got, c.Conn().Deallocate(ctx, "mine")
	})
	outcome("notifications", func() (interface{}, error) {
		c, err := db.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		defer c.Release()
		c.Exec(ctx, "LISTEN news")
		go func() {
			for n := 0; n < 10; n++ {
				db.Exec(ctx, "SELECT pg_notify('news', $1)", fmt.Sprint(n))
				time.Sleep(20 * time.Millisecond)
			}
		}()
		heard := []string{}
		for len(heard) < 10 {
			limited, cancel := context.WithTimeout(ctx, 5*time.Second)
			n, err := c.Conn().WaitForNotification(limited)
			cancel()
			if err != nil {
				return heard, err
			}
			heard = append(heard, n.Payload)
		}
		_, err = c.Exec(ctx, "UNLISTEN *")
		return heard, err
	})
	// The wait for a notification is given up by a read deadline; the connection lives on.
	outcome("several at once", func() (interface{}, error) {
		c, _ := db.Acquire(ctx)
		defer c.Release()
		reader := c.Conn().PgConn().Exec(ctx, "SELECT 1; INSERT INTO people (name) VALUES ('multi'); SELECT 2 WHERE false; COMMENT ON TABLE people IS 'x'")
		results, err := reader.ReadAll()
		tags := []string{}
		for _, r := range results {
			tags = append(tags, string(r.CommandTag))
		}
		return tags, err
	})
	outcome("COPY by hand", func() (interface{}, error) {
		c, _ := db.Acquire(ctx)
		defer c.Release()
		var out strings.Builder
		tag, err := c.Conn().PgConn().CopyTo(ctx, &out, "COPY (SELECT name FROM people WHERE name IN ('ada', 'tx') ORDER BY 1) TO STDOUT")
		if err != nil {
			return nil, err
		}
		in, err := c.Conn().PgConn().CopyFrom(ctx, strings.NewReader("h1\nh2\n"), "COPY people (name) FROM STDIN")
		return fmt.Sprint(string(tag), strings.Fields(out.String()), string(in)), err
	})
	outcome("parameters of the session", func() (interface{}, error) {
		c, _ := db.Acquire(ctx)
		defer c.Release()
		of := c.Conn().PgConn()
		c.Exec(ctx, "SET TIME ZONE 'Asia/Tokyo'")
		shown := []string{of.ParameterStatus("TimeZone"), of.ParameterStatus("standard_conforming_strings"), of.ParameterStatus("server_encoding"), of.ParameterStatus("is_superuser"), of.ParameterStatus("session_authorization")}
		c.Exec(ctx, "RESET TIME ZONE")
		pid, _ := one(c, "SELECT pg_backend_pid()")
		return fmt.Sprint(shown, pid == int32(of.PID())), nil
	})
	outcome("targets", func() (interface{}, error) {
		seen := []string{}
		for _, attribute := range []string{"any", "read-write", "read-only", "primary", "standby", "prefer-standby"} {
			c, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL")+"?sslmode=disable&target_session_attrs="+attribute)
			if err != nil {
				seen = append(seen, attribute+" refused")
				continue
			}
			c.Close(ctx)
			seen = append(seen, attribute)
		}
		return seen, nil
	})
	outcome("read after write", func() (interface{}, error) {
		var group sync.WaitGroup
		found := 0
		for n := 0; n < 200; n++ {
			group.Add(1)
			go func(n int) {
				defer group.Done()
				name := fmt.Sprint("load", n)
				if _, err := db.Exec(ctx, "INSERT INTO people (name) VALUES ($1)", name); err != nil {
					say("load", words(err))
				}
				var count int
				db.QueryRow(ctx, "SELECT count(*) FROM people WHERE name = $1", name).Scan(&count)
				mutex.Lock()
				found += count
				mutex.Unlock()
			}(n)
		}
		group.Wait()
		return found, nil
	})
}
