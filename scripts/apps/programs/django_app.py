"""Django: migrations, the ORM, transactions with savepoints, server-side cursors, its pool of psycopg connections."""

import datetime
import os
import pathlib
import sys
import threading
import time
import zoneinfo

import django
from django.conf import settings
from steps import DATABASE, PORT, USER, outcome, say, step

place = pathlib.Path(os.environ["SCRATCH"])
(place / "shop/migrations").mkdir(parents=True)
(place / "shop/__init__.py").write_text("")
(place / "shop/migrations/__init__.py").write_text("")
(place / "shop/models.py").write_text(
    """
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
class Customer(models.Model):
    email = models.EmailField(unique=True)
    tags = ArrayField(models.CharField(max_length=20), default=list)
    data = models.JSONField(default=dict)
    joined = models.DateTimeField()
    class Meta:
        app_label = "shop"
        indexes = [GinIndex(fields=["tags"])]
class Order(models.Model):
    customer = models.ForeignKey(Customer, models.CASCADE, related_name="orders")
    total = models.DecimalField(max_digits=10, decimal_places=2)
    paid = models.BooleanField(default=False)
    class Meta:
        app_label = "shop"
"""
)
sys.path.insert(0, str(place))

base = dict(ENGINE="django.db.backends.postgresql", NAME=DATABASE, USER=USER, HOST="127.0.0.1", PORT=PORT)
settings.configure(
    DATABASES={
        "default": dict(base, CONN_MAX_AGE=60, CONN_HEALTH_CHECKS=True, TEST={"NAME": f"test_{DATABASE}"}),
        "pooled": dict(base, OPTIONS={"pool": {"min_size": 2, "max_size": 6, "timeout": 20}}),
        "bound": dict(base, OPTIONS={"server_side_binding": True}),
        "serial": dict(base, OPTIONS={"isolation_level": 4}),
    },
    INSTALLED_APPS=[
        "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "django.contrib.postgres", "shop"],
    USE_TZ=True, TIME_ZONE="Europe/Berlin", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", CACHES={
        "default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"}},
)
django.setup()

from django.core import cache, management  # noqa: E402
from django.db import DatabaseError, IntegrityError, connection, connections, transaction  # noqa: E402
from django.db.models import Count, F, Sum  # noqa: E402
from shop.models import Customer, Order  # noqa: E402

AT = datetime.datetime(2026, 3, 29, 0, 59, tzinfo=datetime.timezone.utc)


def migrate():
    management.call_command("makemigrations", "shop", verbosity=0)
    management.call_command("migrate", verbosity=0)
    management.call_command("createcachetable", verbosity=0)
    (place / "shop/migrations/0002_more.py").write_text(
        """
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models
def fill(apps, editor):
    apps.get_model("shop", "Customer").objects.create(email="first@x", joined="2026-01-01T00:00Z")
class Migration(migrations.Migration):
    atomic = False
    dependencies = [("shop", "0001_initial")]
    operations = [AddIndexConcurrently("order", models.Index(fields=["paid"], name="by_paid")), migrations.RunPython(fill)]
"""
    )
    management.call_command("migrate", verbosity=0)
    management.call_command("showmigrations", "shop")
    with connection.cursor() as cursor:
        say("tables", connection.introspection.table_names(cursor))
        say("constraints", sorted(connection.introspection.get_constraints(cursor, "shop_order"))[:2])
    management.call_command("inspectdb", "shop_customer")


def orm():
    made = Customer.objects.create(email="ada@x", tags=["a", "b"], data={"k": [1, {"z": None}]}, joined=AT)
    made.refresh_from_db()
    say("values", (made.tags, made.data, made.joined.isoformat()))
    Order.objects.bulk_create([Order(customer=made, total=n) for n in range(500)], batch_size=100)
    say("sum", made.orders.aggregate(Sum("total"), Count("id")))
    say("lookups", Customer.objects.filter(tags__contains=["a"], data__k__0=1).values_list("email", flat=True)[:3].count())
    say("get_or_create", Customer.objects.get_or_create(email="ada@x", defaults={"joined": AT})[1])
    say("update_or_create", Customer.objects.update_or_create(email="eve@x", defaults={"joined": AT})[1])
    say("upsert", len(Customer.objects.bulk_create(
        [Customer(email="eve@x", joined=AT, tags=["new"])], update_conflicts=True, unique_fields=["email"], update_fields=["tags"])))
    say("upserted", Customer.objects.get(email="eve@x").tags)
    say("F", Order.objects.filter(total__lt=3).update(total=F("total") + 1))
    say("iterator", sum(order.total for order in Order.objects.iterator(chunk_size=50)))
    with zoneinfo_of("Asia/Tokyo"):
        say("dates", list(Customer.objects.filter(email="ada@x").dates("joined", "day")))
        say("datetimes", [str(d) for d in Customer.objects.filter(email="ada@x").datetimes("joined", "hour")])
    say("explain", "Scan" in Customer.objects.filter(email="x").explain())
    say("raw", [c.email for c in Customer.objects.raw("SELECT * FROM shop_customer WHERE email = %s", ["ada@x"])])
    say("union", Customer.objects.filter(email="a").union(Customer.objects.filter(email="ada@x")).count())


