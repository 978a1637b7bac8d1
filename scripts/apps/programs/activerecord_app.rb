# Active Record: migrations with their advisory lock, transactions, prepared statements, its pool, queues in its style.
require "active_record"
require "pg"
require "timeout"

$stdout.sync = true

def say(what, came_out)
  puts "#{what}: #{came_out.inspect[0, 600]}"
end

def outcome(what)
  say(what, yield)
rescue StandardError => e
  say(what, "#{e.class} #{e.message.lines.first.to_s.strip}")
end

BASE = { adapter: "postgresql", host: "127.0.0.1", port: ENV["PGPORT"], username: ENV["PGUSER"], database: ENV["PGDATABASE"],
         pool: 8, checkout_timeout: 20 }.freeze
ActiveRecord::Base.establish_connection(BASE)
ActiveRecord::Migration.verbose = false
ActiveRecord::Base.logger = nil

class First < ActiveRecord::Migration[6.1]
  def change
    create_table :users do |t|
      t.string :email, index: { unique: true }
      t.string :tags, array: true, default: []
      t.jsonb :data, default: {}
      t.inet :address
      t.daterange :span
      t.integer :lock_version, default: 0
      t.timestamps
    end
    create_table :jobs do |t|
      t.string :what
      t.boolean :done, default: false
      t.references :user, foreign_key: true
    end
  end
end

class Second < ActiveRecord::Migration[6.1]
  disable_ddl_transaction!
  def up
    add_index :jobs, :done, algorithm: :concurrently
    execute "SET statement_timeout = '5s'"
    say_with_time("filled") { execute "INSERT INTO jobs (what) SELECT 'job ' || n FROM generate_series(1, 40) n" }
    execute "RESET statement_timeout"
  end

  def down
    remove_index :jobs, :done
  end
end

class Third < ActiveRecord::Migration[6.1]
  def change
    add_column :users, :broken, :integer
    execute "ALTER TABLE nothing ADD COLUMN a int"
  end
end

class User < ActiveRecord::Base
  has_many :jobs
end

class Job < ActiveRecord::Base
  belongs_to :user, optional: true
end

def migrate(*migrations)
  numbered = migrations.each_with_index.map do |migration, number|
    made = migration.new(migration.name, number + 1)
    made
  end
  ActiveRecord::Migrator.new(:up, numbered, ActiveRecord::SchemaMigration).migrate
  "done"
end

outcome("migrate") { migrate(First, Second) }
outcome("migrate again") { migrate(First, Second) }
outcome("migrate that fails") { migrate(First, Second, Third) }
outcome("versions") { ActiveRecord::SchemaMigration.all_versions }
outcome("advisory lock is free") do
  ActiveRecord::Base.connection.select_value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND objid NOT BETWEEN 1000000 AND 1000010")
end
# Two of them at once, as when two hosts are deployed: one gets the lock, the other is told.
outcome("concurrent migration") do
  gate = Queue.new
  holder = Thread.new do
    ActiveRecord::Base.connection_pool.with_connection do |c|
      c.get_advisory_lock(777)
      gate << 1
      sleep 0.5
      c.release_advisory_lock(777)
    end
  end
  gate.pop
  got = ActiveRecord::Base.connection.get_advisory_lock(777)
  holder.join
  again = ActiveRecord::Base.connection.get_advisory_lock(777)
  [got, again, ActiveRecord::Base.connection.release_advisory_lock(777), ActiveRecord::Base.connection.release_advisory_lock(777)]
end
User.reset_column_information
Job.reset_column_information
outcome("columns") { User.columns.map { |c| [c.name, c.sql_type] } }
outcome("schema") { ActiveRecord::Base.connection.indexes("jobs").map(&:name) }

outcome("values") do
  u = User.create!(email: "ada@x", tags: %w[a b,c], data: { "k" => [1, nil] }, address: "10.0.0.1", span: Date.new(2026, 1, 1)..Date.new(2026, 2, 1))
  u.reload
  [u.tags, u.data, u.address.to_s, u.span, u.created_at.utc?]
