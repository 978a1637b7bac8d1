// lib/pq behind database/sql: its pool, prepared statements, transactions, COPY, listener, contexts that end.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lib/pq"
)

var mutex sync.Mutex

func say(what string, cameOut interface{}) {
	mutex.Lock()
	defer mutex.Unlock()
	fmt.Printf("%s: %v\n", what, cameOut)
}

func words(err error) string {
	var of *pq.Error
	if errors.As(err, &of) {
		return string(of.Code) + " " + of.Message
	}
	return strings.Split(err.Error(), "\n")[0]
}

func outcome(what string, work func() (interface{}, error)) {
	answer, err := work()
	if err != nil {
		say(what, words(err))
		return
	}
	say(what, answer)
}

func one(of interface {
	QueryRow(string, ...interface{}) *sql.Row
}, query string, arguments ...interface{}) (interface{}, error) {
	var value interface{}
	err := of.QueryRow(query, arguments...).Scan(&value)
	if bytes, ok := value.([]byte); ok {
		value = string(bytes)
	}
	return value, err
}

func main() {
	dsn := os.Getenv("DATABASE_URL") + "?sslmode=disable"
	db, _ := sql.Open("postgres", dsn)
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(4)
	must := func(statement string, arguments ...interface{}) {
		if _, err := db.Exec(statement, arguments...); err != nil {
			say("failed", words(err))
		}
	}
	must("CREATE TABLE people (id bigserial PRIMARY KEY, name text UNIQUE, tags text[], data jsonb, at timestamptz, raw bytea)")
	outcome("insert", func() (interface{}, error) {
		return one(db, "INSERT INTO people (name, tags, data, at, raw) VALUES ($1, $2, $3, $4, $5) RETURNING id", "ada", pq.Array([]string{"a", "b,c"}), `{"k": [1, null]}`, time.Date(2026, 3, 29, 0, 59, 0, 0, time.UTC), []byte{0, 255})
	})
	outcome("values", func() (interface{}, error) {
		var tags []string
		var at time.Time
		var data string
		err := db.QueryRow("SELECT tags, at, data FROM people WHERE name = $1", "ada").Scan(pq.Array(&tags), &at, &data)
		return fmt.Sprint(tags, at.UTC(), data), err
	})
	outcome("prepared on many connections", func() (interface{}, error) {
		statement, err := db.Prepare("SELECT count(*) FROM people WHERE name = $1")
		if err != nil {
			return nil, err
		}
		defer statement.Close()
		var group sync.WaitGroup
		var found int64
		for n := 0; n < 200; n++ {
			group.Add(1)
			go func() {
				defer group.Done()
				var count int64
				if err := statement.QueryRow("ada").Scan(&count); err != nil {
					say("prepared", words(err))
				}
				mutex.Lock()
				found += count
				mutex.Unlock()
			}()
		}
		group.Wait()
		return found, nil
	})
	outcome("transaction", func() (interface{}, error) {
		tx, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelSerializable})
		if err != nil {
			return nil, err
		}
		tx.Exec("INSERT INTO people (name) VALUES ('bob')")
		tx.Exec("SAVEPOINT s")
		_, err = tx.Exec("INSERT INTO people (name) VALUES ('ada')")
		say("in it", words(err))
		tx.Exec("ROLLBACK TO SAVEPOINT s")
		level, _ := one(tx, "SHOW transaction_isolation")
		return level, tx.Commit()
	})
	outcome("commit of a failed block", func() (interface{}, error) {
		tx, _ := db.Begin()
		tx.Exec("INSERT INTO people (name) VALUES ('ada')")
		return nil, tx.Commit()
	})
	outcome("read only", func() (interface{}, error) {
		tx, err := db.BeginTx(context.Background(), &sql.TxOptions{ReadOnly: true})
		if err != nil {
			return nil, err
		}
		defer tx.Rollback()
		say("read in it", fmt.Sprint(one(tx, "SELECT count(*) FROM people")))
		_, err = tx.Exec("DELETE FROM people")
		return nil, err
	})
	outcome("prepared in a transaction", func() (interface{}, error) {
		tx, _ := db.Begin()
		statement, err := tx.Prepare("INSERT INTO people (name) VALUES ($1)")
		if err != nil {
			return nil, err
		}
		for n := 0; n < 20; n++ {
			if _, err := statement.Exec(fmt.Sprint("t", n)); err != nil {
				return nil, err
			}
		}
		statement.Close()
		return "done", tx.Commit()
	})
	outcome("rows that are open", func() (interface{}, error) {
		rows, err := db.Query("SELECT name FROM people ORDER BY id")
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		seen := 0
		for rows.Next() {
			var name string
			rows.Scan(&name)
			if count, _ := one(db, "SELECT count(*) FROM people WHERE name = $1", name); count == int64(1) {
				seen++
			}
			if seen == 5 {
				break
			}
		}
		return seen, rows.Err()
	})
	outcome("COPY", func() (interface{}, error) {
		tx, _ := db.Begin()
		statement, err := tx.Prepare(pq.CopyIn("people", "name", "data"))
		if err != nil {
			return nil, err
		}
		for n := 0; n < 2000; n++ {
			if _, err := statement.Exec(fmt.Sprint("c", n), "{}"); err != nil {
				return nil, err
			}
		}
		if _, err := statement.Exec(); err != nil {
			return nil, err
		}
		statement.Close()
		count, _ := one(tx, "SELECT count(*) FROM people WHERE name LIKE 'c%'")
		return count, tx.Commit()
	})
	outcome("COPY that fails", func() (interface{}, error) {
		tx, _ := db.Begin()
		defer tx.Rollback()
		statement, err := tx.Prepare(pq.CopyIn("people", "name"))
		if err != nil {
			return nil, err
		}
		statement.Exec("ada")
		_, err = statement.Exec()
		return nil, err
	})
	outcome("several statements", func() (interface{}, error) {
		rows, err := db.Query("SELECT 1; SELECT 'two' WHERE false; SELECT 3")
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		sets := 1
		for rows.Next() {
		}
		for rows.NextResultSet() {
			sets++
			for rows.Next() {
			}
		}
		return sets, rows.Err()
	})
	deadline := func(block bool) func() (interface{}, error) {
		return func() (interface{}, error) {
			ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
			defer cancel()
			began := time.Now()
			var err error
			if block {
				tx, _ := db.BeginTx(ctx, nil)
				_, err = tx.ExecContext(ctx, "SELECT pg_sleep(6)")
				tx.Rollback()
			} else {
				_, err = db.ExecContext(ctx, "SELECT pg_sleep(6)")
			}
			say("in time", time.Since(began) < 3*time.Second)
			return nil, err
		}
	}
	outcome("deadline", deadline(false))
	outcome("deadline in a block", deadline(true))
	outcome("one connection", func() (interface{}, error) {
		ctx := context.Background()
		c, err := db.Conn(ctx)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		c.ExecContext(ctx, "SET search_path = pg_catalog")
		c.ExecContext(ctx, "CREATE TEMP TABLE mine (a int)")
		c.ExecContext(ctx, "INSERT INTO mine VALUES (1)")
		var path, count string
		err = c.QueryRowContext(ctx, "SELECT current_setting('search_path'), (SELECT count(*) FROM pg_temp.mine)").Scan(&path, &count)
		c.ExecContext(ctx, "DISCARD ALL")
		return path + count, err
	})
	outcome("advisory lock", func() (interface{}, error) {
		ctx := context.Background()
		a, _ := db.Conn(ctx)
		b, _ := db.Conn(ctx)
		defer a.Close()
		defer b.Close()
		got := func(c *sql.Conn, query string) (value bool) { c.QueryRowContext(ctx, query).Scan(&value); return }
		return fmt.Sprint(got(a, "SELECT pg_try_advisory_lock(5)"), got(b, "SELECT pg_try_advisory_lock(5)"), got(a, "SELECT pg_advisory_unlock(5)"), got(b, "SELECT pg_try_advisory_lock(5)"), got(b, "SELECT pg_advisory_unlock(5)")), nil
	})
	outcome("listener", func() (interface{}, error) {
		listener := pq.NewListener(dsn, 100*time.Millisecond, time.Second, nil)
		defer listener.Close()
		if err := listener.Listen("news"); err != nil {
			return nil, err
		}
		for n := 0; n < 20; n++ {
			must("SELECT pg_notify('news', $1)", fmt.Sprint(n))
		}
		heard := []string{}
		for len(heard) < 20 {
			select {
			case n := <-listener.Notify:
				heard = append(heard, n.Extra)
			case <-time.After(5 * time.Second):
				return heard, errors.New("too few " + fmt.Sprint(heard))
			}
		}
		return fmt.Sprint(heard, listener.Ping()), listener.UnlistenAll()
	})
	outcome("DDL under prepared statements", func() (interface{}, error) {
		statement, err := db.Prepare("SELECT * FROM people WHERE name = $1")
		if err != nil {
			return nil, err
		}
		defer statement.Close()
		rows, err := statement.Query("ada")
		if err != nil {
			return nil, err
		}
		rows.Close()
		return "asked", nil
	})
	outcome("binary parameters", func() (interface{}, error) {
		binary, _ := sql.Open("postgres", dsn+"&binary_parameters=yes")
		defer binary.Close()
		return one(binary, "SELECT $1::int + 1", 41)
	})
	outcome("login options", func() (interface{}, error) {
		other, _ := sql.Open("postgres", dsn+"&application_name=go%20app&search_path=pg_catalog&statement_timeout=4000&options=-c%20work_mem%3D7MB")
		defer other.Close()
		var a, b, c, d string
		err := other.QueryRow("SELECT current_setting('application_name'), current_setting('search_path'), current_setting('statement_timeout'), current_setting('work_mem')").Scan(&a, &b, &c, &d)
		return fmt.Sprint(a, b, c, d), err
	})
	outcome("read after write", func() (interface{}, error) {
		var group sync.WaitGroup
		var found int64
		for n := 0; n < 100; n++ {
			group.Add(1)
			go func(n int) {
				defer group.Done()
				tx, err := db.Begin()
				if err != nil {
					say("load", words(err))
					return
				}
				tx.Exec("INSERT INTO people (name) VALUES ($1)", fmt.Sprint("load", n))
				tx.Commit()
				count, _ := one(db, "SELECT count(*) FROM people WHERE name = $1", fmt.Sprint("load", n))
				mutex.Lock()
				found += count.(int64)
				mutex.Unlock()
			}(n)
		}
		group.Wait()
		return found, nil
	})
	outcome("retries", func() (interface{}, error) {
		must("CREATE TABLE counter (n int)")
		must("INSERT INTO counter VALUES (0)")
		var group sync.WaitGroup
		for n := 0; n < 5; n++ {
			group.Add(1)
			go func() {
				defer group.Done()
				for {
					tx, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: sql.LevelSerializable})
					if err != nil {
						continue
					}
					n, err := one(tx, "SELECT n FROM counter")
					if err == nil {
						_, err = tx.Exec("UPDATE counter SET n = $1", n.(int64)+1)
					}
					if err == nil && tx.Commit() == nil {
						return
					}
					tx.Rollback()
				}
			}()
		}
		group.Wait()
		return one(db, "SELECT n FROM counter")
	})
	db.Close()
}