def zoneinfo_of(name):
    from django.utils import timezone
    return timezone.override(zoneinfo.ZoneInfo(name))


def transactions():
    done = []
    try:
        with transaction.atomic():
            Customer.objects.create(email="t1@x", joined=AT)
            try:
                with transaction.atomic():
                    Customer.objects.create(email="ada@x", joined=AT)
            except IntegrityError as error:
                say("integrity", str(error).splitlines()[0])
            transaction.on_commit(lambda: done.append(1))
            say("locked", Customer.objects.select_for_update(nowait=True).get(email="ada@x").email)
            say("skip locked", Customer.objects.select_for_update(skip_locked=True).filter(email="ada@x").count())
    finally:
        say("on_commit", done)
    with step("broken block"):
        with transaction.atomic():
            try:
                Customer.objects.create(email="ada@x", joined=AT)
            except IntegrityError:
                pass
            Customer.objects.count()
    with step("durable"):
        with transaction.atomic(durable=True):
            Customer.objects.create(email="t2@x", joined=AT)
            transaction.set_rollback(True)
    say("rolled back", Customer.objects.filter(email="t2@x").exists())
    with transaction.atomic():
        for order in Order.objects.order_by("id").iterator(chunk_size=20):
            order.paid = True
            order.save(update_fields=["paid"])
            if order.total > 40:
                break
    say("paid", Order.objects.filter(paid=True).count())


def server_side():
    say("bound", Customer.objects.using("bound").filter(email="ada@x", tags__len=2).count())
    say("bound in", Order.objects.using("bound").filter(id__in=list(range(1, 100))).count())
    for turn in range(8):
        Customer.objects.using("bound").get(email="ada@x")
    say("serializable", isolation("serial"))
    with step("write skew"):
        with transaction.atomic(using="serial"):
            Order.objects.using("serial").aggregate(Sum("total"))
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT 1")
            Order.objects.using("serial").filter(total=3).update(paid=False)
    with transaction.atomic(using="bound"):
        say("iterator", sum(1 for _ in Order.objects.using("bound").iterator(chunk_size=30)))


def isolation(alias):
    with connections[alias].cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        return cursor.fetchone()[0]


def sessions():
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore
    user = User.objects.create_user("ada", password="x")
    store = SessionStore()
    store["user"] = user.pk
    store.save()
    say("session", SessionStore(store.session_key)["user"] == user.pk)
    store.cycle_key()
    store.flush()
    cache.cache.set("k", {"v": 1}, 60)
    say("cache", (cache.cache.get("k"), cache.cache.add("k", 2), cache.cache.incr("n") if cache.cache.set("n", 1) else 0))
    cache.cache.delete_many(["k", "n"])
    say("cache afterwards", cache.cache.get("k"))


def threads():
    results, lock = [], threading.Lock()

    def work(number):
        seen = []
        for alias in ("pooled", "default", "pooled"):
            try:
                with transaction.atomic(using=alias):
                    made = Order.objects.using(alias).create(customer_id=1, total=number)
                connections[alias].close()
                seen.append(Order.objects.using(alias).filter(pk=made.pk).count())
            except DatabaseError as error:
                seen.append(type(error).__name__)
            finally:
                connections.close_all()
        with lock:
            results.append(tuple(seen))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(30)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    say("threads", sorted(set(results)))
    say("pooled count", Order.objects.using("pooled").count())
    connections["pooled"].close_pool()


def losing():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
    with connections["bound"].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
    time.sleep(0.3)
    with step("ended session"):
        Customer.objects.count()
    connection.close_if_unusable_or_obsolete()
    say("next request", Customer.objects.filter(email="ada@x").count())


def testing():
    """As `manage.py test` does."""
    connection.close()
    connections.close_all()
    name = connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    say("test database", name)
    say("its customers", Customer.objects.count())
    with transaction.atomic():
        Customer.objects.create(email="test@x", joined=AT)
        transaction.set_rollback(True)
    management.call_command("flush", verbosity=0, interactive=False)
    connection.creation.destroy_test_db(DATABASE, verbosity=0)
    say("back", Customer.objects.filter(email="ada@x").exists())


for part in (migrate, orm, transactions, server_side, sessions, threads, losing, testing):
    outcome(part.__name__, part)
connections.close_all()