end
outcome("unique") { User.create!(email: "ada@x") }
outcome("nested") do
  User.transaction do
    User.create!(email: "bob@x")
    begin
      User.transaction(requires_new: true) { User.create!(email: "ada@x") }
    rescue ActiveRecord::RecordNotUnique
      User.create!(email: "eve@x")
    end
    User.transaction(requires_new: true) { User.create!(email: "gone@x"); raise ActiveRecord::Rollback }
  end
  User.order(:id).pluck(:email)
end
outcome("isolation") { User.transaction(isolation: :serializable) { User.connection.select_value("SHOW transaction_isolation") } }
outcome("optimistic lock") do
  a, b = User.find_by(email: "ada@x"), User.find_by(email: "ada@x")
  a.update!(data: { a: 1 })
  b.update!(data: { b: 1 })
end
outcome("lock") { User.transaction { User.lock("FOR UPDATE NOWAIT").find_by(email: "ada@x").email } }
outcome("with_lock") { User.find_by(email: "bob@x").with_lock { 1 } }
outcome("insert_all") { User.insert_all([{ email: "ada@x", created_at: Time.now, updated_at: Time.now }, { email: "new@x", created_at: Time.now, updated_at: Time.now }], returning: :email).rows }
outcome("upsert_all") { User.upsert_all([{ email: "new@x", tags: ["up"], created_at: Time.now, updated_at: Time.now }], unique_by: :email).length }
outcome("create_or_find_by") { User.create_or_find_by!(email: "ada@x").email }
outcome("find_each") { Job.find_each(batch_size: 7).sum { |_| 1 } }
outcome("joins") { User.left_joins(:jobs).group(:email).order(:email).count }
outcome("exists") { User.where("tags @> ARRAY[?]::varchar[]", "a").exists? }
outcome("prepared") { 12.times.map { User.find_by(email: "ada@x").email }.uniq }
outcome("statement cache after DDL") do
  User.find_by(email: "ada@x")
  User.connection_pool.with_connection { |c| c.execute("ALTER TABLE users ADD COLUMN age integer") }
  [User.find_by(email: "ada@x").email, User.where(email: "ada@x").to_a.size]
end
outcome("stale plan in a block") do
  User.transaction do
    User.where(email: "bob@x").first
    Thread.new { ActiveRecord::Base.connection_pool.with_connection { |c| c.execute("SELECT 1") } }.join
    User.where(email: "bob@x").first.email
  end
end
outcome("explain") { User.where(email: "x").explain.include?("Scan") }
outcome("zone") do
  ActiveRecord::Base.connection.execute("SET TIME ZONE 'Asia/Tokyo'")
  shown = ActiveRecord::Base.connection.select_value("SELECT to_char(timestamptz '2026-03-29 00:30Z', 'HH24:MI TZH')")
  ActiveRecord::Base.connection.execute("SET TIME ZONE 'UTC'")
  [shown, ActiveRecord::Base.connection.select_value("SHOW timezone")]
end
outcome("temporary") do
  User.connection.create_table(:scratch, temporary: true) { |t| t.integer :a }
  User.connection.execute("INSERT INTO scratch (a) VALUES (1), (2)")
  sum = User.connection.select_value("SELECT sum(a) FROM scratch")
  User.connection.drop_table(:scratch)
  sum
end
outcome("copy") do
  raw = User.connection.raw_connection
  raw.copy_data("COPY jobs (what) FROM STDIN") { 5.times { |n| raw.put_copy_data("copied #{n}\n") } }
  out = []
  raw.copy_data("COPY (SELECT what FROM jobs WHERE what LIKE 'copied%' ORDER BY id) TO STDOUT") { while (row = raw.get_copy_data) do out << row end }
  out
end
outcome("listen") do
  raw = User.connection.raw_connection
  raw.exec("LISTEN cable")
  Thread.new { ActiveRecord::Base.connection_pool.with_connection { |c| c.execute("NOTIFY cable, 'hello'") } }.join
  heard = nil
  raw.wait_for_notify(5) { |channel, _, payload| heard = [channel, payload] }
  raw.exec("UNLISTEN *")
  [heard, raw.wait_for_notify(0.1)]
end
outcome("ruby-pg") do
  raw = User.connection.raw_connection
  raw.prepare("mine", "SELECT $1::int + 1 AS n")
  first = raw.exec_prepared("mine", [41]).getvalue(0, 0)
  described = raw.describe_prepared("mine").nfields
  raw.exec("DEALLOCATE mine")
  raw.send_query("SELECT generate_series(1, 3); SELECT 'two'")
  got = []
  while (result = raw.get_result) do got << result.values end
  raw.send_query("SELECT generate_series(1, 4)")
  raw.set_single_row_mode
  rows = 0
  while (result = raw.get_result) do rows += result.ntuples end
  [first, described, got, rows, raw.transaction_status]
end
outcome("cancel") do
  raw = User.connection.raw_connection
  canceler = Thread.new { sleep 0.3; raw.cancel }
  begin
    raw.async_exec("SELECT pg_sleep(8)")
  ensure
    canceler.join
  end
end
outcome("cancel in a block") do
  User.transaction do
    raw = User.connection.raw_connection
    canceler = Thread.new { sleep 0.3; raw.cancel }
    begin
      raw.async_exec("SELECT pg_sleep(8)")
    ensure
      canceler.join
    end
  end
end
# As Que, GoodJob and Hangfire do: a job is locked for its session, and run outside of a transaction.
outcome("advisory-locked jobs") do
  done = Queue.new
  workers = 5.times.map do
    Thread.new do
      ActiveRecord::Base.connection_pool.with_connection do |c|
        loop do
          id = c.select_value(<<~SQL)
            WITH candidate AS (SELECT id FROM jobs WHERE NOT done ORDER BY id LIMIT 50)
            SELECT id FROM candidate WHERE pg_try_advisory_lock(88, id::int) LIMIT 1
          SQL
          break if id.nil?
          open = c.select_value("SELECT NOT done FROM jobs WHERE id = #{id}")
          if open
            c.execute("UPDATE jobs SET done = true WHERE id = #{id}")
            done << id
          end
          c.execute("SELECT pg_advisory_unlock(88, #{id})")
        end
        c.execute("SELECT pg_advisory_unlock_all()")
      end
    end
  end
  workers.each(&:join)
  ids = []
  ids << done.pop until done.empty?
  [ids.size, ids.uniq.size, Job.where(done: false).count]
end
outcome("skip locked jobs") do
  Job.update_all(done: false)
  done = Queue.new
  6.times.map do
    Thread.new do
      ActiveRecord::Base.connection_pool.with_connection do
        loop do
          job = Job.transaction do
            found = Job.where(done: false).order(:id).lock("FOR UPDATE SKIP LOCKED").first
            found&.update!(done: true)
            found
          end
          break if job.nil?
          done << job.id
        end
      end
    end
  end.each(&:join)
  ids = []
  ids << done.pop until done.empty?
  [ids.size, ids.uniq.size]
end
outcome("read after write") do
  30.times.map do |n|
    Thread.new do
      made = ActiveRecord::Base.connection_pool.with_connection { User.create!(email: "load#{n}@x").id }
      ActiveRecord::Base.connection_pool.with_connection { User.exists?(made) }
    end
  end.map(&:value).count(true)
end
outcome("two settings at login") do
  other = PG.connect(host: "127.0.0.1", port: ENV["PGPORT"], user: ENV["PGUSER"], dbname: ENV["PGDATABASE"], application_name: "puma: 1", options: "-c search_path=pg_temp,public -c intervalstyle=iso_8601")
  shown = other.exec("SELECT current_setting('application_name'), current_setting('search_path'), interval '1 day'").values
  other.reset
  again = other.exec("SELECT current_setting('application_name'), current_setting('search_path')").values
  other.close
  [shown, again]
end
outcome("lost connection") do
  c = ActiveRecord::Base.connection
  pid = c.select_value("SELECT pg_backend_pid()")
  Thread.new { ActiveRecord::Base.connection_pool.with_connection { |o| o.execute("SELECT pg_terminate_backend(#{pid})") } }.join
  sleep 0.2
  begin
    c.select_value("SELECT 1")
  rescue StandardError => e
    say("lost connection's error", e.class.name)
  end
  c.reconnect!
  c.select_value("SELECT 2")
end
ActiveRecord::Base.connection_pool.disconnect!
